from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from ldm.checkpoint.load import empty_model, manifest
from ldm.config import CameraConfig, SamplerConfig, SyncDreamerConfig, VolumeConfig
from ldm.depth_attention import Branch
from ldm.model import Conditioning, SyncDreamer
from ldm.networks.unet import UNetConfig
from ldm.sampling.sampler import noise_predictor, sample
from ldm.spatial_volume import view_geometry
from multiview.cameras import orbit_cameras
from tests.conftest import cast, relative_error
from tests.reference import plain

KEYS = Path(__file__).parents[1] / "data" / "state_dict_keys.tsv"


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def test_the_full_model_has_exactly_the_published_names_and_shapes():
    lines = set(manifest(SyncDreamerConfig()))
    assert lines == set(KEYS.read_text().splitlines())
    assert len(lines) == 1618


def conditioning_and_latents(
    model: SyncDreamer, batch: int = 1
) -> tuple[Conditioning, torch.Tensor]:
    config = model.config
    images = torch.rand(batch, 3, config.cameras.image_size, config.cameras.image_size) * 2 - 1
    channels, size = config.autoencoder.latent_channels, config.latent_size
    noise = torch.randn(batch, channels, size, size)
    elevations = torch.linspace(0.1, 0.5, batch)
    conditioning = model.make_conditioning(model.encode_image(images), elevations, noise)
    return conditioning, torch.randn(batch, *config.latent_shape)


@pytest.mark.integration
@pytest.mark.parametrize("views_at_once", [1, 3, 7, 16, 99])
def test_views_in_groups_are_views_at_once(tiny_model: SyncDreamer, views_at_once: int):
    conditioning, latents = conditioning_and_latents(tiny_model)
    whole = noise_predictor(tiny_model, conditioning, 2.0, 16)(latents, 300)
    parts = noise_predictor(tiny_model, conditioning, 2.0, views_at_once)(latents, 300)
    assert relative_error(parts, whole.numpy()) < 1e-5


@pytest.mark.integration
def test_a_sample_alone_is_the_same_as_in_a_batch(tiny_model: SyncDreamer):
    conditioning, latents = conditioning_and_latents(tiny_model, batch=3)
    together = noise_predictor(tiny_model, conditioning, 2.0, 8)(latents, 300)
    alone = Conditioning(
        conditioning.context[1:2], conditioning.viewpoints[1:2], conditioning.input_latents[1:2]
    )
    single = noise_predictor(tiny_model, alone, 2.0, 8)(latents[1:2], 300)
    assert relative_error(together[1:2], single.numpy()) < 1e-5


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.0])
def test_guidance_is_the_plain_formula(tiny_model: SyncDreamer, scale: float):
    conditioning, latents = conditioning_and_latents(tiny_model)
    ours = noise_predictor(tiny_model, conditioning, scale, 8)(latents, 300)
    with plain.plain_layers():
        expected = plain.predict_noise(tiny_model, latents, 300, conditioning, scale, 5)
    assert relative_error(ours, expected.numpy()) < 1e-5


def test_one_noisy_view_changes_the_prediction_of_the_others(tiny_model: SyncDreamer):
    conditioning, latents = conditioning_and_latents(tiny_model)
    changed = latents.clone()
    changed[:, 4] += 1.0
    predict_noise = noise_predictor(tiny_model, conditioning, 1.0, 16)
    before, after = predict_noise(latents, 300), predict_noise(changed, 300)
    assert (after[:, 11] - before[:, 11]).abs().max() > 1e-4


@pytest.mark.integration
def test_a_step_builds_one_volume_and_runs_the_unet_once_a_group_of_views(
    tiny_model: SyncDreamer, monkeypatch
):
    """Guidance costs no second volume; what does not change from step to step is computed once."""
    volume, unet = tiny_model.spatial_volume, tiny_model.unet
    size = tiny_model.config.cameras.image_size
    features = tiny_model.encode_image(torch.rand(1, 3, size, size))
    for guidance, steps in ((1.0, 1), (2.0, 3)):
        calls = {
            (volume, "build_spatial_volume"): steps, (volume, "view_frustums"): 2 * steps,
            (unet, "forward"): 2 * steps, (unet, "null_residuals"): 1,
            (tiny_model, "view_geometry"): 1,
        }  # fmt: skip
        for owner, name in calls:
            monkeypatch.setattr(owner, name, Mock(wraps=getattr(owner, name)))
        config, draw = SamplerConfig(steps, guidance_scale=guidance), Mock(side_effect=torch.randn)
        latents = sample(tiny_model, features, 0.5, config, draw, views_at_once=8)
        assert latents.shape == tiny_model.config.latent_shape
        assert latents.isfinite().all()
        # The posterior, the initial latents, and one draw a step but the last.
        assert [len(call.args[0]) for call in draw.call_args_list] == [4] + [5] * steps
        for (owner, name), count in calls.items():
            assert getattr(owner, name).call_count == count, name
        assert len(unet.forward.call_args.args[0]) == 8 * guidance  # one branch at a scale of 1


@pytest.mark.integration
def test_branches_may_drop_the_image_and_the_volume_apart(tiny_model: SyncDreamer):
    """Any branch predicts what it would predict alone."""
    conditioning, latents = conditioning_and_latents(tiny_model)
    cache = tiny_model.sampling_cache()
    branches = [Branch(image, volume) for volume in (True, False) for image in (True, False)]
    together = tiny_model(latents, 300, conditioning, cache, branches)
    assert together.shape == (4, *latents.shape)
    for branch, found in zip(branches, together, strict=True):
        (alone,) = tiny_model(latents, 300, conditioning, cache, [branch])
        assert relative_error(found, alone.numpy()) < 1e-5
    for one, two in itertools.combinations(together, 2):
        assert (one - two).abs().max() > 1e-4
    with pytest.raises(ValueError, match="first"):
        tiny_model(latents, 300, conditioning, cache, branches[::-1])


def test_settings_of_the_small_model_are_refused():
    small = SyncDreamerConfig(
        prediction="v", image_encoder="none", volume=VolumeConfig(input_view=True)
    )
    with pytest.raises(ValueError, match=r"demo\.model\.SmallSyncDreamer") as error:
        SyncDreamer(small)
    for setting in ("prediction=v", "image_encoder=none", "volume.input_view=true"):
        assert f"model.{setting}" in str(error.value)


@pytest.mark.integration
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_keeps_what_must_be_exact(tiny_model, dtype):
    low = cast(tiny_model, dtype)
    assert low.alphas_cumprod.dtype == torch.float32
    assert next(low.first_stage_model.parameters()).dtype == torch.float32
    assert next(low.unet.parameters()).dtype == dtype
    conditioning, latents = conditioning_and_latents(tiny_model)
    exact = noise_predictor(tiny_model, conditioning, 2.0, 8)(latents, 300)
    context, viewpoints = conditioning.context.to(dtype), conditioning.viewpoints.to(dtype)
    in_low = Conditioning(context, viewpoints, conditioning.input_latents)
    rough = noise_predictor(low, in_low, 2.0)(latents, 300)
    assert rough.dtype == torch.float32
    assert relative_error(rough, exact.numpy()) < 0.05


@pytest.mark.integration
def test_every_weight_but_the_known_unused_ones_takes_part(tiny_config: SyncDreamerConfig):
    """Guards against a layer that is built and then forgotten."""
    torch.manual_seed(0)
    with torch.inference_mode(False), torch.enable_grad():
        model = SyncDreamer(tiny_config)
        with torch.no_grad():
            for weight in model.parameters():
                if not weight.any():
                    weight.normal_(std=0.02)
        conditioning, latents = conditioning_and_latents(model)
        predicted = noise_predictor(model, conditioning, 2.0, 16)(latents, 300)
        (predicted.sum() + model.decode(latents[0, :1]).sum()).backward()
    weights = dict(model.named_parameters())
    unused = {name for name, w in weights.items() if w.grad is None or not w.grad.any()}
    clip = "clip_image_encoder.model."
    expected = {n for n in weights if n.startswith(clip) and not n.startswith(f"{clip}visual.")}
    never = (".attn2.to_q.", ".attn2.to_k.", ".norm2.")
    rest = {name for name in unused - expected if not any(part in name for part in never)}
    assert expected <= unused
    # The bias of a convolution before a norm with one channel a group cancels out.
    assert all(name.endswith("bias") for name in rest), sorted(rest)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SyncDreamerConfig(cameras=CameraConfig(image_size=200)), "a multiple of 64"),
        (lambda: SyncDreamerConfig(unet=UNetConfig(in_channels=9)), r"unet\.in_channels"),
        (lambda: SyncDreamerConfig(unet=UNetConfig(channel_mult=(1, 2))), "frustum volume"),
        (lambda: UNetConfig(channels=100), r"unet\.channels"),
        (lambda: VolumeConfig(voxels=20), r"volume\.voxels"),
        (lambda: VolumeConfig(depth_planes=20), r"volume\.depth_planes"),
        (lambda: VolumeConfig(channels=(8, 8)), "4 levels"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_building_the_model_without_weights_takes_no_memory_and_no_random_numbers(tiny_config):
    before = torch.get_rng_state()
    model = empty_model(dataclasses.replace(tiny_config))
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_vertices_project_to_where_the_cameras_see_them():
    cameras, size = orbit_cameras(num_views=4, image_size=16), 16
    matrices = (cameras.intrinsics, cameras.world_to_camera)
    intrinsics, poses = (torch.tensor(matrix, dtype=torch.float32) for matrix in matrices)
    geometry = view_geometry(VolumeConfig(voxels=8, depth_planes=8), intrinsics, poses, size)
    line = torch.linspace(-0.5, 0.5, 8)
    z, y, x = 2, 5, 7  # the tensor's axes are (z, y, x)
    vertex = torch.tensor([line[x], line[y], line[z], 1.0])
    for n in range(4):
        u, v, depth = intrinsics[n] @ poses[n] @ vertex
        expected = torch.stack([u / depth, v / depth]) / ((size - 1) / 2) - 1
        torch.testing.assert_close(geometry.vertices_in_views[n, z, y, x], expected)


def test_looking_along_rays_reads_the_volume_where_the_rays_are(tiny_model: SyncDreamer):
    """A volume that holds its own coordinates must give the rays' coordinates back."""
    net, rays = tiny_model.spatial_volume, tiny_model.view_geometry().rays_in_volume[[3, 9]]
    line = torch.linspace(-1, 1, tiny_model.config.volume.voxels)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    seen = net.sample_along_rays(torch.stack([x, y, z])[None], rays).permute(0, 2, 3, 4, 1)
    inside = (rays.abs() < 1).all(dim=-1)
    torch.testing.assert_close(seen[inside], rays[inside], rtol=1e-4, atol=1e-4)
    with_matrices = tiny_model.view_geometry().with_interpolation(tiny_model.config.volume.voxels)
    assert with_matrices.interpolation is not None
    matrices = [with_matrices.interpolation[n] for n in (3, 9)]
    volume = torch.randn(2, 3, *3 * [tiny_model.config.volume.voxels])
    torch.testing.assert_close(
        net.sample_along_rays(volume, rays, matrices), net.sample_along_rays(volume, rays)
    )
    outside = (rays.abs() > 1 + 2 / (tiny_model.config.volume.voxels - 1)).any(dim=-1)
    assert 0.3 < outside.float().mean() < 0.8
    assert seen[outside].abs().max() == 0
