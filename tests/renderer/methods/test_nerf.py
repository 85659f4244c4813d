from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from multiview.cameras import orbit_cameras
from renderer.methods.base import Views, all_rays
from renderer.methods.hash_grid import HashGridConfig
from renderer.methods.nerf import NeRF, NeRFConfig
from renderer.methods.occupancy import OccupancyConfig
from renderer.methods.radiance_field import FieldConfig
from renderer.trainer import Training
from tests.renderer.small_runs import traced_ellipsoid

pytestmark = pytest.mark.integration


CPU = torch.device("cpu")
RADIUS = 0.35
SIZE = 48
SMALL = NeRFConfig(
    network=FieldConfig(
        grid=HashGridConfig(levels=4, features=4, base_resolution=8, max_resolution=32), width=32
    ),
    occupancy=OccupancyConfig(resolution=48, decay=0.8),
    steps=160,
    rays=512,
    max_samples=1 << 15,
    length=0.02,
    mesh_resolution=64,
)


def ball_views(cameras=None, size: int = SIZE) -> Views:
    """A ball around the origin that is coloured by its normals, anti-aliased."""
    cameras = orbit_cameras(16, image_size=size) if cameras is None else cameras
    radii, shade = np.full(3, RADIUS), lambda points: 0.5 + 0.4 * points / RADIUS
    rgba = traced_ellipsoid(cameras, size, radii, shade)
    return Views(rgba[..., :3].copy(), rgba[..., 3].copy(), cameras)


def new_run(config: NeRFConfig, views: Views, device: torch.device = CPU) -> Training:
    torch.manual_seed(0)
    return Training(NeRF(config, views, device), 0)


def train(run: Training, steps: int) -> list[float]:
    return [run.train_step().loss.item() for _ in range(steps)]


@pytest.fixture(scope="module")
def trained() -> NeRF:
    run = new_run(SMALL, ball_views())
    train(run, SMALL.steps)
    return run.method


def test_a_ball_is_seen_again_from_between_the_views(trained):
    all_cameras = orbit_cameras(32, image_size=SIZE)
    between = replace(
        all_cameras, **{key: value[[3, 17]] for key, value in vars(all_cameras).items()}
    )
    truth = ball_views(between)
    rays = all_rays(truth, 0.5, CPU)
    rendered = trained.render(rays.origins, rays.directions)
    error = (rendered.color - rays.colors).square().mean().item()
    assert -10 * math.log10(error) > 25
    seen, true = rendered.opacity > 0.5, rays.masks > 0.5
    assert (seen & true).sum() / (seen | true).sum() > 0.95

    inner = rays.masks == 1
    normals = (rays.colors[inner] - 0.5) / 0.4
    cosines = torch.nn.functional.cosine_similarity(rendered.normal[inner], normals)
    assert cosines.mean() > 0.8
    assert (rendered.normal.norm(dim=-1) <= 1 + 1e-5).all()
    far = rays.masks == 0
    assert rendered.opacity[far].mean() < 0.02


def test_the_shape_of_a_ball_has_its_radius_and_about_its_distances(trained):
    grid = trained.shape(surface_density=5.0)
    axis = grid.first + grid.spacing * np.arange(SMALL.mesh_resolution)
    assert axis[-1] == pytest.approx(-axis[0])
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    radii = np.sqrt(x**2 + y**2 + z**2)
    assert grid.sdf.dtype == np.float32
    upper = z > -0.1  # no camera sees the underside
    inside = (grid.sdf < 0) & upper
    expected = (radii < RADIUS) & upper
    assert (inside & expected).sum() / (inside | expected).sum() > 0.9
    assert inside.sum() == pytest.approx(expected.sum(), rel=0.08)  # the radius to 3 %
    near = upper & (np.abs(radii - RADIUS) < 1.5 * grid.spacing)
    slope = np.polyfit((radii - RADIUS)[near], grid.sdf[near], 1)[0]
    assert 0.4 < slope < 1.5


def test_a_run_that_was_stopped_goes_on_exactly_where_it_was():
    occupancy = OccupancyConfig(resolution=16, every=4, parts=3)
    config = replace(SMALL, rays=64, steps=24, occupancy=occupancy)
    whole, stopped, resumed = (new_run(config, ball_views(size=16)) for _ in range(3))
    losses = train(whole, 24)
    train(stopped, 10)
    torch.rand(7)
    resumed.load_state(stopped.state())
    assert train(resumed, 14) == losses[10:]
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name


def test_without_masks_the_colours_alone_are_learned():
    run = new_run(replace(SMALL, rays=192, steps=30), replace(ball_views(), masks=None))
    losses = train(run, 30)
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:2])


def test_a_field_in_which_nothing_is_dense_has_no_shape():
    method = new_run(SMALL, ball_views()).method
    with torch.no_grad():
        method.field.density_network[-1].bias[0] = -20.0
    with pytest.raises(ValueError, match=r"the density is at most .*nothing was learned"):
        method.shape()


def test_empty_masks_are_named():
    views = ball_views()
    assert views.masks is not None
    views.masks[[2, 5]] = 0
    with pytest.raises(ValueError, match="views 2, 5 are empty"):
        NeRF(SMALL, views, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("half", [False, True])
def test_a_ball_is_learned_on_a_gpu(half: bool):
    run = new_run(replace(SMALL, half=half), ball_views(), torch.device("cuda"))
    losses = train(run, 100)
    assert np.mean(losses[-5:]) < 0.1 * losses[0]
    rays = run.method.rays.at(torch.arange(SIZE**2, device="cuda"))
    rendered = run.method.render(rays.origins, rays.directions)
    assert rendered.color.dtype == torch.float32
    assert (rendered.color - rays.colors).square().mean() < 0.01


def test_the_shape_ends_where_the_closed_hull_of_the_masks_does(trained):
    grid = trained.shape(surface_density=5.0)
    size = len(grid.sdf)
    axis = grid.first + grid.spacing * np.arange(size)
    below = (axis < -1.15 * RADIUS) & (axis > -0.55)  # a hull goes on there, as a cone
    assert (grid.sdf[size // 2, size // 2, below] > 0).all()
    within = grid.sdf[size // 2, size // 2, np.abs(axis) < 0.8 * RADIUS]
    assert (within < 0).all()
