"""What the small model has and the published one lacks: v-prediction, the input in the volume."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from common.config import load_config
from demo.loss import v_prediction_loss, v_target
from demo.model import SmallSyncDreamer, choose_model_class, v_to_noise
from ldm.checkpoint.initialise import init_model
from ldm.config import GenerateConfig, SamplerConfig, SyncDreamerConfig
from ldm.model import ImageFeatures, SyncDreamer
from ldm.networks.autoencoder import DiagonalGaussian
from ldm.sampling.sampler import sample
from ldm.training.config import StepConfig, TrainConfig
from ldm.training.loss import EncodedBatch, q_sample, select_views
from ldm.training.random_draws import sample_training_noise
from tests.conftest import ROOT, cast, relative_error, seeded_model


@pytest.fixture(scope="module")
def config() -> SyncDreamerConfig:
    sizes = ["model.volume.voxels=8", "model.volume.depth_planes=8"]
    return load_config(GenerateConfig, ROOT / "configs" / "demo.yaml", sizes).model


@pytest.fixture(scope="module")
def model(config: SyncDreamerConfig) -> SmallSyncDreamer:
    model = seeded_model(config)
    assert isinstance(model, SmallSyncDreamer)
    return model


def features(model: SyncDreamer, batch: int = 1) -> ImageFeatures:
    latents = torch.randn(batch, *model.config.latent_shape[1:])
    return ImageFeatures(torch.zeros(batch, 1, 0), DiagonalGaussian(latents, 0 * latents))


def test_without_clip_there_are_no_weights_of_it_and_the_token_is_the_viewpoint(model):
    assert not any(name.startswith("clip") for name in model.state_dict())
    assert model.cc_projection.in_features == 4
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    assert model.encode_image(image).embedding.shape == (2, 1, 0)


def test_velocity_and_noise_say_the_same(model):
    """With a = alpha_bar: x_t = sqrt(a) x_0 + sqrt(1 - a) e, v = sqrt(a) e - sqrt(1 - a) x_0."""
    clean, noise = torch.randn(3, *model.config.latent_shape), torch.randn(3, 16, 4, 16, 16)
    timesteps = torch.tensor([0, 500, 999])
    noisy = q_sample(model, clean, noise, timesteps)
    v = v_target(model, clean, noise, timesteps)
    for n, t in enumerate(timesteps.tolist()):
        found = model.to_noise(v[n], noisy[n], t)
        torch.testing.assert_close(found, noise[n], atol=1e-5, rtol=1e-4)
    a = model.alphas_cumprod[500]
    torch.testing.assert_close(v[1], a.sqrt() * noise[1] - (1 - a).sqrt() * clean[1])


def test_a_network_that_knows_the_velocity_leads_to_the_clean_latents(model, monkeypatch):
    clean = torch.randn(1, *model.config.latent_shape)

    def know(latents, timestep, *_: object) -> torch.Tensor:
        a = model.alphas_cumprod[timestep]
        noise = (latents - a.sqrt() * clean) / (1 - a).sqrt()
        return (a.sqrt() * noise - (1 - a).sqrt() * clean)[None]

    monkeypatch.setattr(model, "forward", know)
    sampler = SamplerConfig(steps=10, guidance_scale=1.0, eta=0.0)
    made = sample(model, features(model), 0.3, sampler, torch.randn)
    torch.testing.assert_close(made, clean[0], atol=0.16, rtol=0)  # noise of 0.03 stays


def test_the_temperature_is_that_of_all_noise_but_the_encoders(model, monkeypatch):
    seen = []

    def watch(latents, *_: object) -> torch.Tensor:
        seen.append(latents.clone())
        return torch.zeros_like(latents)[None]

    monkeypatch.setattr(model, "forward", watch)
    monkeypatch.setattr(model, "to_noise", lambda prediction, *_: prediction)

    def run(temperature: float, eta: float) -> list[torch.Tensor]:
        seen.clear()
        torch.manual_seed(0)
        sampler = SamplerConfig(3, 1.0, eta, temperature)
        made = sample(model, features(model), 0.3, sampler, torch.randn)
        return [*seen, made]

    whole, half, none = (run(temperature, 1.0) for temperature in (1.0, 0.5, 0.0))
    for full, part in zip(whole, half, strict=True):  # what adds nothing to noise is linear in it
        torch.testing.assert_close(part, full[: len(part)] / 2)
    assert not any(each.any() for each in none)
    assert whole[0].std().item() == pytest.approx(1.0, abs=0.05)


def test_impossible_temperatures_and_pure_noise_without_velocities_are_refused():
    for temperature in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="temperature must be from 0 to 1"):
            SamplerConfig(temperature=temperature)
    with pytest.raises(ValueError, match=r"pure_noise is 0\.5"):
        TrainConfig(step=StepConfig(pure_noise=0.5))


def test_the_loss_compares_velocities(model, config):
    """The losses are those of the noise, a network's answer understood as either, over a."""
    targets = DiagonalGaussian(torch.randn(2, 16, 4, 16, 16), torch.zeros(1))
    encoded = EncodedBatch(targets, features(model, 2))
    draws = sample_training_noise(0, range(2), config.latent_shape, 1000, StepConfig(2))
    arguments = encoded, torch.tensor([0.1, 0.5]), draws, model.view_geometry()
    with torch.no_grad():
        losses = v_prediction_loss(model, *arguments)
        answers = []
        unet = model.unet.forward
        model.unet.forward = lambda *a: answers.append(unet(*a)) or answers[0]
        v_prediction_loss(model, *arguments)
        del model.unet.forward
    latents = encoded.targets.mean
    noisy = q_sample(model, latents, draws.epsilon, draws.timesteps)
    chosen = torch.arange(2)[:, None], draws.target_views
    a = model.alphas_cumprod[draws.timesteps][:, None]
    answer = answers[0].reshape(2, 2, 4, 16, 16)
    noise = v_to_noise(answer, noisy[chosen], a[:, :, None, None, None])
    expected = (noise - draws.epsilon[chosen]).square().mean(dim=(2, 3, 4)) / a
    torch.testing.assert_close(losses, expected, atol=1e-4, rtol=1e-3)


def test_pure_noise_has_no_trace_of_the_object(model, config, monkeypatch):
    step = StepConfig(2, pure_noise=1.0)
    draws = sample_training_noise(0, range(3), config.latent_shape, 1000, step)
    seen = []

    def watch(model, noisy, draws, *_: object) -> torch.Tensor:
        seen.append(noisy)
        return torch.zeros(3, 2, 4, 16, 16)

    monkeypatch.setattr("demo.loss.predict_target_views", watch)
    latents = torch.randn(3, 16, 4, 16, 16)
    encoded = EncodedBatch(DiagonalGaussian(latents, torch.zeros(1)), features(model, 3))
    losses = v_prediction_loss(model, encoded, torch.zeros(3), draws, model.view_geometry())
    torch.testing.assert_close(seen[0], draws.epsilon)
    # What is to be predicted is the v_target of the sampler's first step, all but -x_0.
    expected = select_views(latents, draws.target_views).square().mean(dim=(2, 3, 4))
    torch.testing.assert_close(losses, expected, rtol=0.05, atol=0)


def test_the_input_view_is_read_from_its_own_camera(model, config):
    latents = torch.randn(2, 4, 16, 16)
    seen = model.input_view(latents, torch.tensor([math.radians(30), 0.0]))
    targets = model.view_geometry().vertices_in_views
    torch.testing.assert_close(seen.vertices[0], targets[0], atol=1e-5, rtol=1e-4)
    assert (seen.vertices[1] - targets[0]).abs().max() > 0.1
    # From the side the middle of the cube is in the middle, and what is above it is above.
    top, bottom = seen.vertices[1, -1, 3, 3], seen.vertices[1, 0, 3, 3]
    assert top[1] < -0.5 < 0.5 < bottom[1]
    expected = torch.tensor([[0, 0, 1, 0], [-math.radians(30), 0, 1, 0]])
    torch.testing.assert_close(seen.viewpoint, expected)


def test_the_volume_knows_the_input(model, config):
    time, geometry = torch.randn(1, config.volume.time_dim), model.view_geometry()
    noisy, viewpoints = torch.randn(1, *config.latent_shape), torch.randn(1, 16, 4)
    latents = torch.randn(1, 4, 16, 16)

    def volume(latents: torch.Tensor, degrees: float) -> torch.Tensor:
        seen = model.input_view(latents, torch.tensor([math.radians(degrees)]))
        return model.spatial_volume.build_spatial_volume(noisy, time, viewpoints, geometry, seen)

    first = volume(latents, 10)
    torch.testing.assert_close(volume(latents, 10), first)
    assert (volume(latents, 35) - first).abs().max() > 1e-3
    assert (volume(torch.randn(1, 4, 16, 16), 10) - first).abs().max() > 1e-3
    plain = dataclasses.replace(config.volume, input_view=False)
    without = seeded_model(dataclasses.replace(config, volume=plain))
    assert not any("input_encoder" in name for name in without.state_dict())


def test_a_fresh_unet_begins_by_predicting_nothing(config):
    """Its residual branches end in zeros, so that it learns from a plain start."""
    model = init_model(config, 0, SmallSyncDreamer)
    sizes = [(f, 8 >> i, 16 >> i, 16 >> i) for i, f in enumerate((16, 32, 64, 64))]
    token, frustums = torch.randn(2, 1, 64), [torch.randn(2, *size) for size in sizes]
    with torch.no_grad():
        predicted = model.unet(torch.randn(2, 8, 16, 16), torch.tensor([3, 700]), token, frustums)
    assert predicted.abs().max() == 0


@pytest.mark.integration
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_samples_nearly_the_same(model, dtype: torch.dtype):
    """The empty embedding of the absent CLIP must not bring float32 into the image token."""
    low = cast(model, dtype)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    sampler = SamplerConfig(steps=2, guidance_scale=2.0, eta=0.0)

    def run(model: SyncDreamer) -> torch.Tensor:
        torch.manual_seed(1)
        with torch.inference_mode():
            return sample(model, model.encode_image(image), 0.3, sampler, torch.randn)

    exact, rough = run(model), run(low)
    assert rough.dtype == torch.float32
    assert relative_error(rough, exact.numpy()) < 0.05


def test_the_class_follows_from_the_configuration(config):
    assert choose_model_class(config) is SmallSyncDreamer
    assert choose_model_class(SyncDreamerConfig()) is SyncDreamer
    volume = dataclasses.replace(config.volume, input_view=False)
    part = dataclasses.replace(config, prediction="noise", volume=volume)
    assert choose_model_class(part) is SmallSyncDreamer
    with pytest.raises(ValueError, match="image_encoder=none"):
        SyncDreamer(part)
