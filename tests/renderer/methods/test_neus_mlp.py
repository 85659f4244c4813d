from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from renderer.methods.base import all_rays
from renderer.methods.fields import AutocastField, NeuSField
from renderer.methods.neus import sample_depths
from renderer.methods.neus_mlp import MLPNeuS, sample_near_surface
from renderer.trainer import Training
from tests.renderer.small_runs import TINY_MLP, ellipsoid, ellipsoid_views

CPU = torch.device("cpu")


def tiny(masks: bool = True, **changes: object) -> MLPNeuS:
    torch.manual_seed(0)
    return MLPNeuS(replace(TINY_MLP, **changes), ellipsoid_views(masks), CPU)


def test_all_parameters_have_published_names_and_are_trained_at_the_rate_of_the_step():
    method = tiny(half=True)  # on a CPU without effect
    assert type(method.renderer) is NeuSField
    assert set(method.state_dict()) == {f"renderer.{n}" for n in method.renderer.state_dict()}
    assert "renderer.sdf_network.lin0.weight_g" in method.state_dict()
    (group,) = method.parameter_groups()
    assert {id(p) for p in group.parameters} == {id(p) for p in method.parameters()}
    assert method.learning_rates(0) == [pytest.approx(1e-3 * 0.02)]
    assert method.learning_rates(5) == [1e-3]


@pytest.mark.parametrize("with_masks", [True, False])
def test_a_step_takes_rays_from_everywhere_and_more_from_inside_the_masks(with_masks: bool):
    method = tiny(with_masks)
    masks = torch.from_numpy(ellipsoid()[..., 3].reshape(-1)) > 0.5
    generator = torch.Generator().manual_seed(0)
    indices = torch.stack([method._sample_ray_indices(generator) for _ in range(20)])
    assert indices.shape == (20, 96 + 32)
    share = masks.float().mean().item()
    assert masks[indices[:, :96]].float().mean() == pytest.approx(share, abs=0.03)
    expected = 1 if with_masks else share
    assert masks[indices[:, 96:]].float().mean() == pytest.approx(expected, abs=0.06)
    assert len(indices.unique()) > 2000  # of 16384


def test_empty_masks_are_refused():
    views = ellipsoid_views()
    with pytest.raises(ValueError, match="all masks are empty"):
        MLPNeuS(TINY_MLP, replace(views, masks=np.zeros_like(views.masks)), CPU)


def test_samples_are_shifted_at_random_in_training_and_not_when_looking(monkeypatch):
    seen = []

    def record(*arguments: object) -> Tensor:
        seen.append(arguments[-1])
        return sample_depths(*arguments)

    monkeypatch.setattr("renderer.methods.neus_mlp.sample_depths", record)
    method, generator = tiny(), torch.Generator().manual_seed(0)
    for _ in range(2):
        method.training_step(0, generator)
    method.render(method._rays.origins[:3], method._rays.directions[:3])
    first, second, looking = seen
    assert first.shape == (96 + 32,)
    assert 0 <= first.min() < 0.1 < 0.9 < first.max() < 1
    assert not torch.equal(first, second)
    assert looking is None


def test_surfaces_that_face_away_count_in_the_first_steps_only():
    losses = [
        tiny().training_step(step, torch.Generator().manual_seed(0)).loss.item()
        for step in (0, 10, 20, 30)  # annealed over 20
    ]
    assert len({*losses[:3]}) == 3
    assert losses[2] == losses[3]


def test_an_untrained_network_is_a_ball_and_thirty_steps_bring_it_nearer_to_the_views():
    training = Training(tiny(steps=30), 0)
    grid = training.method.shape()
    centre = len(grid.sdf) // 2
    assert grid.sdf.shape == (24, 24, 24)
    assert grid.sdf[centre, centre, centre] < 0 < grid.sdf[0, 0, 0]
    first = [training.train_step() for _ in range(3)]
    rest = [training.train_step() for _ in range(27)]
    assert sum(r.loss.item() for r in rest[-3:]) < 0.6 * sum(r.loss.item() for r in first)
    assert rest[-1].squared_error < 0.5 * first[0].squared_error


def test_looking_in_chunks_gives_the_same_as_at_once_and_changes_nothing(monkeypatch):
    method = tiny()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    rays = all_rays(ellipsoid_views(), 0.0, CPU).at(torch.arange(500, 540))
    whole = method.render(rays.origins, rays.directions)
    monkeypatch.setattr("renderer.methods.neus_mlp._RAYS_AT_ONCE", 7)
    parts = method.render(rays.origins, rays.directions)
    for name in ("color", "opacity", "normal"):
        assert_close(getattr(parts, name), getattr(whole, name), atol=1e-5, rtol=0)
        assert not getattr(whole, name).requires_grad
    assert whole.color.shape == whole.normal.shape == (40, 3)
    assert whole.opacity.shape == (40,)
    assert 0 <= whole.opacity.min() < 0.2 < 0.8 < whole.opacity.max() <= 1
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def blob(points: Tensor) -> Tensor:
    """A ball with a thin stick, with gradients of length 1.5."""
    ball = (points - 0.05).norm(dim=-1) - 0.3
    stick = torch.maximum(points[:, :2].norm(dim=-1) - 0.023, points[:, 2].abs() - 0.57)
    return 1.5 * torch.minimum(ball, stick)


@pytest.mark.parametrize("resolution", [16, 61, 80])
def test_the_lattice_is_exact_near_the_surface_and_has_the_right_sign_elsewhere(resolution: int):
    asked = []

    def counted(points: Tensor) -> Tensor:
        asked.append(len(points))
        return blob(points)

    grid = sample_near_surface(counted, resolution, CPU)
    assert grid.sdf.shape == (resolution,) * 3
    assert grid.first == -0.6
    assert grid.first + (resolution - 1) * grid.spacing == pytest.approx(0.6)
    axis = torch.linspace(-0.6, 0.6, resolution)
    exact = blob(torch.cartesian_prod(axis, axis, axis)).reshape(grid.sdf.shape).numpy()
    near = np.abs(exact) < 1.5 * grid.spacing  # all that marching cubes interpolates
    np.testing.assert_allclose(grid.sdf[near], exact[near], atol=1e-5)
    np.testing.assert_array_equal(grid.sdf < 0, exact < 0)
    if resolution == 80:
        assert sum(asked) < 0.75 * resolution**3


def test_half_precision_differs_by_its_rounding_only_and_keeps_the_surface_exact():
    field, half = NeuSField(TINY_MLP.networks), AutocastField(TINY_MLP.networks)
    half.load_state_dict(field.state_dict())
    points = torch.rand(50, 3) - 0.5
    samples, exact = half.surface(points), field.surface(points)
    assert torch.equal(samples.sdf, exact.sdf)
    assert torch.equal(samples.gradients, exact.gradients)
    distances, colors = half.sdf(points), half.color(points, points, points, exact.features)
    assert distances.dtype == colors.dtype == torch.float32
    assert 0 < (distances - exact.sdf).abs().max() < 3e-3
    assert 0 < (colors - field.color(points, points, points, exact.features)).abs().max() < 2e-2
