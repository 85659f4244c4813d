"""The convolutional networks of the spatial volume: a 2D view encoder and two 3D UNets.

Names are the checkpoint's; several normalisations are called `bn` there but are GroupNorms.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8


class Conv3d(nn.Conv3d):
    """Convolution of 3 x 3 x 3, in float32 on a CPU where the volume is smaller than the kernel.

    There oneDNN's weight gradient in bf16 reads uninitialised memory (PyTorch 2.14).
    """

    def __init__(self, dim_in: int, dim_out: int, stride: int = 1) -> None:
        super().__init__(dim_in, dim_out, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C', D / stride, H / stride, W / stride)."""
        if x.device.type != "cpu" or min(x.shape[2:]) >= self.kernel_size[0]:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class UpConv3d(nn.ConvTranspose3d):
    """Transposed convolution to twice the size; on Apple's GPUs, which lack it, in two steps."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, D, H, W) -> (B, C', 2D, 2H, 2W)."""
        return self.in_two_steps(x) if x.device.type == "mps" else super().forward(x)

    def in_two_steps(self, x: Tensor) -> Tensor:
        """Put zeros between the samples, then convolve with the mirrored kernel: the same."""
        batch, channels, *size = x.shape
        spread = x.new_zeros(batch, channels, *(2 * side for side in size))
        spread[:, :, ::2, ::2, ::2] = x
        kernel = self.weight.flip(2, 3, 4).transpose(0, 1)
        return F.conv3d(spread, kernel, self.bias, padding=1)


def _norm_silu_conv(dim: int) -> tuple[nn.Module, ...]:
    return nn.GroupNorm(GROUPS, dim), nn.SiLU(), nn.Conv2d(dim, dim, 3, padding=1)


class ViewEncoderBlock(nn.Module):
    """Residual block conditioned on timestep and viewpoint."""

    def __init__(self, time_dim: int, view_dim: int, dim: int) -> None:
        super().__init__()
        self.time_embed = nn.Conv2d(time_dim, dim, 1)
        self.view_embed = nn.Conv2d(view_dim, dim, 1)
        self.conv = nn.Sequential(*_norm_silu_conv(dim), *_norm_silu_conv(dim))

    def forward(self, x: Tensor, time: Tensor, view: Tensor) -> Tensor:
        """(B, C, H, W), (B, time_dim, 1, 1), (B, view_dim, 1, 1) -> (B, C, H, W)."""
        return x + self.conv(x + self.time_embed(time) + self.view_embed(view))


class ViewEncoder(nn.Module):
    """2D network from a noisy view's latents to its features, at the same resolution."""

    def __init__(self, time_dim: int, view_dim: int, latent_channels: int, dim: int) -> None:
        super().__init__()
        self.init_conv = nn.Conv2d(latent_channels, dim, 3, padding=1)
        self.out_conv0 = ViewEncoderBlock(time_dim, view_dim, dim)
        self.out_conv1 = ViewEncoderBlock(time_dim, view_dim, dim)
        self.out_conv2 = ViewEncoderBlock(time_dim, view_dim, dim)
        self.final_out = nn.Sequential(*_norm_silu_conv(dim))

    def forward(self, latents: Tensor, time: Tensor, view: Tensor) -> Tensor:
        """(B, latent_channels, H, W), (B, time_dim), (B, view_dim) -> (B, C, H, W)."""
        time, view = time[:, :, None, None], view[:, :, None, None]
        x = self.init_conv(latents)
        for block in (self.out_conv0, self.out_conv1, self.out_conv2):
            x = block(x, time, view)
        return self.final_out(x)


class VolumeBlock(nn.Module):
    """Add the time (and view), normalise, activate, convolve; `up` doubles the resolution."""

    def __init__(
        self, dim_in: int, dim_out: int, time_dim: int, view_dim: int | None = None,
        stride: int = 1, up: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.t_conv = nn.Conv3d(time_dim, dim_in, 1)
        if view_dim is not None:
            self.v_conv = nn.Conv3d(view_dim, dim_in, 1)
        # The checkpoint calls the same norm `norm` in the blocks that upsample, `bn` in all others.
        norm = nn.GroupNorm(GROUPS, dim_in)
        if up:
            self.norm = norm
            self.conv: nn.Module = UpConv3d(dim_in, dim_out, 3, 2, padding=1, output_padding=1)
        else:
            self.bn = norm
            self.conv = Conv3d(dim_in, dim_out, stride)
        self.up = up

    def forward(self, x: Tensor, time: Tensor, view: Tensor | None = None) -> Tensor:
        """(B, C, D, H, W), (B, time_dim, 1, 1, 1), (B, view_dim, 1, 1, 1) -> (B, C', ...)."""
        x = x + self.t_conv(time)
        if view is not None:
            x = x + self.v_conv(view)
        return self.conv(F.silu(self.norm(x) if self.up else self.bn(x)))


class SpatialVolumeUNet(nn.Module):
    """3D UNet from the features of all views at each vertex to the spatial volume (Sec. 3.3)."""

    def __init__(self, dim_in: int, channels: Sequence[int], time_dim: int) -> None:
        super().__init__()
        d0, d1, d2, d3 = channels
        self.init_conv = Conv3d(dim_in, d0)
        self.conv0 = VolumeBlock(d0, d0, time_dim)
        self.conv1 = VolumeBlock(d0, d1, time_dim, stride=2)
        self.conv2_0 = VolumeBlock(d1, d1, time_dim)
        self.conv2_1 = VolumeBlock(d1, d1, time_dim)
        self.conv3 = VolumeBlock(d1, d2, time_dim, stride=2)
        self.conv4_0 = VolumeBlock(d2, d2, time_dim)
        self.conv4_1 = VolumeBlock(d2, d2, time_dim)
        self.conv5 = VolumeBlock(d2, d3, time_dim, stride=2)
        self.conv6_0 = VolumeBlock(d3, d3, time_dim)
        self.conv6_1 = VolumeBlock(d3, d3, time_dim)
        self.conv7 = VolumeBlock(d3, d2, time_dim, up=True)
        self.conv8 = VolumeBlock(d2, d1, time_dim, up=True)
        self.conv9 = VolumeBlock(d1, d0, time_dim, up=True)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, dim_in, V, V, V) and (B, time_dim) -> (B, channels[0], V, V, V)."""
        time = time[:, :, None, None, None]
        x0 = self.conv0(self.init_conv(x), time)
        x1 = self.conv2_1(self.conv2_0(self.conv1(x0, time), time), time)
        x2 = self.conv4_1(self.conv4_0(self.conv3(x1, time), time), time)
        x3 = self.conv6_1(self.conv6_0(self.conv5(x2, time), time), time)
        x2 = x2 + self.conv7(x3, time)
        x1 = x1 + self.conv8(x2, time)
        return x0 + self.conv9(x1, time)


class FrustumVolumeUNet(nn.Module):
    """3D UNet from a view's samples of the spatial volume to its frustum volumes at all levels."""

    def __init__(self, dim_in: int, channels: Sequence[int], time_dim: int, view_dim: int) -> None:
        super().__init__()
        d0, d1, d2, d3 = channels
        self.conv0 = Conv3d(dim_in, d0)  # Compat: plain, without norm, time or view
        self.conv1 = VolumeBlock(d0, d1, time_dim, view_dim, stride=2)
        self.conv2 = VolumeBlock(d1, d1, time_dim, view_dim)
        self.conv3 = VolumeBlock(d1, d2, time_dim, view_dim, stride=2)
        self.conv4 = VolumeBlock(d2, d2, time_dim, view_dim)
        self.conv5 = VolumeBlock(d2, d3, time_dim, view_dim, stride=2)
        self.conv6 = VolumeBlock(d3, d3, time_dim, view_dim)
        self.up0 = VolumeBlock(d3, d2, time_dim, view_dim, up=True)
        self.up1 = VolumeBlock(d2, d1, time_dim, view_dim, up=True)
        self.up2 = VolumeBlock(d1, d0, time_dim, view_dim, up=True)

    def forward(self, x: Tensor, time: Tensor, view: Tensor) -> list[Tensor]:
        """Compute the frustum volumes of B views.

        (B, dim_in, D, H, W), (B, time_dim), (B, view_dim) -> finest first,
        (B, channels[i], D / 2^i, H / 2^i, W / 2^i).
        """
        time, view = time[:, :, None, None, None], view[:, :, None, None, None]
        x0 = self.conv0(x)
        x1 = self.conv2(self.conv1(x0, time, view), time, view)
        x2 = self.conv4(self.conv3(x1, time, view), time, view)
        x3 = self.conv6(self.conv5(x2, time, view), time, view)
        x2 = x2 + self.up0(x3, time, view)
        x1 = x1 + self.up1(x2, time, view)
        x0 = x0 + self.up2(x1, time, view)
        return [x0, x1, x2, x3]
