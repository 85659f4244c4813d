"""CLIP's image tower as an image embedder (CLIP, Sec. 2.4; ViT-L/14 by default)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import check_positive

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of CLIP's image tower, in pixels a side, and of the unused text parameters."""

    image_size: int = 224
    patch_size: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    embed_dim: int = 768
    text_width: int = 768
    text_length: int = 77
    vocabulary: int = 49408

    def __post_init__(self) -> None:
        check_positive(self)


class CLIPVisual(nn.Module):
    """CLIP's image tower and the six text parameters that the published layout has."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        # Imported here: reading configurations and checkpoints does not need open_clip and its
        # torchvision. They make tensors when imported, which fails where tensors go to "meta".
        with torch.device("cpu"):
            from open_clip.transformer import QuickGELU, VisionTransformer

        self.positional_embedding = nn.Parameter(torch.zeros(config.text_length, config.text_width))
        self.text_projection = nn.Parameter(torch.zeros(config.text_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.visual = VisionTransformer(
            image_size=config.image_size,
            patch_size=config.patch_size,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            mlp_ratio=4.0,
            output_dim=config.embed_dim,
            act_layer=QuickGELU,
        )
        self.token_embedding = nn.Embedding(config.vocabulary, config.text_width)
        self.ln_final = nn.LayerNorm(config.text_width)


class CLIPImageEncoder(nn.Module):
    """One token that describes the content of the image."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.model = CLIPVisual(config)

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize and normalise (B, 3, H, W) in [-1, 1] as the tower was trained.

        Compat: bicubic with aligned corners and without antialiasing; overshoot is kept.
        """
        size = (self.image_size, self.image_size)
        resized = F.interpolate(images, size, mode="bicubic", align_corners=True)
        mean, std = (images.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        return ((resized + 1.0) / 2.0 - mean) / std

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> embeddings (B, 1, embed_dim), not normalised."""
        pixels = self.preprocess(images.float())
        return self.model.visual(pixels.to(self.model.visual.proj.dtype))[:, None]
