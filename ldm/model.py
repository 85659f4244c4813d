"""SyncDreamer: N views of one object, denoised together (arXiv 2309.03453).

One reverse process runs over the latents of all N target views. At each step

    1. all noisy views are read into one spatial volume          (ldm.spatial_volume)
    2. each view gets the volume resampled along its own rays    (ldm.spatial_volume)
    3. one UNet, told the input view, the viewpoint and those samples, predicts each view's noise
                                                                 (ldm.depth_attention)
    4. DDIM takes the step for all views                         (ldm.sampler)

This file is one class, which is why it is longer than most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ldm.config import (
    VIEW_DIM,
    SamplerConfig,
    SyncDreamerConfig,
    model_buffers,
    viewpoint_embedding,
)
from ldm.depth_attention import DepthUNet
from ldm.networks.autoencoder import Autoencoder, DiagonalGaussian
from ldm.networks.clip import CLIPImageEncoder, NoImageEncoder
from ldm.sampler import StepWatch, sample_ddim
from ldm.schedule import DDIMStep, ddim_steps, timestep_embedding
from ldm.spatial_volume import (
    InputView,
    SpatialVolumeNet,
    ViewGeometry,
    project_vertices,
    view_geometry,
)
from multiview.cameras import orbit_pose


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
        input_view: the same for the spatial volume, where it reads the input too.
    """

    context: Tensor
    viewpoints: Tensor
    latents: Tensor
    input_view: InputView | None = None


@dataclass(frozen=True)
class Precomputed:
    """What depends on the weights and the cameras only; computed once a model.

    Attributes:
        geometry: where the volumes are sampled.
        null_residuals: what the depth transformers add in the unconditional branch, (1, C, h, w)
            each, middle first.
    """

    geometry: ViewGeometry
    null_residuals: list[Tensor]


class SyncDreamer(nn.Module):
    """The whole model; attribute names are the published checkpoint's.

    The autoencoder is kept in float32 whatever the weights' type: it is 6 % of the parameters,
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
        with_clip = config.image_encoder == "clip"
        self.clip_image_encoder = CLIPImageEncoder(config.clip) if with_clip else NoImageEncoder()
        embed_dim = config.clip.embed_dim if with_clip else 0
        context_dim = config.unet.context_dim
        self.cc_projection = nn.Linear(embed_dim + VIEW_DIM, context_dim)
        nn.init.eye_(self.cc_projection.weight)
        nn.init.zeros_(self.cc_projection.bias)
        self.spatial_volume = SpatialVolumeNet(
            config.volume, config.cameras.num_views, VIEW_DIM, config.autoencoder.latent_channels
        )
        unet = DepthUNet(config.unet, config.volume.frustum_channels)
        self.model = nn.ModuleDict({"diffusion_model": unet})
        self._precomputed: Precomputed | None = None
        self.register_load_state_dict_post_hook(lambda model, _: model.forget_precomputed())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Forget what was computed for another device or type whenever the model is moved."""
        self.forget_precomputed()
        return super()._apply(fn, recurse)

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

        For inference: the unconditional branch's part has no gradients.
        """
        if self._precomputed is None:
            with torch.inference_mode(False), torch.no_grad():
                residuals = self.unet.null_residuals(self.config.latent_size)
                self._precomputed = Precomputed(self.view_geometry(), residuals)
        return self._precomputed

    def forget_precomputed(self) -> None:
        """Forget what `precompute` keeps; for after a change of the weights in place."""
        self._precomputed = None

    def view_geometry(self) -> ViewGeometry:
        """Work out where the volumes are sampled, from the cameras of the checkpoint.

        On the CPU, so that a GPU's settings for faster products do not move the samples.
        """
        config, device = self.config, self.Ks.device
        geometry = view_geometry(
            config.volume, self._latent_intrinsics(), self.poses.cpu(), config.latent_size
        )
        return ViewGeometry(
            geometry.vertices_in_views.to(device), geometry.rays_in_volume.to(device)
        )

    def _latent_intrinsics(self) -> Tensor:
        """Intrinsics for the latents' pixels, on the CPU, (N, 3, 3)."""
        to_latents = torch.tensor([1 / self.config.autoencoder.downsampling] * 2 + [1.0])
        return self.Ks.cpu() * to_latents[:, None]

    def input_view(self, latents: Tensor, elevation: Tensor) -> InputView | None:
        """Tell what the spatial volume reads of the input view; None where it does not.

        Args:
            latents: of the input views, (B, C, H, W).
            elevation: of the input views, radians, (B,); their azimuth is the first target's.
        """
        if not self.config.volume.input_view:
            return None
        azimuth, distance = float(self.azimuth[0]), self.config.cameras.distance
        poses = [orbit_pose(angle, azimuth, distance) for angle in elevation.tolist()]
        vertices = project_vertices(
            self.config.volume,
            self._latent_intrinsics()[:1],
            torch.tensor(np.stack(poses), dtype=torch.float32),
            self.config.latent_size,
        )
        target = math.radians(self.config.cameras.elevation_deg)
        viewpoint = viewpoint_embedding(elevation, target, self.azimuth[:1])[:, 0]
        return InputView(latents, viewpoint.to(self.unet.dtype), vertices.to(latents.device))

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

        Returns:
            for all N views, in the networks' type but for the latents, which stay float32.
        """
        target = math.radians(self.config.cameras.elevation_deg)
        viewpoints = viewpoint_embedding(elevation, target, self.azimuth).to(self.unet.dtype)
        embeddings = features.embedding.expand(-1, viewpoints.shape[1], -1)
        context = self.cc_projection(torch.cat([embeddings, viewpoints], dim=-1))
        latents = features.posterior.sample(noise)
        return Conditions(context, viewpoints, latents, self.input_view(latents, elevation))

    def noise_of(self, predicted: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noise that the UNet's prediction means (see `SyncDreamerConfig.prediction`).

        Args:
            predicted: the UNet's output, (B, ...).
            latents: noisy latents x_t, likewise.
            timesteps: (B,), or (1,) for all.
        """
        if self.config.prediction == "noise":
            return predicted
        alpha_bar = self.alphas_cumprod[timesteps].reshape(-1, *(1 for _ in latents.shape[1:]))
        return alpha_bar.sqrt() * predicted + (1 - alpha_bar).sqrt() * latents

    def predict_noise(
        self,
        latents: Tensor,
        timestep: int,
        conditions: Conditions,
        guidance_scale: float,
        views_at_once: int,
    ) -> Tensor:
        """Predict the noise in all N views with classifier-free guidance (paper Sec. 3.2).

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
        noisy = latents
        latents, input_latents = latents.to(dtype), conditions.latents.to(dtype)
        volume = self.spatial_volume.build(
            latents, time, conditions.viewpoints, geometry, conditions.input_view
        )
        predictions = []
        for start in range(0, latents.shape[1], views_at_once):
            views = slice(start, start + views_at_once)
            frustums = self.spatial_volume.view_frustums(
                volume, time, conditions.viewpoints[:, views], geometry.rays_in_volume[views]
            )
            predictions.append(
                self._predict_views(
                    latents[:, views],
                    timesteps,
                    conditions.context[:, views],
                    input_latents,
                    frustums,
                    guidance_scale,
                )
            )
        return self.noise_of(torch.cat(predictions, dim=1), noisy, timesteps)

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
        watch: StepWatch | None = None,
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
            watch: told after each step of the latents predicted so far, (N, C, H, W).

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

        steps = ddim_steps(self.alphas_cumprod, config.steps, config.eta, config.spacing)

        def noise() -> Tensor:
            return config.temperature * draw_noise(shape)

        told = None if watch is None else lambda number, x_0: watch(number, x_0[0])
        latents = sample_ddim(predict, noise(), progress(steps), noise, told)
        return latents[0]

    def decode(self, latents: Tensor, views_at_once: int = 8) -> Tensor:
        """Latents (N, C, H, W) -> images (N, 3, H f, W f), about [-1, 1], not clamped."""
        scale = 1.0 / self.config.autoencoder.scale
        return torch.cat(
            [self.first_stage_model.decode(scale * part) for part in latents.split(views_at_once)]
        )
