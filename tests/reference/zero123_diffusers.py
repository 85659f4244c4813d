"""Names, shapes and outputs of Zero123 in diffusers' layout: tests/data/zero123_diffusers.npz.

Needs diffusers and transformers, which nothing else here needs; written with 0.42.1 and 5.24.0.
The outputs are a small model's, with weights seeded by "<part>.<name>". The projection of the
token and the viewpoint is a linear layer called `proj`.

    python -m tests.reference.zero123_diffusers
"""

from __future__ import annotations

import json

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.conftest import ROOT, thin_out
from tests.reference.seeded_weights import seeded_image, seeded_noise, seeded_tensor

FILE = ROOT / "tests" / "data" / "zero123_diffusers.npz"


def parts(channels: int, heads: int, vae: int, clip: dict[str, int]) -> dict[str, nn.Module]:
    """Build the parts of a model."""
    token, widths = clip["projection_dim"], (1, 2, 4, 4)
    return {
        "unet": UNet2DConditionModel(
            in_channels=8,
            out_channels=4,
            cross_attention_dim=token,
            attention_head_dim=heads,  # the number of heads, for a model of this kind
            block_out_channels=[channels * width for width in widths],
        ),
        "vae": AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[vae * width for width in widths],
            layers_per_block=2,
        ),
        "image_encoder": CLIPVisionModelWithProjection(
            CLIPVisionConfig(**clip, patch_size=14, hidden_act="quick_gelu")
        ),
        "clip_camera_projection": nn.ModuleDict({"proj": nn.Linear(token + 4, token)}),
    }


def shapes(model: dict[str, nn.Module]) -> str:
    """Shapes of all tensors by part and name, as JSON."""
    found = {part: m.state_dict() for part, m in model.items()}
    return json.dumps(
        {part: {n: list(t.shape) for n, t in state.items()} for part, state in found.items()}
    )


@torch.no_grad()
def main() -> None:
    """Write the file."""
    with torch.device("meta"):
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        clip = dict(zip(names, (1024, 4096, 24, 16), strict=True), projection_dim=768)
        full = shapes(parts(320, 8, 128, clip))
    clip = dict(zip(names, (64, 256, 2, 4), strict=True), projection_dim=64, image_size=56)
    small = parts(32, 4, 32, clip)
    for part, module in small.items():
        for name, tensor in module.eval().named_parameters():
            tensor.copy_(torch.from_numpy(seeded_tensor(f"{part}.{name}", tensor.shape)))

    def noise(label: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(seeded_noise(label, shape))

    image = torch.from_numpy(seeded_image("vae", 64))[None]
    unet, vae = small["unet"], small["vae"]
    outputs = {
        "noise": unet(noise("x", 2, 8, 16, 16), torch.tensor([981, 321]), noise("t", 2, 1, 64))[0],
        "latents": vae.encode(image).latent_dist.mean,
        "image": vae.decode(noise("z", 1, 4, 8, 8)).sample,
        "token": small["image_encoder"](pixel_values=noise("p", 2, 3, 56, 56)).image_embeds,
    }
    thin = {name: thin_out(tensor.numpy()) for name, tensor in outputs.items()}
    np.savez_compressed(FILE, full=full, small=shapes(small), **thin)


if __name__ == "__main__":
    main()
