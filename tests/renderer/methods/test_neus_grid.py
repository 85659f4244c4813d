from dataclasses import replace

import numpy as np
import pytest
import torch

from multiview.cameras import orbit_cameras
from renderer.export import render_view
from renderer.mesh import extract, remove_floaters
from renderer.methods.base import SDFGrid, Views
from renderer.methods.neus_grid import (
    GridNeuS,
    GridNeuSConfig,
    _regularization_losses,
    double_resolution,
)
from renderer.trainer import Training
from tests.renderer.traced import ball, bowl, overlap, traced_views

pytestmark = pytest.mark.integration


CPU = torch.device("cpu")
RADIUS = 0.4
SHORT = GridNeuSConfig(resolution=48, steps=100, rays=1024)
TINY = GridNeuSConfig(resolution=24, steps=30, rays=256)


def new_training(views: Views, config: GridNeuSConfig = SHORT, seed: int = 0) -> Training:
    return Training(GridNeuS(config, views, CPU), seed)


def train(run: Training, steps: int) -> Training:
    for _ in range(steps):
        run.train_step()
    return run


@pytest.fixture(scope="module")
def ball_views() -> Views:
    return traced_views(ball(RADIUS), 64)


@pytest.fixture(scope="module")
def small_views() -> Views:
    return traced_views(ball(RADIUS), 32)


@pytest.fixture(scope="module")
def trained(ball_views) -> GridNeuS:
    return train(new_training(ball_views), SHORT.steps).method


def seen_points(grid: SDFGrid) -> np.ndarray:
    """Vertices that the cameras see well."""
    vertices = np.asarray(remove_floaters(extract(grid.sdf, grid.first, grid.spacing)).vertices)
    return vertices[vertices[:, 2] > -0.25]


def test_a_ball_is_recovered_within_a_hundredth_of_its_radius(trained):
    lengths = np.linalg.norm(seen_points(trained.shape()), axis=1)
    assert abs(lengths.mean() - RADIUS) < 0.002 * RADIUS
    assert np.abs(lengths - RADIUS).mean() < 0.01 * RADIUS


def test_the_ball_is_closed_in_one_piece_within_the_slack_of_the_hull(trained):
    grid = trained.shape()
    mesh = extract(grid.sdf, grid.first, grid.spacing)
    assert mesh.is_watertight
    assert len(remove_floaters(mesh).faces) == len(mesh.faces)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.08)  # nobody sees below
    assert (trained.distances() >= trained.bound).all()


def test_a_hollow_that_no_silhouette_shows_is_found():
    run = train(new_training(traced_views(bowl, 64)), SHORT.steps)
    points = seen_points(run.method.shape())
    hollow = points[(np.linalg.norm(points[:, :2], axis=1) < 0.2) & (points[:, 2] > 0)]
    assert np.abs(bowl(hollow)).mean() < 0.015


def test_what_was_learned_is_seen_from_between_the_views(trained):
    cameras, truth = orbit_cameras(32, image_size=64), traced_views(ball(RADIUS), 64)
    mask = truth.masks[0] > 0.5
    at_a_view, between = (render_view(trained, cameras, k, 64, CPU) for k in (0, 1))
    color = at_a_view.color.reshape(64, 64, 3).numpy()
    assert -10 * np.log10(np.square(color - truth.images[0]).mean()) > 24
    pose = cameras.world_to_camera[0]
    normal = at_a_view.normal.reshape(64, 64, 3)[32, 32].numpy()
    assert -(pose[:, :3] @ normal) @ pose[:, 3] / 1.5 > 0.95  # outwards, to the camera
    for rendered, least in ((at_a_view, 0.97), (between, 0.96)):  # a ball looks the same
        assert overlap(rendered.opacity.reshape(64, 64).numpy(), mask) > least


def test_values_are_interpolated_in_the_middles_of_half_cells():
    x, y, z = np.meshgrid(*[np.arange(8) + 0.5] * 3, indexing="ij")
    fine = np.stack(np.meshgrid(*[np.arange(16) / 2 + 0.25] * 3, indexing="ij"))
    doubled = double_resolution(x**2 - 2 * y + z * x)
    inner = (slice(4, -4),) * 3
    expected = fine[0] ** 2 - 2 * fine[1] + fine[2] * fine[0]
    np.testing.assert_allclose(doubled[inner], expected[inner])


def test_views_that_disagree_make_a_smoother_surface(small_views):
    noise = np.random.default_rng(0).random(small_views.images.shape, dtype=np.float32)
    images = np.where(small_views.masks[..., None] > 0.5, noise, 1.0).astype(np.float32)
    others = replace(small_views, images=images)
    assert GridNeuS(TINY, small_views, CPU).smoothness == TINY.smoothness
    bends = []
    for smoothness in (None, TINY.smoothness):
        run = new_training(others, TINY)
        assert run.method.smoothness > 5 * TINY.smoothness
        run.method.smoothness = smoothness or run.method.smoothness
        distances = train(run, TINY.steps).method.distances().detach()
        bends.append(_regularization_losses(distances)["smoothness"].item())
    assert bends[0] < 0.8 * bends[1]


def test_a_level_rests_until_its_first_step(small_views):
    run = train(new_training(small_views, TINY), 5)
    coarse, middle, fine = run.method.levels
    assert coarse.abs().max() > 0
    assert middle.abs().max() == 0
    assert fine.abs().max() == 0
    train(run, 1)
    assert middle.abs().max() > 0


def test_a_run_that_was_stopped_goes_on_with_the_same_bits(small_views):
    whole = train(new_training(small_views, TINY), 30)
    state = train(new_training(small_views, TINY), 17).state()
    other = new_training(small_views, TINY, seed=5)
    other.load_state(state)
    train(other, 13)
    for name, values in whole.method.state_dict().items():
        assert torch.equal(values, other.method.state_dict()[name]), name


def test_without_masks_the_white_background_gives_the_start():
    views = traced_views(ball(RADIUS), 64, masks=False)
    method = train(new_training(views), 60).method
    lengths = np.linalg.norm(seen_points(method.shape()), axis=1)
    assert abs(lengths.mean() - RADIUS) < 0.03 * RADIUS
    assert torch.isinf(method.bound).all()


def test_a_mask_that_is_grossly_wrong_hardly_moves_the_surface(ball_views):
    method = GridNeuS(SHORT, ball_views, CPU)
    wrong = method.rays.masks.clone()
    wrong[: 64 * 64] = 0  # the first view says that nothing is there
    rays = method.rays
    object.__setattr__(rays, "masks", wrong)
    run = train(Training(method, 0), SHORT.steps)
    lengths = np.linalg.norm(seen_points(run.method.shape()), axis=1)
    assert np.abs(lengths - RADIUS).mean() < 0.03 * RADIUS


def test_views_with_replaced_masks_give_no_colours(ball_views):
    images = ball_views.images.copy()
    images[3] = 1.0
    views = Views(images, ball_views.masks, ball_views.cameras, replaced=(3,))
    method = GridNeuS(SHORT, views, CPU)
    assert len(method.rays) == 15 * 64 * 64
    rendered = render_view(method, views.cameras, 3, 64, CPU)
    truth = ball_views.images[3].reshape(-1, 3)
    assert -10 * np.log10(np.square(rendered.color.numpy() - truth).mean()) > 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_ball_is_recovered_on_a_gpu(ball_views):
    run = train(Training(GridNeuS(SHORT, ball_views, torch.device("cuda")), 0), SHORT.steps)
    lengths = np.linalg.norm(seen_points(run.method.shape()), axis=1)
    assert np.abs(lengths - RADIUS).mean() < 0.01 * RADIUS
