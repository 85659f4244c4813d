"""3D-aware feature attention: the UNet attends along each pixel's ray (paper Sec. 3.3).

A view's frustum volume has, for every pixel of a feature map, D features along that pixel's ray, to
which the pixel attends. Only so does one view's denoising depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ldm.networks.unet import UNet, UNetConfig


class DepthAttention(nn.Module):
    """Attention of every pixel to the D samples on its own ray.

    The projections of keys and values are taken out of the sum over depth, so that no key or value
    volume is computed: q . (W_k f_d) = (W_k^T q) . f_d, sum_d w_d (W_v f_d) = W_v (sum_d w_d f_d).
    """

    def __init__(self, heads: int, head_dim: int, frustum_dim: int) -> None:
        super().__init__()
        dim = heads * head_dim
        self.heads = heads
        self.scale = head_dim**-0.5
        self.to_q = nn.Conv2d(dim, dim, 1, bias=False)
        self.to_k = nn.Conv3d(frustum_dim, dim, 1, bias=False)
        self.to_v = nn.Conv3d(frustum_dim, dim, 1, bias=False)
        self.to_out = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor, frustum: Tensor) -> Tensor:
        """Attend along depth, (B, n c, H, W) and (B, F, D, H, W) -> (B, n c, H, W)."""
        height = x.shape[2]
        key_weight = rearrange(self.to_k.weight, "(n c) f 1 1 1 -> (n f) c 1 1", n=self.heads)
        value_weight = rearrange(self.to_v.weight, "o f 1 1 1 -> o f 1 1")

        # All heads read the same unprojected features: one attention, a query for each head.
        q = F.conv2d(self.to_q(x), key_weight, groups=self.heads)
        q = rearrange(q, "b (n f) h w -> b (h w) n f", n=self.heads)
        rays = rearrange(frustum, "b f d h w -> b (h w) d f")
        if x.device.type == "cpu" and x.dtype == torch.bfloat16:  # SDPA copies all rays three times
            attended = (self.scale * q @ rays.transpose(2, 3)).softmax(-1) @ rays
        else:
            attended = F.scaled_dot_product_attention(q, rays, rays, scale=self.scale)

        attended = rearrange(attended, "b (h w) n f -> b (n f) h w", h=height)
        return self.to_out(F.conv2d(attended, value_weight, groups=self.heads))


class DepthTransformer(nn.Module):
    """Depth attention between projections, in a residual branch."""

    def __init__(self, dim: int, frustum_dim: int, heads: int = 4) -> None:
        super().__init__()
        head_dim = frustum_dim // 2
        inner = heads * head_dim
        self.proj_in = nn.Sequential(nn.Conv2d(dim, inner, 1), nn.GroupNorm(8, inner), nn.SiLU())
        context = nn.Conv3d(frustum_dim, frustum_dim, 1, bias=False)
        self.proj_context = nn.Sequential(context, nn.GroupNorm(8, frustum_dim), nn.ReLU())
        self.depth_attn = DepthAttention(heads, head_dim, frustum_dim)
        last = nn.Conv2d(inner, dim, 3, padding=1, bias=False)
        nn.init.zeros_(last.weight)  # training starts from the UNet as it was
        self.proj_out = nn.Sequential(
            nn.GroupNorm(8, inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.GroupNorm(8, inner),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor, frustum: Tensor) -> Tensor:
        """(B, C, H, W) and (B, F, D, H, W) -> (B, C, H, W)."""
        attended = self.depth_attn(self.proj_in(x), self.proj_context(frustum))
        return x + self.proj_out(attended)

    def null_residual(self, height: int, width: int) -> Tensor:
        """What the layer adds to any features if its volume is zero, (1, C, height, width)."""
        weight = self.depth_attn.to_v.weight
        zeros = weight.new_zeros(1, weight.shape[1], 1, height, width)
        value = self.depth_attn.to_v(self.proj_context(zeros))[:, :, 0]  # (1, inner, h, w)
        return self.proj_out(self.depth_attn.to_out(value))


@dataclass(frozen=True)
class Branch:
    """The conditions that one branch of guidance keeps; the UNet gets zeros for the others."""

    image: bool  # the image token and the input view's latents
    volume: bool  # the frustum volumes
    latents_scale: float = 1.0  # factor of the input view's latents


CONDITIONAL = Branch(image=True, volume=True)
UNCONDITIONAL = Branch(image=False, volume=False)
NO_INPUT = Branch(image=False, volume=True)
NO_VOLUME = Branch(image=True, volume=False, latents_scale=4.0)
"""Without the volumes, as HarmonyView's published code evaluates it; its paper has no factor."""


def pack_branches(
    branches: Sequence[Branch],
    noisy: Tensor,
    input_latents: Tensor,
    context: Tensor,
    frustums: Sequence[Tensor],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Pack K branches of guidance of B x T views into one batch of the UNet, branch by branch.

    Branches that keep the volume come first, K' of K. Noisy latents x_t (B, T, C, H, W), the input
    views' (B, C, H, W), image tokens (B, T, context_dim), frustum volumes (B T, F, D, H, W) each ->
    latents (K B T, 2 C, H, W), tokens (K B T, 1, context_dim), volumes (K' B T, F, D, H, W) each.
    """
    num_with_volume = sum(branch.volume for branch in branches)
    if not all(branch.volume for branch in branches[:num_with_volume]):
        raise ValueError(f"branches that keep the volume must come first, got {branches}")
    x = noisy.flatten(0, 1)
    image = repeat(input_latents, "b c h w -> (b t) c h w", t=noisy.shape[1])
    token = rearrange(context, "b t c -> (b t) 1 c")
    none, no_token = torch.zeros_like(image), torch.zeros_like(token)
    of_input = [b.latents_scale * image if b.image else none for b in branches]
    return (
        torch.cat([torch.cat([x, latents], dim=1) for latents in of_input]),
        torch.cat([token if b.image else no_token for b in branches]),
        [f.expand(num_with_volume, *f.shape).flatten(0, 1) for f in frustums],
    )


class DepthUNet(UNet):
    """UNet with depth transformers after the middle block and outputs above the lowest level."""

    def __init__(self, config: UNetConfig, frustum_channels: Sequence[int]) -> None:
        """Build the network; `frustum_channels` is per level, finest first."""
        super().__init__(config)
        dims = [config.channels * mult for mult in config.channel_mult]
        lowest = len(dims) - 1
        self.middle_conditions = DepthTransformer(dims[lowest], frustum_channels[lowest])
        self.output_conditions = nn.ModuleList()
        self.output_levels: list[int] = []  # level of the frustum volume that each reads
        for level in reversed(range(lowest)):
            for i in range(config.res_blocks + 1):
                # An output block may end in an upsampling: its result is one level finer.
                finer = level - 1 if level > 0 and i == config.res_blocks else level
                self.output_levels.append(finer)
                transformer = DepthTransformer(dims[level], frustum_channels[finer])
                self.output_conditions.append(transformer)

    def null_residuals(self, size: int) -> list[Tensor]:
        """Residuals of all depth transformers for zero frustum volumes, (1, C, h, w) each.

        Middle, then outputs, at the layers' resolutions for latents of `size` pixels a side.
        """
        lowest = len(self.config.channel_mult) - 1
        layers = [self.middle_conditions, *self.output_conditions]
        sizes = [size >> level for level in (lowest, *self.output_levels)]
        return [layer.null_residual(s, s) for layer, s in zip(layers, sizes, strict=True)]

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        frustums: Sequence[Tensor],
        null_residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Predict the noise (the small model: v) of B views, (B, out_channels, H, W).

        Of noisy and input-view latents (B, in_channels, H, W), timesteps (B,) or (1,), image tokens
        (B, 1, context_dim) and volumes, finest first, (B', F, D, H, W) each (see `_attend`).
        `null_residuals` are needed with B' < B.
        """
        time = self.embed_time(timesteps)
        skips = self.encode(x, time, context)
        num_layers = 1 + len(self.output_conditions)
        residuals = iter([None] * num_layers if null_residuals is None else null_residuals)
        h = self.middle_block(skips[-1], time, context)
        h = self._attend(self.middle_conditions, h, frustums[-1], next(residuals))

        lowest_blocks = len(self.output_blocks) - len(self.output_conditions)
        for i, block in enumerate(self.output_blocks):
            h = block(torch.cat([h, skips.pop()], dim=1), time, context)
            if i >= lowest_blocks:
                layer = self.output_conditions[i - lowest_blocks]
                frustum = frustums[self.output_levels[i - lowest_blocks]]
                h = self._attend(layer, h, frustum, next(residuals))
        return self.out(h)

    @staticmethod
    def _attend(
        layer: nn.Module, h: Tensor, frustum: Tensor, null_residual: Tensor | None
    ) -> Tensor:
        """Apply a depth transformer to features (B, C, H, W) of which the first B' have volumes.

        To the others, whose volumes would be all zeros, it adds `null_residual`, (1, C, H, W).
        """
        num_with_volume = len(frustum)
        if num_with_volume == len(h):
            return layer(h, frustum)
        assert null_residual is not None, "views without a volume need null_residuals"
        unconditional = h[num_with_volume:] + null_residual
        if num_with_volume == 0:
            return unconditional
        return torch.cat([layer(h[:num_with_volume], frustum), unconditional])
