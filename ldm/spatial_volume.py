"""From the noisy views to one spatial volume, and from it to each view's frustum volume.

This is what ties the views together at every denoising step (paper Sec. 3.3):

    x_t of N views -> features of each view -> the features that every vertex projects to,
    side by side -> 3D UNet -> spatial volume -> samples along a view's rays -> 3D UNet ->
    frustum volumes of that view, one for each level of the image UNet
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ldm.config import VolumeConfig
from ldm.networks.volume_nets import FrustumVolumeUNet, SpatialVolumeUNet, ViewEncoder
from multiview.projection import project, unproject


@dataclass(frozen=True)
class ViewGeometry:
    """Where feature maps and volumes are sampled; depends on the cameras only.

    Coordinates are normalised to [-1, 1] for `grid_sample`; the volume's axes are (z, y, x).
    """

    vertices_in_views: Tensor  # each vertex in each view's feature map, (N, V, V, V, 2)
    rays_in_volume: Tensor  # each frustum sample in the volume, (N, D, H, W, 3)
    interpolation: list[Tensor] | None = None  # of each view, see `interpolation_matrix`

    def to(self, device: torch.device) -> ViewGeometry:
        """Copy to a device."""
        return ViewGeometry(self.vertices_in_views.to(device), self.rays_in_volume.to(device))

    def with_interpolation(self, voxels: int) -> ViewGeometry:
        """Add the matrices of `interpolation_matrix` for a volume of so many voxels a side."""
        matrices = [interpolation_matrix(rays, voxels) for rays in self.rays_in_volume]
        return replace(self, interpolation=matrices)


def scale_intrinsics(intrinsics: Tensor, factor: float) -> Tensor:
    """Scale intrinsics (N, 3, 3) to another image size. Compat: without a half-pixel shift."""
    return intrinsics * torch.tensor([factor, factor, 1.0])[:, None]


def project_vertices(
    config: VolumeConfig, intrinsics: Tensor, world_to_camera: Tensor, latent_size: int
) -> Tensor:
    """Compute `ViewGeometry.vertices_in_views`; arguments as in `view_geometry`."""
    device = intrinsics.device
    axis = torch.linspace(-config.half_side, config.half_side, config.voxels, device=device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    vertices = torch.stack([x, y, z], dim=-1).reshape(1, -1, 3)
    pixels, _ = project(vertices, intrinsics, world_to_camera)
    side = config.voxels
    return (pixels / ((latent_size - 1) / 2) - 1).reshape(-1, side, side, side, 2)


def view_geometry(
    config: VolumeConfig, intrinsics: Tensor, world_to_camera: Tensor, latent_size: int
) -> ViewGeometry:
    """Project the vertices into the views, and the views' rays into the volume.

    Compat: coordinates are normalised so that the first and last pixel centres are -1 and 1.
    The intrinsics (N, 3, 3) are for feature maps of `latent_size` pixels a side; the poses
    `world_to_camera` are (N, 3, 4).
    """
    device = intrinsics.device
    vertices_in_views = project_vertices(config, intrinsics, world_to_camera, latent_size)

    distance = world_to_camera[:, 2, 3]  # the cameras look at the origin
    planes = torch.linspace(0, 1, config.depth_planes, device=device)
    near, far = distance - config.depth_range, distance + config.depth_range
    depths = planes * (far - near)[:, None] + near[:, None]  # (N, D)
    rows = torch.arange(latent_size, dtype=torch.float32, device=device)
    v, u = torch.meshgrid(rows, rows, indexing="ij")
    image = repeat(torch.stack([u, v], dim=-1), "h w c -> n (d h w) c", n=1, d=len(planes))
    depth = repeat(depths, "n d -> n (d h w)", h=latent_size, w=latent_size)
    points = unproject(image.expand(len(depth), -1, -1), depth, intrinsics, world_to_camera)
    rays_in_volume = (points / config.half_side).reshape(
        -1, config.depth_planes, latent_size, latent_size, 3
    )
    return ViewGeometry(vertices_in_views, rays_in_volume)


def interpolation_matrix(rays: Tensor, voxels: int) -> Tensor:
    """Return the trilinear weights of a volume's voxels in the samples of one view.

    (D, H, W, 3) in [-1, 1] -> sparse float32 (CSR), (D H W, voxels^3), eight weights a row; a voxel
    outside the volume has the weight 0.
    """
    position = (rays.reshape(-1, 1, 3) + 1) / 2 * (voxels - 1)  # x y z
    corners = torch.cartesian_prod(*3 * [torch.arange(2)]).flip(1)  # (8, 3), x fastest
    index = position.floor().clamp(0, voxels - 2).long() + corners  # (D H W, 8, 3)
    weights = (1 - (position - index).abs()).clamp_min(0).prod(dim=-1)
    x, y, z = index.unbind(-1)
    columns = (z * voxels + y) * voxels + x
    starts = 8 * torch.arange(len(position) + 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts.int(),
            columns.flatten().int(),
            weights.flatten(),
            (len(position), voxels**3),
            check_invariants=True,
        )


def sample_views(features: Tensor, vertices: Tensor) -> Tensor:
    """Sample feature maps where the vertices project to, see `ViewGeometry`.

    (B, C, H, W) and (B, V, V, V, 2) -> (B, C, V, V, V).
    """
    side = vertices.shape[1]
    grid = rearrange(vertices, "b z y x c -> b (z y) x c")
    sampled = F.grid_sample(features.float(), grid, align_corners=True)  # coordinates: float32
    return rearrange(sampled, "b c (z y) x -> b c z y x", z=side).to(features.dtype)


class SpatialVolumeNet(nn.Module):
    """The networks of both volumes."""

    def __init__(
        self, config: VolumeConfig, num_views: int, view_dim: int, latent_channels: int
    ) -> None:
        super().__init__()
        time_dim, per_view = config.time_dim, config.view_channels
        self.target_encoder = ViewEncoder(time_dim, view_dim, latent_channels, per_view)
        lifted = num_views * per_view
        self.spatial_volume_feats = SpatialVolumeUNet(lifted, config.channels, time_dim)
        self.frustum_volume_feats = FrustumVolumeUNet(
            config.channels[0], config.frustum_channels, time_dim, view_dim
        )

    def lift_views_to_volume(
        self, latents: Tensor, time: Tensor, views: Tensor, geometry: ViewGeometry
    ) -> Tensor:
        """Give every vertex the features at its projections into all noisy views.

        (B, N, C, H, W), (B, time_dim), (B, N, view_dim) -> (B, N view_channels, V, V, V), view by
        view; zero where a vertex is out of a view.
        """
        batch, num_views = latents.shape[:2]
        features = self.target_encoder(
            latents.flatten(0, 1), time.repeat_interleave(num_views, 0), views.flatten(0, 1)
        )
        grid = repeat(geometry.vertices_in_views, "n z y x c -> (b n) z y x c", b=batch)
        return rearrange(
            sample_views(features, grid), "(b n) c z y x -> b (n c) z y x", n=num_views
        )

    def build_spatial_volume(
        self, latents: Tensor, time: Tensor, views: Tensor, geometry: ViewGeometry
    ) -> Tensor:
        """Build the spatial volume (B, F, V, V, V), see `lift_views_to_volume`."""
        lifted = self.lift_views_to_volume(latents, time, views, geometry)
        return self.spatial_volume_feats(lifted, time)

    def sample_along_rays(
        self, volume: Tensor, rays: Tensor, interpolation: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Sample the volume along the rays of T views; zero outside it.

        (B, F, V, V, V) and (T, D, H, W, 3), or (B, T, D, H, W, 3) where the objects have different
        views, -> (B T, F, D, H, W). With the T matrices of `interpolation_matrix` the samples are
        their products with the volume: ten times as fast on a CPU, and in channels_last order.
        """
        if interpolation is not None:
            tables = rearrange(volume.float(), "b f z y x -> b (z y x) f")
            samples = torch.stack([matrix @ t for t in tables for matrix in interpolation])
            depth, height = rays.shape[-4:-2]
            samples = rearrange(samples, "b (d h w) f -> b f d h w", d=depth, h=height)
            return samples.to(volume.dtype)
        if rays.ndim == 5:
            rays = rays.expand(len(volume), *rays.shape)
        volumes = volume[:, None].expand(-1, rays.shape[1], -1, -1, -1, -1).flatten(0, 1)
        grid = rays.flatten(0, 1)
        return F.grid_sample(volumes.float(), grid, align_corners=True).to(volume.dtype)

    def view_frustums(
        self,
        volume: Tensor,
        time: Tensor,
        views: Tensor,
        rays: Tensor,
        interpolation: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Resample the volume for T of the views, which have `rays`, see `sample_along_rays`.

        (B, F, V, V, V), (B, time_dim), (B, T, view_dim), (T, D, H, W, 3) -> finest first,
        (B T, F_i, D / 2^i, H / 2^i, W / 2^i).
        """
        return self.frustum_volume_feats(
            self.sample_along_rays(volume, rays, interpolation),
            time.repeat_interleave(views.shape[1], 0),
            views.flatten(0, 1),
        )
