"""SyncDreamer: N views of one object, denoised together (arXiv 2309.03453).

One reverse process runs over the latents of all N target views. At each step

    1. all noisy views are lifted into one spatial volume           (ldm.spatial_volume)
    2. each view gets the volume resampled along its own rays       (ldm.spatial_volume)
    3. one UNet, conditioned on the input view, the viewpoint and those samples, predicts the
       noise of each view                                           (ldm.depth_attention)
    4. guidance combines the predictions, a solver takes the step   (ldm.sampling)

`SyncDreamer.forward` is 1 to 3; training runs the same parts on a few views (ldm.training.loss).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldm.config import VIEW_DIM, SyncDreamerConfig, model_buffers, viewpoint_embedding
from ldm.depth_attention import CONDITIONAL, Branch, DepthUNet, pack_branches
from ldm.networks.autoencoder import Autoencoder, DiagonalGaussian
from ldm.networks.clip import CLIPImageEncoder
from ldm.schedule import timestep_embedding
from ldm.spatial_volume import SpatialVolumeNet, ViewGeometry, scale_intrinsics, view_geometry


@dataclass(frozen=True)
class ImageFeatures:
    """Outputs of the frozen encoders for the input image; computed once an image."""

    embedding: Tensor  # CLIP's, (B, 1, embed_dim)
    posterior: DiagonalGaussian  # of the input view's latents, (B, C, H, W)


@dataclass(frozen=True)
class Conditioning:
    """Conditioning on the input view; the same in every denoising step."""

    context: Tensor  # image token of each target view, (B, N, context_dim)
    viewpoints: Tensor  # viewpoint embedding of each target view, (B, N, VIEW_DIM)
    input_latents: Tensor  # float32, (B, C, H, W)


@dataclass(frozen=True)
class SamplingCache:
    """What depends on the weights and the cameras only; computed once a sample."""

    geometry: ViewGeometry
    null_residuals: list[Tensor]  # see `DepthUNet.null_residuals`


class SyncDreamer(nn.Module):
    """The published model; attribute names are its checkpoint's.

    The autoencoder, latents, cameras and schedule are float32 whatever the weights' type.
    """

    alphas_cumprod: Tensor
    poses: Tensor
    Ks: Tensor
    azimuth: Tensor

    def __init__(self, config: SyncDreamerConfig) -> None:
        super().__init__()
        if type(self) is SyncDreamer:
            config.check_published()
        self.config = config
        for name, values in model_buffers(config).items():
            self.register_buffer(name, values)
        dim = config.volume.time_dim
        self.time_embed = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.first_stage_model = Autoencoder(config.autoencoder)
        self.clip_image_encoder = self.make_image_encoder(config)
        self.cc_projection = nn.Linear(config.embed_dim + VIEW_DIM, config.unet.context_dim)
        nn.init.eye_(self.cc_projection.weight)
        nn.init.zeros_(self.cc_projection.bias)
        self.spatial_volume = self.make_volume_net(config)
        unet = DepthUNet(config.unet, config.volume.frustum_channels)
        self.model = nn.ModuleDict({"diffusion_model": unet})

    @staticmethod
    def make_image_encoder(config: SyncDreamerConfig) -> nn.Module:
        """Build the encoder of the image token."""
        return CLIPImageEncoder(config.clip)

    @staticmethod
    def make_volume_net(config: SyncDreamerConfig) -> SpatialVolumeNet:
        """Build the networks of the volumes."""
        channels = config.autoencoder.latent_channels
        return SpatialVolumeNet(config.volume, config.cameras.num_views, VIEW_DIM, channels)

    @property
    def unet(self) -> DepthUNet:
        """The UNet; the checkpoint calls it `model.diffusion_model`."""
        return self.model["diffusion_model"]  # type: ignore[return-value]

    @property
    def is_bf16_on_cpu(self) -> bool:
        """Whether the order of products and of memory is the one that is fast for bf16 on a CPU.

        In float32 it gains little, and results stay the same to the last bit.
        """
        return self.unet.dtype == torch.bfloat16 and self.Ks.device.type == "cpu"

    def compile_networks(self, cuda_graphs: bool = False) -> None:
        """Compile the UNet and the networks of the volumes, once for each shape of their inputs.

        Results change by rounding only. With `cuda_graphs`, for sampling on CUDA in one thread, the
        kernels of a network are recorded and then launched together.
        """
        mode = "reduce-overhead" if cuda_graphs else "default"
        for network in (self.unet, *self.spatial_volume.children()):
            network.compile(dynamic=False, mode=mode)
        if cuda_graphs:  # the outputs of one evaluation may be overwritten in the next
            self.register_forward_pre_hook(lambda *_: torch.compiler.cudagraph_mark_step_begin())

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Run the frozen encoders on input images (B, 3, H, W) in [-1, 1]."""
        embedding = self.clip_image_encoder(images)
        return ImageFeatures(embedding, self.first_stage_model.encode(images.float()))

    def decode(self, latents: Tensor, views_at_once: int = 8) -> Tensor:
        """Latents (N, C, H, W) -> images (N, 3, 8 H, 8 W), about [-1, 1], not clamped."""
        parts = (1.0 / self.config.autoencoder.scale * latents).split(views_at_once)
        return torch.cat([self.first_stage_model.decode(part) for part in parts])

    def make_conditioning(
        self, features: ImageFeatures, elevation: Tensor, noise: Tensor
    ) -> Conditioning:
        """Prepare the conditioning; elevations in radians (B,), standard normal noise (B, C, H, W).

        Compat: the input view's latents are a sample of the posterior, not its mode, and go into
        the UNet without the scale factor that the noisy latents have.
        """
        target = math.radians(self.config.cameras.elevation_deg)
        viewpoints = viewpoint_embedding(elevation, target, self.azimuth).to(self.unet.dtype)
        embeddings = features.embedding.to(self.unet.dtype).expand(-1, viewpoints.shape[1], -1)
        context = self.cc_projection(torch.cat([embeddings, viewpoints], dim=-1))
        return Conditioning(context, viewpoints, features.posterior.sample(noise))

    def view_geometry(self) -> ViewGeometry:
        """Compute where feature maps and volumes are sampled, from the checkpoint's cameras.

        On the CPU, so that TF32 products of a GPU cannot shift the sample positions.
        """
        config = self.config
        intrinsics = scale_intrinsics(self.Ks.cpu(), 1 / config.autoencoder.downsampling)
        geometry = view_geometry(config.volume, intrinsics, self.poses.cpu(), config.latent_size)
        return geometry.to(self.Ks.device)

    def sampling_cache(self) -> SamplingCache:
        """Compute what all steps of all inputs share."""
        residuals = self.unet.null_residuals(self.config.latent_size)
        geometry = self.view_geometry()
        if self.is_bf16_on_cpu and torch.backends.mkl.is_available():
            geometry = geometry.with_interpolation(self.config.volume.voxels)
        return SamplingCache(geometry, residuals)

    def embed_time(self, timesteps: Tensor) -> Tensor:
        """Time embedding of the volume networks, (B,) -> (B, time_dim)."""
        sinusoids = timestep_embedding(timesteps, self.config.volume.time_dim)
        return self.time_embed(sinusoids.to(self.unet.dtype))

    def build_spatial_volume(
        self, noisy: Tensor, time: Tensor, conditioning: Conditioning, geometry: ViewGeometry
    ) -> Tensor:
        """Build the spatial volume of all noisy views; see `SpatialVolumeNet`."""
        views = conditioning.viewpoints
        return self.spatial_volume.build_spatial_volume(noisy, time, views, geometry)

    def forward(
        self,
        latents: Tensor,
        timestep: int,
        conditioning: Conditioning,
        cache: SamplingCache,
        branches: Sequence[Branch] = (CONDITIONAL,),
        views_at_once: int = 16,
    ) -> Tensor:
        """Evaluate the denoiser once on all N views (paper Fig. 2).

        Noisy latents x_t, float32, (B, N, C, H, W) -> prediction of each of K branches, float32,
        (K, B, N, C, H, W). Branches that keep the volume come first. `views_at_once` bounds the
        memory and changes the result by rounding only.
        """
        dtype, num_views = self.unet.dtype, latents.shape[1]
        noisy, input_latents = latents.to(dtype), conditioning.input_latents.to(dtype)
        timesteps = torch.tensor([timestep], device=latents.device)
        time = self.embed_time(timesteps).expand(len(latents), -1)
        volume = self.build_spatial_volume(noisy, time, conditioning, cache.geometry)
        predictions = []
        for start in range(0, num_views, views_at_once):
            views = slice(start, start + views_at_once)
            rays, viewpoints = cache.geometry.rays_in_volume[views], conditioning.viewpoints
            matrices = cache.geometry.interpolation
            frustums = self.spatial_volume.view_frustums(
                volume, time, viewpoints[:, views], rays, matrices and matrices[views]
            )
            x, tokens, frustums = pack_branches(
                branches, noisy[:, views], input_latents, conditioning.context[:, views], frustums
            )
            output = self.unet(x, timesteps, tokens, frustums, cache.null_residuals)
            predictions.append(output.float().unflatten(0, (len(branches), len(latents), -1)))
        return torch.cat(predictions, dim=2)

    def to_noise(self, prediction: Tensor, latents: Tensor, timestep: int) -> Tensor:  # noqa: ARG002
        """Convert a prediction to noise, which is what the published UNet predicts."""
        return prediction
