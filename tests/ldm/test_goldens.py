"""Every block against the published implementation's numbers, with weights made from names."""

from __future__ import annotations

import math
from dataclasses import astuple
from functools import partial

import numpy as np
import pytest
import torch

from ldm.config import SamplerConfig, SyncDreamerConfig, model_buffers, viewpoint_embedding
from ldm.model import Conditioning, SyncDreamer
from ldm.sampling.sampler import noise_predictor, sample
from ldm.sampling.solvers import ddim_update
from ldm.schedule import ddim_steps, timestep_embedding
from multiview.cameras import orbit_cameras
from multiview.images import prepare_image, to_uint8
from tests.conftest import (
    SHARED,
    Goldens,
    cast,
    needs_shared,
    relative_error,
    seeded_model,
    thin_out,
)
from tests.reference.seeded_weights import seeded_image, seeded_noise

pytestmark = pytest.mark.integration


LATENTS = (1, 16, 4, 32, 32)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def noise(label: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(seeded_noise(label, shape))


@needs_shared
def test_the_compact_goldens_are_part_of_the_whole_ones(goldens: Goldens):
    for key in goldens.compact.files:
        whole = goldens.whole(*key.split("/"))
        np.testing.assert_array_equal(goldens.compact[key], thin_out(whole))


def test_cameras(goldens: Goldens):
    cameras = orbit_cameras()
    goldens.check("camera", "poses", cameras.world_to_camera, 1e-6)
    goldens.check("camera", "closed_form_poses", cameras.world_to_camera, 1e-12)
    goldens.check("camera", "K", cameras.intrinsics[0], 1e-7)
    buffers = model_buffers(SyncDreamerConfig())
    for name in ("poses", "Ks", "azimuth"):
        goldens.check("camera", f"buffer_{name}", buffers[name], 1e-7 if name == "Ks" else 1e-6)


def test_schedule(goldens: Goldens):
    buffers = model_buffers(SyncDreamerConfig())
    for name in set(buffers) - {"poses", "Ks", "azimuth"}:
        exact = name in ("betas", "alphas", "alphas_cumprod", "sqrt_alphas_cumprod")
        goldens.check("schedule", name, buffers[name], 1e-6 if exact else 1e-5)


@pytest.mark.parametrize("count", [4, 50, 200])
def test_ddim_tables(goldens: Goldens, count: int):
    steps = ddim_steps(model_buffers(SyncDreamerConfig())["alphas_cumprod"], count, eta=1.0)[::-1]
    timesteps = [step.timestep for step in steps]
    np.testing.assert_array_equal(timesteps, goldens.compact[f"schedule/ddim{count}_timesteps"])
    _, alphas, alphas_prev, sigmas, _ = np.array([astuple(step) for step in steps]).T
    columns = {"alphas": alphas, "alphas_prev": alphas_prev, "sigmas": sigmas}
    for name, values in {**columns, "sqrt_one_minus_alphas": np.sqrt(1 - alphas)}.items():
        goldens.check("schedule", f"ddim{count}_{name}", values, 1e-6)
    assert [step.add_noise for step in steps] == [False] + [True] * (count - 1)


def test_embeddings(goldens: Goldens, model64: SyncDreamer):
    t = torch.from_numpy(goldens.compact["embeddings/t"])
    for dim in (64, 256, 320):
        goldens.check("embeddings", f"sinusoid_{dim}", timestep_embedding(t, dim), 1e-5)
    goldens.check("embeddings", "embed_time", model64.embed_time(t))
    elevations = torch.from_numpy(goldens.compact["embeddings/elevation_rad"])
    embedding = viewpoint_embedding(elevations, math.radians(30.0), model64.azimuth)
    goldens.check("embeddings", "view_embedding", embedding, 1e-6)


def test_full_size_autoencoder(goldens: Goldens, model64: SyncDreamer):
    vae = model64.first_stage_model
    image = torch.from_numpy(seeded_image("vae256", 256))[None]
    goldens.check("vae", "ch128_image_stride8", image[:, :, ::8, ::8])
    posterior = vae.encode(image)
    goldens.check("vae", "ch128_mode", posterior.mean)
    goldens.check("vae", "ch128_std", posterior.std)
    drawn = posterior.sample(noise("vae256-posterior", (1, 4, 32, 32)))
    goldens.check("vae", "ch128_sample", drawn)
    latent = noise("vae256-latent", (1, 4, 32, 32))
    goldens.check("vae", "ch128_decoded_stride4", vae.decode(latent)[:, :, ::4, ::4])
    scaled = model64.decode(latent)[:, :, ::4, ::4]
    goldens.check("vae", "ch128_decode_first_stage_stride4", scaled)


def test_clip(goldens: Goldens, model64: SyncDreamer):
    images = torch.from_numpy(np.stack([seeded_image(f"clip-{i}", 256) for i in range(2)]))
    encoder = model64.clip_image_encoder
    pixels = encoder.preprocess(images)
    goldens.check("clip", "preprocessed_stride8", pixels[:, :, ::8, ::8])
    goldens.check("clip", "preprocessed_rows_0_111_223", pixels[:, :, [0, 111, 223]])
    goldens.check("clip", "embedding", encoder(images))


def test_spatial_volume_and_frustums(goldens: Goldens, model64: SyncDreamer):
    net, geometry = model64.spatial_volume, model64.view_geometry()
    latents = noise("volume-x", LATENTS)
    time = model64.embed_time(torch.tensor([501]))
    goldens.check("spatial_volume", "t_embed", time)
    elevation = torch.tensor([math.radians(10.0)])
    views = viewpoint_embedding(elevation, math.radians(30.0), model64.azimuth)
    goldens.check("spatial_volume", "v_embed", views)

    for n in (0, 5):
        encoded = net.target_encoder(latents[:, n], time, views[:, n])
        goldens.check("spatial_volume", f"enc_view{n}", encoded)
        coordinates = geometry.vertices_in_views[n, ::4, ::4, ::4]
        goldens.check("spatial_volume", f"coords_view{n}_stride4", coordinates)
    read = net.lift_views_to_volume(latents, time, views, geometry)
    goldens.check("spatial_volume", "unproj_stride", read[0, ::8, ::4, ::4, ::4])
    volume = net.build_spatial_volume(latents, time, views, geometry)
    goldens.check("spatial_volume", "volume_stride", volume[0, ::4, ::4, ::4, ::4])
    goldens.check("spatial_volume", "volume_slice_d16", volume[0, :8, 16])

    targets = goldens.compact["spatial_volume/target_indices"].tolist()
    rays = geometry.rays_in_volume[targets]
    points = (rays * model64.config.volume.half_side).permute(0, 4, 1, 2, 3)
    goldens.check("spatial_volume", "frustum_xyz_stride", points[:, :, ::8, ::8, ::8])
    samples = net.sample_along_rays(volume, rays)
    goldens.check("spatial_volume", "frustum_in_stride", samples[:, ::8, ::6, ::4, ::4])
    f32, f16, f8, f4 = net.view_frustums(volume, time, views[:, targets], rays)
    goldens.check("spatial_volume", "frustum32_stride", f32[:, ::8, ::6, ::4, ::4])
    goldens.check("spatial_volume", "frustum16_stride", f16[:, ::8, ::4, ::4, ::4])
    goldens.check("spatial_volume", "frustum8_stride", f8[:, ::8, ::4, ::2, ::2])
    goldens.check("spatial_volume", "frustum4_stride", f4[:, ::16, ::2])


def unet_inputs(label: str, batch: int) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    frustums = [
        noise(f"{label}-src{width}", (batch, channels, depth, width, width))
        for width, channels, depth in ((32, 64, 48), (16, 128, 24), (8, 256, 12), (4, 512, 6))
    ]
    x = noise(f"{label}-x", (batch, 8, 32, 32))
    return x, noise(f"{label}-ctx", (batch, 1, 768)), frustums


def check_unet(check, model: SyncDreamer, label: str, batch: int, timesteps) -> None:
    unet = model.unet
    x, context, frustums = unet_inputs(label, batch)
    taps: dict[str, torch.Tensor] = {}
    modules = (
        "input_blocks.1", "input_blocks.11", "middle_block", "middle_conditions",
        "output_blocks.3", "output_conditions.0", "output_conditions.8",
    )  # fmt: skip

    def tap(name: str, *results) -> None:
        taps[name] = results[-1]

    hooks = [unet.get_submodule(n).register_forward_hook(partial(tap, n)) for n in modules]
    check("out", unet(x, timesteps, context, frustums))
    for hook in hooks:
        hook.remove()
    for name, out in taps.items():
        stride = max(1, out.shape[-1] // 8)
        check(f"tap_{name.replace('.', '_')}", out[:, ::8, ::stride, ::stride])
    none = [volume[:0] for volume in frustums]
    nothing_seen = unet(x, timesteps, context * 0, none, unet.null_residuals(32))
    check("out_zero_context_zero_source", nothing_seen)

    layer = unet.output_conditions[8]
    h = noise(f"{label}-h", (batch, unet.config.channels, 32, 32))
    check("depth8_out", layer(h, frustums[0])[:, :, ::4, ::4])
    check("depth8_out_zero_volume", (h + layer.null_residual(32, 32))[:, :, ::4, ::4])
    check("depth8_out_zero_volume", layer(h, frustums[0] * 0)[:, :, ::4, ::4])


def test_unet_of_64_channels(goldens: Goldens, model64: SyncDreamer):
    check = partial(goldens.check, "unet64")
    timesteps = torch.from_numpy(goldens.compact["unet64/timesteps"])
    check_unet(check, model64, "unet64", 2, timesteps)

    block = model64.unet.input_blocks[1]
    h = noise("unet64-h0", (2, 64, 32, 32))
    time = model64.unet.time_embed(torch.zeros(2, 64))
    check("res_in1_out_stride", block[0](h, time)[:, ::4, ::4, ::4])
    context = unet_inputs("unet64", 2)[1]
    check("spatial_transformer_in1_out_stride", block[1](h, context)[:, ::4, ::4, ::4])


def sample_conditioning(model: SyncDreamer) -> Conditioning:
    image = torch.from_numpy(seeded_image("sample-input", 256))[None]
    features = model.encode_image(image)
    posterior = noise("sample-posterior", (1, 4, 32, 32))
    return model.make_conditioning(features, torch.tensor([math.radians(30.0)]), posterior)


def check_step(check, model: SyncDreamer, scales: tuple[float, ...]) -> None:
    conditioning = sample_conditioning(model)
    scale = model.config.autoencoder.scale
    check("x_input", conditioning.input_latents * scale)
    step = ddim_steps(model.alphas_cumprod, 50, eta=1.0)[24]
    assert step.timestep == 501
    x_t, z = noise("step-x", LATENTS), noise("step-noise", LATENTS)
    for guidance in scales:
        e_t = noise_predictor(model, conditioning, guidance)(x_t, step.timestep)
        check(f"e_t_cfg{guidance:.0f}", e_t)
        check(f"x_prev_cfg{guidance:.0f}", ddim_update(x_t, e_t, step, z))


def test_one_denoising_step(goldens: Goldens, model64: SyncDreamer):
    check_step(partial(goldens.check, "denoise_step_unet64"), model64, (2.0,))


@pytest.mark.slow
def test_one_denoising_step_without_guidance(goldens: Goldens, model64: SyncDreamer):
    check_step(partial(goldens.check, "denoise_step_unet64"), model64, (1.0,))


def run_trajectory(model: SyncDreamer) -> torch.Tensor:
    """The goldens' four steps through `ldm.sampling.sampler.sample`, (1, 16, 4, 32, 32)."""
    labels = iter(["sample-posterior", "traj-init", *(f"traj-noise-{n}" for n in (3, 2, 1))])
    features = model.encode_image(torch.from_numpy(seeded_image("sample-input", 256))[None])
    elevation, sampler = math.radians(30.0), SamplerConfig(steps=4)
    return sample(model, features, elevation, sampler, lambda shape: noise(next(labels), shape))[
        None
    ]


@pytest.mark.slow
def test_a_trajectory_of_four_steps_and_its_pictures(goldens: Goldens, model64: SyncDreamer):
    latents = run_trajectory(model64)
    goldens.check("trajectory_unet64", "final_latents", latents, 1e-3)

    # Two of the sixteen pictures: decoding takes four seconds each.
    images = model64.decode(latents[0, [0, 7]], 1)
    whole = goldens.whole("trajectory_unet64", "decoded_uint8")
    if whole is not None:
        ours = to_uint8(images.permute(0, 2, 3, 1).numpy()).astype(int)
        difference = np.abs(ours - whole[[0, 7]])
        assert difference.max() <= 1  # where a value lies next to a whole number
        assert (difference > 0).mean() < 1e-2

    low = run_trajectory(cast(model64, torch.bfloat16))
    goldens.check("trajectory_unet64", "final_latents", low, 0.05)


@needs_shared
@pytest.mark.parametrize(
    ("name", "crop_size"),
    [("alarm", -1), ("deer", -1), ("lotus_seed", 150), ("crystal", 180), ("aircraft", 200)],
)
def test_prepared_inputs(name: str, crop_size: int):
    expected = np.load(SHARED / "goldens" / "prepare_inputs.npz")
    pixels = prepare_image(SHARED / "data" / "testset" / f"{name}.png", crop_size, 256)
    key = f"{name}_crop{crop_size}"
    assert relative_error(pixels[::8, ::8], expected[f"{key}_float_stride8"]) < 1e-6
    rounded = np.round((pixels * 0.5 + 0.5) * 255).astype(np.uint8)
    np.testing.assert_array_equal(rounded, expected[f"{key}_uint8"])


@needs_shared
@pytest.mark.slow
def test_the_full_size_model():
    model = seeded_model(SyncDreamerConfig())

    def checker(file: str):
        arrays = np.load(SHARED / "goldens" / f"{file}.npz")

        def check(name: str, out: torch.Tensor, tolerance: float = 1e-4) -> None:
            assert relative_error(out, arrays[name]) < tolerance, f"{file}/{name}"

        return check

    timesteps = torch.from_numpy(np.load(SHARED / "goldens" / "unet320.npz")["timesteps"])
    check_unet(checker("unet320"), model, "unet320", 1, timesteps)
    check_step(checker("denoise_step_unet320"), model, (1.0, 2.0))
    latents = run_trajectory(model)
    checker("trajectory_unet320")("final_latents", latents, 1e-3)
    views = model.decode(latents[0, :2], 1)[:, :, ::8, ::8]
    expected = np.load(SHARED / "goldens" / "trajectory_unet320.npz")["decoded_stride8"][:2]
    assert relative_error(views, expected) < 1e-3
    low = run_trajectory(cast(model, torch.bfloat16))
    assert relative_error(low, latents.numpy()) < 0.05
