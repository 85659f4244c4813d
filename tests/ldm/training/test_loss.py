"""One training step and its random numbers: against the published ones, and its properties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm.checkpoint.load import empty_model
from ldm.config import SyncDreamerConfig
from ldm.model import ImageFeatures, SyncDreamer
from ldm.networks.autoencoder import DiagonalGaussian
from ldm.sampling.sampler import noise_predictor
from ldm.training.config import StepConfig
from ldm.training.loss import EncodedBatch, diffusion_loss, encode_batch, q_sample, select_views
from ldm.training.optimizer import (
    OptimizerConfig,
    lr_multiplier,
    trainable_parameter_groups,
    warmup_multiplier,
)
from ldm.training.random_draws import TrainingNoise, condition_dropout, sample_training_noise
from tests.conftest import SHARED, needs_shared, relative_error, seeded_model
from tests.ldm.training.training_tree import random_batch
from tests.reference.seeded_weights import seeded_image, seeded_noise

GOLDENS = SHARED / "goldens" / "training.npz"


def golden(name: str) -> np.ndarray:
    return np.load(GOLDENS)[name]


def noise(label: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(seeded_noise(label, shape))


def images(*labels: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([seeded_image(label, 256) for label in labels]))


@needs_shared
def test_the_warm_up_is_the_published_one():
    config = OptimizerConfig()
    found = [warmup_multiplier(int(step), config) for step in golden("lr_steps")]
    np.testing.assert_allclose(found, golden("lr_multiplier"), atol=1e-12)


def test_the_rates_rise_along_a_line_and_fall_at_the_end_where_that_is_asked_for():
    config = OptimizerConfig(decay_steps=50)
    found = [lr_multiplier(step, config, 1000) for step in (0, 50, 100, 949, 950, 975, 999, 1000)]
    assert found == pytest.approx([0.02, 0.51, 1, 1, 1, 0.5, 0.02, 0])
    assert lr_multiplier(999, OptimizerConfig(), 1000) == 1.0
    assert warmup_multiplier(0, OptimizerConfig(warmup_steps=0)) == 1.0


def test_the_groups_and_their_rates_are_the_published_ones():
    model = empty_model(SyncDreamerConfig())
    attention, volumes = trainable_parameter_groups(model, OptimizerConfig())
    assert (len(attention["params"]), attention["lr"]) == (170, 5e-5)
    assert (len(volumes["params"]), volumes["lr"]) == (200, 5e-4)
    values = sum(p.numel() for group in (attention, volumes) for p in group["params"])
    assert round(values / 1e6, 1) == 106.0
    everything = OptimizerConfig(finetune_unet=True, finetune_projection=True)
    names = [group["name"] for group in trainable_parameter_groups(model, everything)]
    assert names == ["depth attention", "volumes", "unet", "projection"]
    unused = [n for n, p in model.unet.named_parameters() if not p.requires_grad]
    assert {name.split("transformer_blocks.0.")[1] for name in unused} == {
        "attn2.to_q.weight", "attn2.to_k.weight", "norm2.weight", "norm2.bias",
    }  # fmt: skip


@pytest.mark.integration
@needs_shared
def test_the_input_of_the_unet_is_the_published_one(model64: SyncDreamer):
    posterior = model64.first_stage_model.encode(images("train-input-0", "train-input-1"))
    drawn = posterior.sample(noise("train-posterior-input", (2, 4, 32, 32)))
    assert relative_error(drawn * 0.18215, golden("x_input_latent")) < 1e-4
    views = torch.from_numpy(golden("target_index"))
    expected = select_views(noise("train-noise", (2, 16, 4, 32, 32)), views)[:, 0]
    assert relative_error(expected, golden("noise_target")) < 1e-6
    clip = torch.from_numpy(golden("clip_embed"))
    features = ImageFeatures(clip, posterior)
    elevations = torch.from_numpy(golden("input_elevation_rad"))[:, 0]
    conditioning = model64.make_conditioning(features, elevations, torch.zeros(2, 4, 32, 32))
    found = select_views(conditioning.context, views)
    assert relative_error(found, golden("unet_context")) < 1e-4
    # the posterior's sample goes in without the scale
    assert relative_error(drawn, golden("unet_input")[:, 4:]) < 1e-4


@needs_shared
@pytest.mark.slow
def test_the_loss_and_all_gradients_are_the_published_ones(model64: SyncDreamer):
    model = seeded_model(model64.config)
    trainable_parameter_groups(model, OptimizerConfig())
    with torch.no_grad():
        posteriors = [
            model.first_stage_model.encode(images(*(f"train-target-{b}-{n}" for n in range(16))))
            for b in range(2)
        ]
        features = model.encode_image(images("train-input-0", "train-input-1"))
    mean, std = (torch.stack([getattr(p, part) for p in posteriors]) for part in ("mean", "std"))
    encoded = EncodedBatch(DiagonalGaussian(mean, std), features)
    shape = (2, 4, 32, 32)
    targets = [noise(f"train-posterior-target-{n}", shape) for n in range(16)]
    draws = TrainingNoise(
        timesteps=torch.from_numpy(golden("time_steps")),
        target_views=torch.from_numpy(golden("target_index")),
        epsilon=noise("train-noise", (2, 16, 4, 32, 32)),
        target_posterior=torch.stack(targets, dim=1),
        input_posterior=noise("train-posterior-input", shape),
        dropout=torch.ones(2),
        pure=torch.zeros(2, dtype=torch.bool),
    )
    latents = encoded.targets.sample(draws.target_posterior) * 0.18215
    assert relative_error(latents[:, [0, 5, 10, 15]], golden("x_target_latents")) < 1e-4
    elevations = torch.from_numpy(golden("input_elevation_rad"))[:, 0]
    losses = diffusion_loss(model, encoded, elevations, draws, model.view_geometry())
    np.testing.assert_allclose(losses[:, 0].detach().numpy(), golden("per_sample_loss"), rtol=1e-4)
    assert losses.mean().item() == pytest.approx(float(golden("loss")), rel=1e-4)
    losses.mean().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.double().norm().item() for name, p in trained.items()}
    assert set(gradients) == set(golden("grad_names").tolist())
    found = np.array([gradients[name] for name in golden("grad_names")])
    # sums of many terms of both signs in float32, so a tensor by itself is less sharp than all
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(golden("grad_l2")), rel=3e-4)
    np.testing.assert_allclose(found, golden("grad_l2"), rtol=3e-3, atol=1e-7)
    first = model.time_embed[0].weight.grad[::16, ::16]
    assert relative_error(first, golden("grad_time_embed_0_weight_stride16")) < 1e-3


def losses_of(model, encoded, elevations, draws, drop_conditions=False):
    geometry = model.view_geometry()
    return diffusion_loss(model, encoded, elevations, draws, geometry, drop_conditions)


@pytest.fixture(scope="module")
def prepared(small_model: SyncDreamer):
    batch = random_batch(small_model.config, 2)
    encoded = encode_batch(small_model, batch)
    draws = sample_training_noise(0, range(2), small_model.config.latent_shape, 1000, StepConfig(3))
    return small_model, encoded, batch.input_elevations, draws


def test_several_target_views_are_what_each_would_be_alone(prepared):
    model, encoded, elevations, draws = prepared
    with torch.no_grad():
        together = losses_of(model, encoded, elevations, draws)
        for view in range(3):
            alone = replace(draws, target_views=draws.target_views[:, view : view + 1])
            found = losses_of(model, encoded, elevations, alone)
            torch.testing.assert_close(together[:, view : view + 1], found, rtol=1e-4, atol=1e-5)


def test_the_loss_agrees_with_the_sampler_s_prediction(prepared):
    """The sampler predicts all views of one object at a common time; the step some of each."""
    model, encoded, elevations, draws = prepared
    with torch.no_grad():
        losses = losses_of(model, encoded, elevations, draws)
        latents = encoded.targets.sample(draws.target_posterior) * model.config.autoencoder.scale
        noisy = q_sample(model, latents, draws.epsilon, draws.timesteps)
        conditioning = model.make_conditioning(encoded.input, elevations, draws.input_posterior)
        for b in range(2):
            parts = (conditioning.context, conditioning.viewpoints, conditioning.input_latents)
            own = type(conditioning)(*(part[b : b + 1] for part in parts))
            predict_noise = noise_predictor(model, own, 1.0, 16)
            every = predict_noise(noisy[b : b + 1], int(draws.timesteps[b]))
            errors = (every[0] - draws.epsilon[b]).square().flatten(1).mean(dim=1)
            expected = errors[draws.target_views[b]]
            torch.testing.assert_close(losses[b], expected, rtol=1e-4, atol=1e-5)


def test_what_is_dropped_has_no_influence(prepared):
    model, encoded, elevations, draws = prepared
    posterior = encoded.input.posterior
    posterior = replace(posterior, mean=posterior.mean + 1.0)
    other = ImageFeatures(encoded.input.embedding + 1.0, posterior)
    changed = EncodedBatch(encoded.targets, other)
    with torch.no_grad():
        for number, same in ((0.03, True), (0.9, False)):
            numbers = replace(draws, dropout=torch.full((2,), number))
            one, two = (losses_of(model, e, elevations, numbers, True) for e in (encoded, changed))
            assert torch.equal(one, two) == same


@pytest.mark.parametrize("everything", [False, True])
def test_every_trained_parameter_gets_a_gradient_and_no_frozen_one_does(small_config, everything):
    model = seeded_model(small_config)
    config = OptimizerConfig(finetune_unet=everything, finetune_projection=everything)
    groups = trainable_parameter_groups(model, config)
    batch = random_batch(small_config, 1)
    draws = sample_training_noise(0, range(1), small_config.latent_shape, 1000, StepConfig(1))
    losses_of(model, encode_batch(model, batch), batch.input_elevations, draws).mean().backward()
    trained = {id(p) for group in groups for p in group["params"]}
    assert len(trained) == sum(len(group["params"]) for group in groups)
    for name, parameter in model.named_parameters():
        has_gradient = parameter.grad is not None and bool(parameter.grad.any())
        assert has_gradient == parameter.requires_grad == (id(parameter) in trained), name
        frozen = name.startswith(("first_stage_model.", "clip_image_encoder."))
        assert not (frozen and has_gradient), name


@needs_shared
def test_conditions_are_dropped_as_published():
    masks = condition_dropout(torch.from_numpy(golden("drop_random")))
    clip, volume, concat, everything = golden("drop_clip_volume_concat_all")
    np.testing.assert_array_equal(masks.clip.numpy(), clip | everything)
    np.testing.assert_array_equal(masks.volume.numpy(), volume | everything)
    np.testing.assert_array_equal(masks.concat.numpy(), concat | everything)


def test_each_way_to_drop_conditions_takes_a_twentieth_of_the_samples():
    drop = (torch.arange(20_000, dtype=torch.float32) + 0.5) / 20_000
    masks = condition_dropout(drop)
    for mask in (masks.clip, masks.volume, masks.concat):
        assert mask.float().mean().item() == pytest.approx(0.1)
    assert (masks.clip & masks.volume & masks.concat).float().mean().item() == pytest.approx(0.05)
    kept = ~(masks.clip | masks.volume | masks.concat)
    assert kept.float().mean().item() == pytest.approx(0.8)


def test_draws_follow_from_the_number_of_the_sample_alone():
    shape = (16, 4, 8, 8)
    together = sample_training_noise(3, range(10, 14), shape, 1000, StepConfig(2))
    numbers = [range(n, n + 1) for n in range(10, 14)]
    apart = [sample_training_noise(3, number, shape, 1000, StepConfig(2)) for number in numbers]
    for name, value in vars(together).items():
        assert torch.equal(value, torch.cat([getattr(draw, name) for draw in apart]))
    other = sample_training_noise(4, range(10, 14), shape, 1000, StepConfig(2))
    assert not torch.equal(together.epsilon, other.epsilon)


def test_draws_are_spread_as_they_should_be():
    draws = sample_training_noise(0, range(4000), (16, 1, 1, 1), 1000, StepConfig(3))
    assert draws.timesteps.min() >= 0
    assert draws.timesteps.max() <= 999
    assert draws.timesteps.float().mean().item() == pytest.approx(499.5, abs=20)
    assert all(len(set(views)) == 3 for views in draws.target_views.tolist())
    counts = torch.bincount(draws.target_views.flatten(), minlength=16)
    assert counts.float().std() / counts.float().mean() < 0.06
    assert draws.epsilon.std().item() == pytest.approx(1.0, abs=0.02)
    assert draws.dropout.mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_density_of_the_time_steps_is_a_power_of_them(power: float):
    config = StepConfig(timestep_power=power)
    t = sample_training_noise(0, range(4000), (16, 1, 1, 1), 1000, config).timesteps.double()
    assert 0 <= t.min() <= t.max() <= 999
    for part in (0.25, 0.5, 0.75):
        share = (t < 1000 * part).double().mean().item()
        assert share == pytest.approx(part ** (1 + power), abs=0.03)


def test_a_share_of_the_samples_is_pure_noise_of_any_temperature():
    shape = (16, 4, 4, 4)
    draws = sample_training_noise(0, range(2000), shape, 1000, StepConfig(pure_noise=0.4))
    assert draws.pure.double().mean().item() == pytest.approx(0.4, abs=0.03)
    assert (draws.timesteps[draws.pure] == 999).all()
    assert draws.timesteps[~draws.pure].double().mean().item() == pytest.approx(499.5, abs=30)
    size = draws.epsilon.flatten(1).std(dim=1)
    assert (size[~draws.pure] - 1).abs().max() < 0.1
    for part in (0.25, 0.5, 0.75):
        share = (size[draws.pure] < part).double().mean().item()
        assert share == pytest.approx(part, abs=0.06)
    assert not sample_training_noise(0, range(50), shape, 1000, StepConfig()).pure.any()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"pure_noise": -0.1}, "pure_noise must be from 0 to 1, got -0.1"),
        ({"pure_noise": 1.1}, "pure_noise must be from 0 to 1, got 1.1"),
        ({"timestep_power": -1.0}, "timestep_power must not be below 0, got -1"),
    ],
)
def test_impossible_shares_and_densities_are_refused(setting: dict, message: str):
    with pytest.raises(ValueError, match=message):
        StepConfig(**setting)
