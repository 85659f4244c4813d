"""Stable Diffusion's UNet, only the branches that the checkpoint uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.config import check_positive
from ldm.networks.attention import SpatialTransformer
from ldm.networks.layers import Upsample, zeroed
from ldm.schedule import timestep_embedding


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the UNet."""

    in_channels: int = 8  # noisy latent and input-view latent
    out_channels: int = 4
    channels: int = 320  # width of the first level; a multiple of `groups` and of `heads`
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)  # width of each level, each half the resolution
    res_blocks: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)  # levels with transformers
    heads: int = 8
    context_dim: int = 768  # width of the image token
    groups: int = 32

    def __post_init__(self) -> None:
        check_positive(self, from_zero=["attention_levels"])
        if self.channels % self.groups or self.channels % self.heads:
            raise ValueError(
                f"unet.channels must be a multiple of unet.groups ({self.groups}) and of "
                f"unet.heads ({self.heads}), got {self.channels}"
            )


class ResBlock(nn.Module):
    """Two convolutions with the time embedding added between them, and a shortcut."""

    def __init__(self, dim_in: int, dim_out: int, time_dim: int, groups: int = 32) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, dim_in), nn.SiLU(), nn.Conv2d(dim_in, dim_out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, dim_out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, dim_out),
            nn.SiLU(),
            nn.Dropout(0.0),  # holds its place: the checkpoint numbers the next layer 3
            zeroed(nn.Conv2d(dim_out, dim_out, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if dim_in == dim_out else nn.Conv2d(dim_in, dim_out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, C, H, W) and (B or 1, time_dim) -> (B, C', H, W)."""
        h = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Downsample(nn.Module):
    """Strided convolution, half the resolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.op(x)


class Block(nn.Sequential):
    """Sequence of layers; passes on the time embedding and the context to those that take them."""

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, H, W), (B or 1, time_dim), (B, 1, context_dim) -> (B, C', H', W')."""
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, time)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class UNet(nn.Module):
    """Encoder, middle and decoder with skip connections; `DepthUNet` has the forward pass."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        width, time_dim = config.channels, 4 * config.channels
        self.time_embed = nn.Sequential(
            nn.Linear(width, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim)
        )

        def transformer(dim: int) -> SpatialTransformer:
            return SpatialTransformer(dim, config.heads, config.context_dim, config.groups)

        def with_attention(level: int, dim_in: int, dim_out: int) -> list[nn.Module]:
            layers: list[nn.Module] = [ResBlock(dim_in, dim_out, time_dim, config.groups)]
            if level in config.attention_levels:
                layers.append(transformer(dim_out))
            return layers

        levels = range(len(config.channel_mult))
        self.input_blocks = nn.ModuleList(
            [Block(nn.Conv2d(config.in_channels, width, 3, padding=1))]
        )
        skip_dims, dim = [width], width
        for level in levels:
            for _ in range(config.res_blocks):
                dim_out = width * config.channel_mult[level]
                self.input_blocks.append(Block(*with_attention(level, dim, dim_out)))
                dim = dim_out
                skip_dims.append(dim)
            if level != levels[-1]:
                self.input_blocks.append(Block(Downsample(dim)))
                skip_dims.append(dim)

        self.middle_block = Block(
            ResBlock(dim, dim, time_dim, config.groups),
            transformer(dim),
            ResBlock(dim, dim, time_dim, config.groups),
        )

        self.output_blocks = nn.ModuleList()
        for level in reversed(levels):
            for i in range(config.res_blocks + 1):
                dim_out = width * config.channel_mult[level]
                layers = with_attention(level, dim + skip_dims.pop(), dim_out)
                dim = dim_out
                if level > 0 and i == config.res_blocks:
                    layers.append(Upsample(dim))
                self.output_blocks.append(Block(*layers))

        self.out = nn.Sequential(
            nn.GroupNorm(config.groups, dim),
            nn.SiLU(),
            zeroed(nn.Conv2d(dim, config.out_channels, 3, padding=1)),
        )

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, which every input must have."""
        return next(self.parameters()).dtype

    def embed_time(self, timesteps: Tensor) -> Tensor:
        """Embed timesteps, (B,) -> (B, time_dim)."""
        return self.time_embed(timestep_embedding(timesteps, self.config.channels).to(self.dtype))

    def encode(self, x: Tensor, time: Tensor, context: Tensor) -> list[Tensor]:
        """Return every input block's output, the last being the middle's input; see `Block`."""
        skips = []
        for block in self.input_blocks:
            x = block(x, time, context)
            skips.append(x)
        return skips
