"""Configuration of the model, and the tensors that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from einops import repeat
from torch import Tensor

from common.config import check_positive
from ldm.networks.autoencoder import AutoencoderConfig
from ldm.networks.clip import CLIPConfig
from ldm.networks.unet import UNetConfig
from ldm.sampling.config import SamplerConfig, SamplerPresets
from ldm.schedule import ScheduleConfig, schedule_buffers
from multiview.cameras import CAMERA_DISTANCE, NUM_VIEWS, VIEWS_ELEVATION_DEG, orbit_cameras

VIEW_DIM = 4
"""Numbers that describe a viewpoint: see `viewpoint_embedding`."""


@dataclass(frozen=True)
class CameraConfig:
    """The ring of N target cameras; `distance` is from the object, in world units."""

    num_views: int = NUM_VIEWS
    image_size: int = 256
    elevation_deg: float = VIEWS_ELEVATION_DEG
    distance: float = CAMERA_DISTANCE

    def __post_init__(self) -> None:
        check_positive(self)


@dataclass(frozen=True)
class VolumeConfig:
    """Sizes of the volumes."""

    voxels: int = 32  # V, vertices a side
    half_side: float = 0.5  # of their cube, in world units
    view_channels: int = 16  # features a view gives to a vertex
    channels: tuple[int, ...] = (64, 128, 256, 512)  # finest level first; multiples of 8
    depth_planes: int = 48  # D, samples along a ray
    depth_range: float = 3**0.5 / 2  # of the planes before and behind the object's centre
    frustum_channels: tuple[int, ...] = (64, 128, 256, 512)  # likewise, of the frustum volumes
    time_dim: int = 256  # width of the time embedding
    input_view: bool = False  # build the spatial volume from the input view too; see `demo.model`

    def __post_init__(self) -> None:
        check_positive(self)
        for name in ("voxels", "depth_planes"):
            if (found := getattr(self, name)) % 8:
                raise ValueError(f"volume.{name} must be a multiple of 8, got {found}")
        for name in ("channels", "frustum_channels"):
            if len(getattr(self, name)) != 4:
                raise ValueError(f"volume.{name} must have 4 levels, got {getattr(self, name)}")


@dataclass(frozen=True)
class SyncDreamerConfig:
    """All sizes of the model; the defaults are the published ones.

    `prediction` is the UNet's output, `image_encoder` makes the image token; see `demo.model`.
    """

    cameras: CameraConfig = field(default_factory=CameraConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    clip: CLIPConfig = field(default_factory=CLIPConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    volume: VolumeConfig = field(default_factory=VolumeConfig)
    prediction: Literal["noise", "v"] = "noise"
    image_encoder: Literal["clip", "none"] = "clip"

    def __post_init__(self) -> None:
        levels, volume_levels = len(self.unet.channel_mult), len(self.volume.frustum_channels)
        if levels != volume_levels:
            raise ValueError(
                f"every level of the UNet reads a frustum volume: unet.channel_mult has {levels} "
                f"levels, volume.frustum_channels {volume_levels}"
            )
        step = self.autoencoder.downsampling * 2 ** (levels - 1)
        if self.cameras.image_size % step:
            found = f"(autoencoder times UNet downsampling), got {self.cameras.image_size}"
            raise ValueError(f"cameras.image_size must be a multiple of {step} {found}")
        channels = 2 * self.autoencoder.latent_channels
        if self.unet.in_channels != channels:
            expected = f"twice autoencoder.latent_channels ({channels})"
            raise ValueError(f"unet.in_channels must be {expected}, got {self.unet.in_channels}")

    @property
    def small_model_settings(self) -> list[str]:
        """Settings that only `demo.model.SmallSyncDreamer` has, as in a configuration file."""
        settings = {
            f"model.prediction={self.prediction}": self.prediction != "noise",
            f"model.image_encoder={self.image_encoder}": self.image_encoder != "clip",
            "model.volume.input_view=true": self.volume.input_view,
        }
        return [text for text, is_set in settings.items() if is_set]

    def check_published(self) -> None:
        """Raise ValueError where a setting is the small model's."""
        if self.small_model_settings:
            raise ValueError(
                f"{', '.join(self.small_model_settings)}: the published model, "
                f"ldm.model.SyncDreamer, has no such setting; use demo.model.SmallSyncDreamer"
            )

    @property
    def embed_dim(self) -> int:
        """Width of the image embedding."""
        return self.clip.embed_dim if self.image_encoder == "clip" else 0

    @property
    def latent_size(self) -> int:
        """Latent pixels a side."""
        return self.cameras.image_size // self.autoencoder.downsampling

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape of one sample's latents, (N, C, H, W)."""
        size = self.latent_size
        return self.cameras.num_views, self.autoencoder.latent_channels, size, size


def model_buffers(config: SyncDreamerConfig) -> dict[str, Tensor]:
    """Compute the ten tensors of a checkpoint that are not weights: schedule and cameras."""
    ring = config.cameras
    cameras = orbit_cameras(ring.num_views, ring.elevation_deg, ring.distance, ring.image_size)
    return {
        **schedule_buffers(config.schedule),
        "poses": torch.tensor(cameras.world_to_camera, dtype=torch.float32),
        "Ks": torch.tensor(cameras.intrinsics, dtype=torch.float32),
        "azimuth": torch.tensor(cameras.azimuths, dtype=torch.float32),
    }


def viewpoint_embedding(elevation: Tensor, target_elevation: float, azimuths: Tensor) -> Tensor:
    """Describe each target view relative to the input view, as Zero123 does.

    The elevations of the input views (B,), which look down where positive, that of the target views
    and their azimuths (N,) are in radians; the input view is at the first azimuth. The result is
    (elevation - target_elevation, sin, cos of the azimuth difference, 0), (B, N, 4).
    Compat: Zero123 counts elevation downwards, hence the sign of the first.
    """
    difference = azimuths - azimuths[0]
    rows = torch.stack([difference.sin(), difference.cos(), torch.zeros_like(difference)], dim=-1)
    offsets = repeat(elevation - target_elevation, "b -> b n 1", n=len(azimuths))
    return torch.cat([offsets, rows.expand(len(elevation), -1, -1)], dim=-1)


@dataclass(frozen=True)
class GenerateConfig:
    """Content of a configuration file of `generate.py`: sizes, and the samplers for them."""

    model: SyncDreamerConfig = field(default_factory=SyncDreamerConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    presets: SamplerPresets = field(default_factory=SamplerPresets)
