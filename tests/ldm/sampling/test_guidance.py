"""HarmonyView's guidance beside plain calls of the UNet and its own numbers; guidance intervals."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from ldm.model import Conditioning, ImageFeatures, SyncDreamer
from ldm.sampling.config import GuidanceConfig, SamplerConfig
from ldm.sampling.sampler import noise_predictor, sample
from ldm.sampling.solvers import ddim_update
from ldm.schedule import ddim_steps
from tests.conftest import Goldens, relative_error
from tests.reference.seeded_weights import seeded_image, seeded_noise

HARMONY = GuidanceConfig(kind="harmony", input_scale=2.0, volume_scale=1.0)
LATENTS = (1, 16, 4, 32, 32)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def conditioning_of(model: SyncDreamer, batch: int = 1) -> Conditioning:
    size, channels = model.config.cameras.image_size, model.config.autoencoder.latent_channels
    features = model.encode_image(torch.rand(batch, 3, size, size) * 2 - 1)
    noise = torch.randn(batch, channels, model.config.latent_size, model.config.latent_size)
    return model.make_conditioning(features, torch.full((batch,), 0.3), noise)


def plain_branch(
    model: SyncDreamer, x_t: torch.Tensor, t: int, given: Conditioning, keep: tuple, scale: float
) -> torch.Tensor:
    """One branch of one sample by a call of the UNet for each view, all inputs whole or zero."""
    image, volume = keep
    timestep = torch.tensor([t])
    net, geometry = model.spatial_volume, model.view_geometry()
    time = model.embed_time(timestep)
    grid = net.build_spatial_volume(x_t, time, given.viewpoints, geometry)
    views = []
    for n in range(x_t.shape[1]):
        frustums = net.view_frustums(
            grid, time, given.viewpoints[:, [n]], geometry.rays_in_volume[[n]]
        )
        x = torch.cat([x_t[:, n], image * scale * given.input_latents], dim=1)
        token = image * given.context[:, [n]]
        views.append(model.unet(x, timestep, token, [volume * f for f in frustums]))
    return torch.stack(views, dim=1)


@pytest.mark.integration
def test_the_formula_is_that_of_three_plain_calls(small_model: SyncDreamer):
    conditioning = conditioning_of(small_model)
    x_t = torch.randn(1, *small_model.config.latent_shape)
    branch = partial(plain_branch, small_model, x_t, 300, conditioning)
    full, no_input, no_volume = branch((1, 1), 1.0), branch((0, 1), 1.0), branch((1, 0), 4.0)
    for s1, s2 in ((2.0, 1.0), (1.0, 0.5), (0.0, 1.0), (3.0, 0.0), (0.0, 0.0)):
        expected = full + s1 * (full - no_input) + s2 * (full - no_volume)
        config = GuidanceConfig(kind="harmony", input_scale=s1, volume_scale=s2)
        found = noise_predictor(small_model, conditioning, 2.0, 16, config)(x_t, 300)
        assert relative_error(found, expected.numpy()) < 1e-5
    none = GuidanceConfig(kind="none")
    found = noise_predictor(small_model, conditioning, 2.0, 16, none)(x_t, 300)
    assert relative_error(found, full.numpy()) < 1e-5


def test_each_sample_of_a_batch_is_guided_as_alone(small_model: SyncDreamer):
    given = conditioning_of(small_model, 2)
    x_t = torch.randn(2, *small_model.config.latent_shape)
    together = noise_predictor(small_model, given, 2.0, 5, HARMONY)(x_t, 300)
    second = Conditioning(given.context[1:], given.viewpoints[1:], given.input_latents[1:])
    alone = noise_predictor(small_model, second, 2.0, 16, HARMONY)(x_t[1:], 300)
    assert relative_error(together[1:], alone.numpy()) < 1e-5


def noise(label: str, shape: tuple[int, ...] = LATENTS) -> torch.Tensor:
    return torch.from_numpy(seeded_noise(label, shape))


def given_image(model: SyncDreamer) -> tuple[ImageFeatures, float, torch.Tensor]:
    image = torch.from_numpy(seeded_image("sample-input", 256))[None]
    return model.encode_image(image), math.radians(30.0), noise("sample-posterior", (1, 4, 32, 32))


@pytest.mark.slow
def test_a_step_is_that_of_harmonyviews_code(goldens: Goldens, model64: SyncDreamer):
    features, elevation, posterior = given_image(model64)
    conditioning = model64.make_conditioning(features, torch.tensor([elevation]), posterior)
    step = ddim_steps(model64.alphas_cumprod, 50, eta=1.0)[24]
    x_t, z = noise("step-x"), noise("step-noise")
    e_t = noise_predictor(model64, conditioning, 2.0, 8, HARMONY)(x_t, step.timestep)
    goldens.check("harmony_unet64", "e_t_s2_1", e_t)
    goldens.check("harmony_unet64", "x_prev_s2_1", ddim_update(x_t, e_t, step, z))


@pytest.mark.slow
def test_a_trajectory_is_that_of_harmonyviews_code(goldens: Goldens, model64: SyncDreamer):
    features, elevation, posterior = given_image(model64)
    labels = ("traj-init", "traj-noise-3", "traj-noise-2", "traj-noise-1")
    draws = iter([posterior, *map(noise, labels)])
    sampler = SamplerConfig(steps=4, guidance=HARMONY)
    latents = sample(model64, features, elevation, sampler, lambda shape: next(draws))
    goldens.check("harmony_unet64", "final_latents", latents[None], 1e-3)


@pytest.mark.integration
def test_outside_the_interval_one_branch_is_evaluated(small_model: SyncDreamer):
    """At timesteps 999, 749, 499 and 249, where sigma is 14.6, 4.1, 1.6 and 0.7."""
    size = small_model.config.cameras.image_size
    features = small_model.encode_image(torch.zeros(1, 3, size, size))
    batches: list[int] = []
    hook = small_model.unet.out.register_forward_hook(lambda m, i, out: batches.append(len(out)))

    def run(**settings) -> list[int]:
        batches.clear()
        guidance = GuidanceConfig(**settings)
        sampler = SamplerConfig(steps=4, spacing="trailing", guidance=guidance)
        sample(small_model, features, 0.3, sampler, torch.randn, views_at_once=16)
        return list(batches)

    assert run() == [32] * 4
    assert run(interval=(1.0, 5.0)) == [16, 32, 32, 16]
    assert run(kind="harmony", interval=(1.0, 5.0)) == [16, 48, 48, 16]
    assert run(kind="harmony") == [48] * 4
    assert run(kind="none") == [16] * 4
    assert run(interval=(100.0, 200.0)) == run(kind="none")
    hook.remove()


def test_the_upper_end_belongs_to_the_interval_and_the_lower_does_not(small_model: SyncDreamer):
    conditioning = conditioning_of(small_model)
    x_t = torch.randn(1, *small_model.config.latent_shape)
    a = small_model.alphas_cumprod[300]
    sigma = float(((1 - a) / a).sqrt())
    plain = noise_predictor(small_model, conditioning, 1.0, 16)(x_t, 300)
    guided = noise_predictor(small_model, conditioning, 2.0, 16)(x_t, 300)
    for interval, expected in (((0.1, sigma), guided), ((sigma, 9.0), plain)):
        config = GuidanceConfig(interval=interval)
        found = noise_predictor(small_model, conditioning, 2.0, 16, config)(x_t, 300)
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": (3.0, 0.3)}, "0 <= low < high, got 3 0.3"),
        ({"interval": (-1.0, 0.3)}, "0 <= low < high"),
        ({"interval": (0.1, 0.2, 0.3)}, "two noise levels"),
        ({"interval": (0.3, math.nan)}, "0 <= low < high"),
        ({"kind": "none", "interval": (0.3, 3.0)}, "no effect with guidance none"),
    ],
)
def test_intervals_without_a_meaning_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        GuidanceConfig(**settings)


def test_an_interval_needs_a_guidance_scale():
    with pytest.raises(ValueError, match="no effect with these guidance scales"):
        SamplerConfig(guidance_scale=1.0, guidance=GuidanceConfig(interval=(0.3, 3.0)))


RECORDED = {
    "steps": 50,
    "guidance_scale": 2.0,
    "eta": 1.0,
    "temperature": 1.0,
    "spacing": "leading",
}


def test_the_published_sampler_is_recorded_as_by_older_versions():
    assert SamplerConfig().settings() == RECORDED


def test_samplers_that_differ_have_records_that_differ_in_keys_of_both():
    """A record may have more keys than are asked for, so each must have one the others lack."""
    interval = GuidanceConfig(interval=(0.3, 3.0))
    changes = [
        {}, {"solver": "unipc"}, {"solver": "dpm++"}, {"guidance": HARMONY}, {"guidance": interval},
        {"guidance": GuidanceConfig(kind="none")},
        {"guidance": GuidanceConfig(kind="harmony", interval=(0.3, 3.0))},
    ]  # fmt: skip
    records = [SamplerConfig(**change).settings() for change in changes]
    for one in records:
        for other in records:
            assert (one == other) == (one is other)
            assert one is other or not one.items() <= other.items()
    assert SamplerConfig(guidance_scale=1.0).settings() == records[5]  # the same bytes
