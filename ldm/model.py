"""SyncDreamer: N views of one object, denoised together (arXiv 2309.03453).

One reverse process runs over the latents of all N target views. At each step

    1. all noisy views are read into one spatial volume          (ldm.spatial_volume)
    2. each view gets the volume resampled along its own rays    (ldm.spatial_volume)
    3. one UNet, told the input view, the viewpoint and those samples, predicts each view's noise
                                                                 (ldm.depth_attention)
    4. DDIM takes the step for all views                         (ldm.sampler)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ldm.autoencoder import Autoencoder, AutoencoderConfig, DiagonalGaussian
from ldm.clip import CLIPConfig, CLIPImageEncoder
from ldm.depth_attention import DepthUNet
from ldm.sampler import SamplerConfig, sample_ddim
from ldm.schedule import (
    DDIMStep,
    ScheduleConfig,
    ddim_steps,
    schedule_buffers,
    timestep_embedding,
)
from ldm.spatial_volume import SpatialVolumeNet, ViewGeometry, VolumeConfig, view_geometry
from ldm.unet import UNetConfig
from multiview.cameras import orbit_cameras

VIEW_DIM = 4
"""Numbers that describe a viewpoint: see `viewpoint_embedding`."""


@dataclass(frozen=True)
class CameraConfig:
    """The ring of target cameras.

    Attributes:
        num_views: N.
        image_size: pixels a side of a view.
        elevation_deg: of all target views.
        distance: from the object, in world units.
    """

    num_views: int = 16
    image_size: int = 256
    elevation_deg: float = 30.0
    distance: float = 1.5


@dataclass(frozen=True)
class SyncDreamerConfig:
    """All sizes of the model; the defaults are the published ones."""

    cameras: CameraConfig = field(default_factory=CameraConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    clip: CLIPConfig = field(default_factory=CLIPConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    volume: VolumeConfig = field(default_factory=VolumeConfig)

    def __post_init__(self) -> None:
        levels, volume_levels = len(self.unet.channel_mult), len(self.volume.frustum_channels)
        if levels != volume_levels:
            raise ValueError(
                f"every level of the UNet reads a frustum volume: unet.channel_mult has {levels} "
                f"levels, volume.frustum_channels {volume_levels}"
            )
        step = self.autoencoder.downsampling * 2 ** (levels - 1)
        if self.cameras.image_size % step:
            raise ValueError(
                f"cameras.image_size must be a multiple of {step} (autoencoder times UNet "
                f"downsampling), got {self.cameras.image_size}"
            )
        channels = 2 * self.autoencoder.latent_channels
        if self.unet.in_channels != channels:
            raise ValueError(
                f"unet.in_channels must be twice autoencoder.latent_channels ({channels}), "
                f"got {self.unet.in_channels}"
            )

    @property
    def latent_size(self) -> int:
        """Latent pixels a side."""
        return self.cameras.image_size // self.autoencoder.downsampling

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape of one sample's latents, (N, C, H, W)."""
        size = self.latent_size
        return self.cameras.num_views, self.autoencoder.latent_channels, size, size


@dataclass(frozen=True)
class ImageFeatures:
    """What the frozen encoders make of the input image; computed once an image.

    Attributes:
        embedding: CLIP's, (B, 1, embed_dim).
        posterior: of the input view's latents, (B, C, H, W).
    """

    embedding: Tensor
    posterior: DiagonalGaussian


@dataclass(frozen=True)
class Conditions:
    """What the denoising of every step is told about the input.

    Attributes:
        context: image token of each target view, (B, N, context_dim).
        viewpoints: viewpoint embedding of each target view, (B, N, VIEW_DIM).
        latents: the input view's latents as the UNet sees them, (B, C, H, W).
    """

    context: Tensor
    viewpoints: Tensor
    latents: Tensor


@dataclass(frozen=True)
class Precomputed:
    """What depends on the weights and the cameras only; computed once a model.

    Attributes:
        geometry: where the volumes are sampled.
        null_residuals: what the depth transformers add in the unconditional branch.
    """

    geometry: ViewGeometry
    null_residuals: list[Tensor]


def viewpoint_embedding(elevation: Tensor, target_elevation: float, azimuths: Tensor) -> Tensor:
    """Describe each target view relative to the input view, as Zero123 does.

    Args:
        elevation: of the input view, radians, positive looks down, (B,).
        target_elevation: of the target views, radians.
        azimuths: of the target views, radians, (N,); the input view is at the first.

    Returns:
        (elevation - target_elevation, sin, cos of the azimuth difference, 0), (B, N, 4).
        Compat: Zero123 counts elevation downwards, hence the sign of the first.
    """
    difference = azimuths - azimuths[0]
    rows = torch.stack([difference.sin(), difference.cos(), torch.zeros_like(difference)], dim=-1)
    offsets = repeat(elevation - target_elevation, "b -> b n 1", n=len(azimuths))
    return torch.cat([offsets, rows.expand(len(elevation), -1, -1)], dim=-1)


def model_buffers(config: SyncDreamerConfig) -> dict[str, Tensor]:
    """Compute the ten tensors of a checkpoint that are not weights: schedule and cameras."""
    cameras = orbit_cameras(
        config.cameras.num_views,
        config.cameras.elevation_deg,
        config.cameras.distance,
        config.cameras.image_size,
    )
    return {
        **schedule_buffers(config.schedule),
        "poses": torch.tensor(cameras.world_to_camera, dtype=torch.float32),
        "Ks": torch.tensor(cameras.intrinsics, dtype=torch.float32),
        "azimuth": torch.tensor(cameras.azimuths, dtype=torch.float32),
    }


class SyncDreamer(nn.Module):
    """The whole model; attribute names are the published checkpoint's.

    The autoencoder computes in float32 whatever the weights' type: it is 6 % of the parameters,
    and eight bits of mantissa would show in the pictures. The latents, the cameras and the
    schedule are float32 too.
    """

    alphas_cumprod: Tensor
    poses: Tensor
    Ks: Tensor
    azimuth: Tensor

    def __init__(self, config: SyncDreamerConfig) -> None:
        super().__init__()
        self.config = config
        for name, values in model_buffers(config).items():
            self.register_buffer(name, values)
        time_dim = config.volume.time_dim
        self.time_embed = nn.Sequential(
            nn.Linear(time_dim, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim)
        )
        self.first_stage_model = Autoencoder(config.autoencoder)
        self.clip_image_encoder = CLIPImageEncoder(config.clip)
        embed_dim, context_dim = config.clip.embed_dim, config.unet.context_dim
        self.cc_projection = nn.Linear(embed_dim + VIEW_DIM, context_dim)
        nn.init.eye_(self.cc_projection.weight)
        nn.init.zeros_(self.cc_projection.bias)
        self.spatial_volume = SpatialVolumeNet(
            config.volume, config.cameras.num_views, VIEW_DIM, config.autoencoder.latent_channels
        )
        unet = DepthUNet(config.unet, config.volume.frustum_channels)
        self.model = nn.ModuleDict({"diffusion_model": unet})
        self._precomputed: Precomputed | None = None

    @property
    def unet(self) -> DepthUNet:
        """The noise predictor; the checkpoint calls it `model.diffusion_model`."""
        return self.model["diffusion_model"]  # type: ignore[return-value]

    @staticmethod
    def storage_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
        """Type in which the tensor `name` is kept by a model of type `dtype`."""
        half_precision = ("model.", "clip_image_encoder.", "spatial_volume.", "time_embed.", "cc_")
        return dtype if name.startswith(half_precision) else torch.float32

    def precompute(self) -> Precomputed:
        """Return what is the same in every step and for every input, computed at the first call.

        Call only when the weights are in place and will not change.
        """
        if self._precomputed is None:
            config = self.config
            to_latents = torch.tensor(
                [1 / config.autoencoder.downsampling] * 2 + [1.0], device=self.Ks.device
            )
            geometry = view_geometry(
                config.volume, self.Ks * to_latents[:, None], self.poses, config.latent_size
            )
            self._precomputed = Precomputed(geometry, self.unet.null_residuals(config.latent_size))
        return self._precomputed

    def forget_precomputed(self) -> None:
        """Forget what `precompute` keeps; needed when the weights or the cameras have changed."""
        self._precomputed = None

    def embed_time(self, timesteps: Tensor) -> Tensor:
        """Time embedding of the volume networks, (B,) -> (B, time_dim)."""
        sinusoids = timestep_embedding(timesteps, self.config.volume.time_dim)
        return self.time_embed(sinusoids.to(self.unet.dtype))

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Run the frozen encoders on input images (B, 3, H, W) in [-1, 1]."""
        return ImageFeatures(
            self.clip_image_encoder(images), self.first_stage_model.encode(images.float())
        )

    def condition(self, features: ImageFeatures, elevation: Tensor, noise: Tensor) -> Conditions:
        """Prepare what every denoising step is told.

        Compat: the input view's latents are a sample of the posterior, not its mode, and go
        into the UNet without the scale factor that the noisy latents have.

        Args:
            features: of B input images.
            elevation: of the input views, radians, (B,).
            noise: standard normal, the posterior draw, (B, C, H, W).
        """
        target = math.radians(self.config.cameras.elevation_deg)
        viewpoints = viewpoint_embedding(elevation, target, self.azimuth).to(self.unet.dtype)
        embeddings = features.embedding.expand(-1, viewpoints.shape[1], -1)
        context = self.cc_projection(torch.cat([embeddings, viewpoints], dim=-1))
        return Conditions(context, viewpoints, features.posterior.sample(noise))

    def predict_noise(
        self,
        latents: Tensor,
        timestep: int,
        conditions: Conditions,
        guidance_scale: float,
        views_at_once: int,
    ) -> Tensor:
        """Predict the noise in all N views with classifier-free guidance (paper, Eq. 5-6).

        Args:
            latents: noisy latents x_t of all views, float32, (B, N, C, H, W).
            timestep: t, the same for all views.
            conditions: of B inputs.
            guidance_scale: s in e_uncond + s (e_cond - e_uncond); 1 skips the second branch.
            views_at_once: bounds the memory; changes the result by rounding only.

        Returns:
            float32, (B, N, C, H, W).
        """
        dtype = self.unet.dtype
        timesteps = torch.tensor([timestep], device=latents.device)
        time = self.embed_time(timesteps).expand(len(latents), -1)
        geometry = self.precompute().geometry
        volume = self.spatial_volume.build(latents.to(dtype), time, conditions.viewpoints, geometry)
        predictions = []
        for start in range(0, latents.shape[1], views_at_once):
            views = slice(start, start + views_at_once)
            frustums = self.spatial_volume.view_frustums(
                volume, time, conditions.viewpoints[:, views], geometry.rays_in_volume[views]
            )
            predictions.append(
                self._predict_views(
                    latents[:, views].to(dtype),
                    timesteps,
                    conditions.context[:, views],
                    conditions.latents.to(dtype),
                    frustums,
                    guidance_scale,
                )
            )
        return torch.cat(predictions, dim=1)

    def _predict_views(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        input_latents: Tensor,
        frustums: list[Tensor],
        guidance_scale: float,
    ) -> Tensor:
        """Run the UNet on T views, (B, T, C, H, W) -> (B, T, C, H, W).

        The unconditional branch keeps the noisy latents and the time; its image token, input
        latents and frustum volumes are zeros.
        """
        batch, num_views = latents.shape[:2]
        x = rearrange(latents, "b t c h w -> (b t) c h w")
        seen = repeat(input_latents, "b c h w -> (b t) c h w", t=num_views)
        token = rearrange(context, "b t c -> (b t) 1 c")
        conditional = torch.cat([x, seen], dim=1)
        if guidance_scale == 1.0:
            noise = self.unet(conditional, timesteps, token, frustums).float()
        else:
            unconditional = torch.cat([x, torch.zeros_like(seen)], dim=1)
            both = self.unet(
                torch.cat([conditional, unconditional]),
                timesteps,
                torch.cat([token, torch.zeros_like(token)]),
                frustums,
                self.precompute().null_residuals,
            )
            with_image, without = both.float().chunk(2)
            noise = without + guidance_scale * (with_image - without)
        return rearrange(noise, "(b t) c h w -> b t c h w", b=batch)

    def sample(
        self,
        features: ImageFeatures,
        elevation: float,
        config: SamplerConfig,
        draw_noise: Callable[[tuple[int, ...]], Tensor],
        views_at_once: int = 8,
        progress: Callable[[list[DDIMStep]], Iterable[DDIMStep]] = iter,
    ) -> Tensor:
        """Draw one sample of the N views of an object.

        Args:
            features: of one input image, B = 1.
            elevation: of the input view, radians.
            config: steps, guidance, eta.
            draw_noise: shape -> standard normal on the model's device. Called for the posterior
                (1, C, H, W), then the initial latents and each step (1, N, C, H, W).
            views_at_once: bounds the memory.
            progress: wraps the steps, e.g. in a progress bar.

        Returns:
            latents of the views, float32, (N, C, H, W).
        """
        shape = (1, *self.config.latent_shape)
        elevations = torch.tensor([elevation], dtype=torch.float32, device=self.azimuth.device)
        conditions = self.condition(features, elevations, draw_noise((1, *shape[2:])))

        def predict(latents: Tensor, timestep: int) -> Tensor:
            return self.predict_noise(
                latents, timestep, conditions, config.guidance_scale, views_at_once
            )

        steps = ddim_steps(self.alphas_cumprod, config.steps, config.eta)
        latents = sample_ddim(
            predict, draw_noise(shape), progress(steps), lambda: draw_noise(shape)
        )
        return latents[0]

    def decode(self, latents: Tensor, views_at_once: int = 8) -> Tensor:
        """Latents (N, C, H, W) -> images (N, 3, H f, W f), about [-1, 1], not clamped."""
        scale = 1.0 / self.config.autoencoder.scale
        return torch.cat(
            [self.first_stage_model.decode(scale * part) for part in latents.split(views_at_once)]
        )
