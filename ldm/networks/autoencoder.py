"""The KL-regularised autoencoder of Stable Diffusion 1 (latent diffusion, Sec. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from common.config import check_positive
from ldm.networks.layers import Upsample


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder."""

    channels: int = 128  # width of the finest level; a multiple of `groups`
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)  # width of each level, each half the resolution
    res_blocks: int = 2  # residual blocks a level
    latent_channels: int = 4
    scale: float = 0.18215  # latents are multiplied by it, which makes their variance about 1
    groups: int = 32
    shortcut: bool = False  # a linear path beside both networks, for mean colours; not published

    def __post_init__(self) -> None:
        check_positive(self)
        if self.channels % self.groups:
            expected = f"a multiple of autoencoder.groups ({self.groups})"
            raise ValueError(f"autoencoder.channels must be {expected}, got {self.channels}")

    @property
    def downsampling(self) -> int:
        """Image pixels a latent pixel, per side."""
        return 2 ** (len(self.channel_mult) - 1)


@dataclass(frozen=True)
class DiagonalGaussian:
    """Posterior of the latents: independent normals, (B, C, H, W) each."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise; `noise` is standard normal, (B, C, H, W)."""
        return self.mean + self.std * noise


def _norm(groups: int, dim: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, dim, eps=1e-6)


class ResnetBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, dim_in: int, dim_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(groups, dim_in)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.norm2 = _norm(groups, dim_out)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1)
        if dim_in != dim_out:
            self.nin_shortcut = nn.Conv2d(dim_in, dim_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


def _res_blocks(count: int, dim_in: int, dim_out: int, groups: int) -> list[ResnetBlock]:
    return [ResnetBlock(dim_out if i else dim_in, dim_out, groups) for i in range(count)]


class AttnBlock(nn.Module):
    """Single-head attention over all positions, in a residual branch."""

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(groups, dim)
        self.q = nn.Conv2d(dim, dim, 1)
        self.k = nn.Conv2d(dim, dim, 1)
        self.v = nn.Conv2d(dim, dim, 1)
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        height = x.shape[2]
        normed = self.norm(x)
        q, k, v = (
            rearrange(layer(normed), "b c h w -> b 1 (h w) c") for layer in (self.q, self.k, self.v)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(out, "b 1 (h w) c -> b c h w", h=height))


class Downsample(nn.Module):
    """Half the resolution. Compat: pads one row below and one column to the right only."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """Blocks of one resolution and the resampling to the next; names are the checkpoint's."""

    def __init__(self, blocks: list[ResnetBlock], **resample: nn.Module) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        for name, module in resample.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        for block in self.block:
            x = block(x)
        for name in ("downsample", "upsample"):
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(dim, dim, groups)
        self.attn_1 = AttnBlock(dim, groups)
        self.block_2 = ResnetBlock(dim, dim, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Image to the moments of its latents."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        dims = [config.channels, *(config.channels * mult for mult in config.channel_mult)]
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        for level, (dim_in, dim) in enumerate(pairwise(dims), start=1):
            blocks = _res_blocks(config.res_blocks, dim_in, dim, config.groups)
            last = level == len(config.channel_mult)
            self.down.append(Level(blocks, **({} if last else {"downsample": Downsample(dim)})))
        self.mid = Middle(dim, config.groups)
        self.norm_out = _norm(config.groups, dim)
        self.conv_out = nn.Conv2d(dim, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2 latent_channels, H/f, W/f)."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latents to image."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        dims = [config.channels * mult for mult in config.channel_mult]
        dims.append(dims[-1])
        dim = dims[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, dim, 3, padding=1)
        self.mid = Middle(dim, config.groups)
        levels: list[Level] = []
        for level in reversed(range(len(config.channel_mult))):
            dim_in, dim = dims[level + 1], dims[level]
            blocks = _res_blocks(config.res_blocks + 1, dim_in, dim, config.groups)
            levels.append(Level(blocks, **({"upsample": Upsample(dim)} if level else {})))
        self.up = nn.ModuleList(reversed(levels))  # the checkpoint counts from the finest
        self.norm_out = _norm(config.groups, dim)
        self.conv_out = nn.Conv2d(dim, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent_channels, h, w) -> (B, 3, h f, w f); values may leave [-1, 1]."""
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """Images in [-1, 1] to latents and back, without the scale factor."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.shortcut:
            side = config.downsampling
            self.encoder_shortcut = nn.Conv2d(3, 2 * channels, side, stride=side)
            self.decoder_shortcut = nn.ConvTranspose2d(channels, 3, side, stride=side)
        self.config = config
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    def encode(self, images: Tensor) -> DiagonalGaussian:
        """Images (B, 3, H, W) in [-1, 1] -> posterior of the latents (B, C, H/f, W/f)."""
        moments = self.encoder(images)
        if self.config.shortcut:
            moments = moments + self.encoder_shortcut(images)
        mean, log_variance = self.quant_conv(moments).chunk(2, dim=1)
        return DiagonalGaussian(mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> images (B, 3, h f, w f), about [-1, 1], not clamped."""
        latents = self.post_quant_conv(latents)
        images = self.decoder(latents)
        return images + self.decoder_shortcut(latents) if self.config.shortcut else images
