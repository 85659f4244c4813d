"""The bundled small model: how it differs from the published one.

It is trained from scratch on simple objects, so it lacks what the published model starts from:
CLIP, and a UNet that has seen many objects. Each difference is a setting of its own:

    model.prediction=v             the UNet predicts v, in which no noise level weighs much more
                                   than another (Salimans and Ho 2022, Sec. 4 and appendix D)
    model.image_encoder=none       the image token holds the viewpoint only
    model.volume.input_view=true   the spatial volume is built from the input view too
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ldm.config import VIEW_DIM, SyncDreamerConfig, VolumeConfig, viewpoint_embedding
from ldm.model import Conditioning, ImageFeatures, SyncDreamer
from ldm.networks.volume_nets import FrustumVolumeUNet, SpatialVolumeUNet, ViewEncoder
from ldm.spatial_volume import (
    SpatialVolumeNet,
    ViewGeometry,
    project_vertices,
    sample_views,
    scale_intrinsics,
)
from multiview.cameras import orbit_pose


@dataclass(frozen=True)
class InputView:
    """The input views as the spatial volume reads them."""

    latents: Tensor  # clean, (B, C, H, W)
    viewpoint: Tensor  # viewpoint embeddings of the input's own cameras, (B, view_dim)
    vertices: Tensor  # each vertex in the input's feature map, see `ViewGeometry`, (B, V, V, V, 2)


@dataclass(frozen=True)
class SmallConditioning(Conditioning):
    """Conditioning of the small model."""

    input_view: InputView | None = None  # None: the volume is built from the noisy views only


class NoImageEncoder(nn.Module):
    """Stands in for CLIP: an embedding of no numbers."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> (B, 1, 0)."""
        return images.new_zeros(len(images), 1, 0)


class InputViewVolumeNet(SpatialVolumeNet):
    """Builds the spatial volume from the noisy views and the clean input view."""

    def __init__(
        self, config: VolumeConfig, num_views: int, view_dim: int, latent_channels: int
    ) -> None:
        nn.Module.__init__(self)  # the initial values follow from the order of the layers
        time_dim, per_view = config.time_dim, config.view_channels
        self.target_encoder = ViewEncoder(time_dim, view_dim, latent_channels, per_view)
        self.input_encoder = ViewEncoder(time_dim, view_dim, latent_channels, per_view)
        lifted = (num_views + 1) * per_view
        self.spatial_volume_feats = SpatialVolumeUNet(lifted, config.channels, time_dim)
        self.frustum_volume_feats = FrustumVolumeUNet(
            config.channels[0], config.frustum_channels, time_dim, view_dim
        )

    def build_spatial_volume(
        self,
        latents: Tensor,
        time: Tensor,
        views: Tensor,
        geometry: ViewGeometry,
        input_view: InputView | None = None,
    ) -> Tensor:
        """Build the volume as `SpatialVolumeNet`; the input view's features come last."""
        assert input_view is not None
        lifted = self.lift_views_to_volume(latents, time, views, geometry)
        latents = input_view.latents.to(lifted.dtype)
        features = self.input_encoder(latents, time, input_view.viewpoint)
        lifted = torch.cat([lifted, sample_views(features, input_view.vertices)], dim=1)
        return self.spatial_volume_feats(lifted, time)


def v_to_noise(v: Tensor, latents: Tensor, alpha_bar: Tensor) -> Tensor:
    """Noise that a predicted v means: sqrt(a) v + sqrt(1 - a) x_t, a = alpha_bar_t."""
    return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * latents


class SmallSyncDreamer(SyncDreamer):
    """SyncDreamer with the settings that the published model lacks."""

    @staticmethod
    def make_image_encoder(config: SyncDreamerConfig) -> nn.Module:
        """Build the encoder of the image token."""
        if config.image_encoder == "none":
            return NoImageEncoder()
        return SyncDreamer.make_image_encoder(config)

    @staticmethod
    def make_volume_net(config: SyncDreamerConfig) -> SpatialVolumeNet:
        """Build the networks of the volumes."""
        if not config.volume.input_view:
            return SyncDreamer.make_volume_net(config)
        channels = config.autoencoder.latent_channels
        return InputViewVolumeNet(config.volume, config.cameras.num_views, VIEW_DIM, channels)

    def make_conditioning(
        self, features: ImageFeatures, elevation: Tensor, noise: Tensor
    ) -> SmallConditioning:
        """Prepare the conditioning of every denoising step, see `SyncDreamer`."""
        conditioning = super().make_conditioning(features, elevation, noise)
        read = self.config.volume.input_view
        view = self.input_view(conditioning.input_latents, elevation) if read else None
        return SmallConditioning(**vars(conditioning), input_view=view)

    def input_view(self, latents: Tensor, elevation: Tensor) -> InputView:
        """Find where the vertices are in input views of B elevations, in radians.

        Their azimuth is the first target's; the latents are (B, C, H, W).
        """
        config = self.config
        azimuth, distance = float(self.azimuth[0]), config.cameras.distance
        poses = [orbit_pose(angle, azimuth, distance) for angle in elevation.tolist()]
        vertices = project_vertices(
            config.volume,
            scale_intrinsics(self.Ks.cpu(), 1 / config.autoencoder.downsampling)[:1],
            torch.tensor(np.stack(poses), dtype=torch.float32),
            config.latent_size,
        )
        target = math.radians(config.cameras.elevation_deg)
        viewpoint = viewpoint_embedding(elevation, target, self.azimuth[:1])[:, 0]
        return InputView(latents, viewpoint.to(self.unet.dtype), vertices.to(latents.device))

    def build_spatial_volume(
        self, noisy: Tensor, time: Tensor, conditioning: Conditioning, geometry: ViewGeometry
    ) -> Tensor:
        """Build the spatial volume of all noisy views, and of the input view where it is read."""
        if not self.config.volume.input_view:
            return super().build_spatial_volume(noisy, time, conditioning, geometry)
        assert isinstance(conditioning, SmallConditioning)
        assert isinstance(self.spatial_volume, InputViewVolumeNet)
        return self.spatial_volume.build_spatial_volume(
            noisy, time, conditioning.viewpoints, geometry, conditioning.input_view
        )

    def to_noise(self, prediction: Tensor, latents: Tensor, timestep: int) -> Tensor:
        """Convert a prediction of the noise or of v to noise."""
        if self.config.prediction == "noise":
            return prediction
        return v_to_noise(prediction, latents, self.alphas_cumprod[timestep])


def choose_model_class(config: SyncDreamerConfig) -> type[SyncDreamer]:
    """Return the class of model that a configuration needs."""
    return SmallSyncDreamer if config.small_model_settings else SyncDreamer
