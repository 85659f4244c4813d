import numpy as np
import pytest
import torch

from multiview.cameras import orbit_cameras
from multiview.visual_hull import cell_centres, close_underside, visual_hull
from renderer.mesh import extract, remove_floaters
from renderer.methods.initial_shape import estimate_initial_shape, render_depth_maps
from tests.renderer.traced import ball, bowl, traced_views

CPU = torch.device("cpu")
RESOLUTION = 48


@pytest.fixture(scope="module")
def carved_bowl():
    views = traced_views(bowl, 64)
    return estimate_initial_shape(views.images, views.masks, views.cameras, RESOLUTION, CPU)


def points_of(sdf: np.ndarray) -> np.ndarray:
    centres = cell_centres(len(sdf))
    mesh = extract(sdf, centres[0], centres[1] - centres[0])
    return np.asarray(remove_floaters(mesh).vertices)


def in_the_hollow(points: np.ndarray) -> np.ndarray:
    """Points above the hollow or on it."""
    return (np.linalg.norm(points[:, :2], axis=1) < 0.2) & (points[:, 2] > 0)


@pytest.mark.integration
def test_a_hollow_that_no_silhouette_shows_is_carved(carved_bowl):
    views = traced_views(bowl, 64)
    silhouettes = visual_hull(views.masks > 0.5, views.cameras, RESOLUTION, 0.0)
    hull = points_of(close_underside(silhouettes, views.cameras))
    carved = points_of(carved_bowl.sdf)
    before = bowl(hull[in_the_hollow(hull)]).mean()
    after = np.abs(bowl(carved[in_the_hollow(carved)])).mean()
    assert before > 0.05
    assert after < before / 3


def test_nothing_is_added_to_the_hull(carved_bowl):
    assert (carved_bowl.sdf >= carved_bowl.hull).all()
    assert carved_bowl.sdf.dtype == carved_bowl.hull.dtype == np.float32


@pytest.mark.integration
def test_a_convex_shape_stays_as_it_is():
    views = traced_views(ball(0.4), 64)
    carved = estimate_initial_shape(views.images, views.masks, views.cameras, RESOLUTION, CPU)
    points = points_of(carved.sdf)
    seen = points[points[:, 2] > -0.2]
    assert np.abs(ball(0.4)(seen)).mean() < 0.004  # a hundredth of the radius
    assert carved.confirmed > 0.95


@pytest.mark.integration
def test_views_that_show_nothing_alike_leave_the_hull():
    views = traced_views(ball(0.4), 48)
    noise = np.random.default_rng(0).random(views.images.shape, dtype=np.float32)
    images = np.where(views.masks[..., None] > 0.5, noise, 1.0).astype(np.float32)
    carved = estimate_initial_shape(images, views.masks, views.cameras, RESOLUTION, CPU)
    assert carved.confirmed < 0.5
    np.testing.assert_array_equal(carved.sdf, carved.hull)


def test_depth_maps_are_those_of_a_ball():
    centres = cell_centres(64)
    grid = np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), axis=-1)
    cameras = orbit_cameras(16, image_size=33)
    maps = render_depth_maps(ball(0.4)(grid).astype(np.float32), cameras, 33)
    assert maps.shape == (16, 33, 33)
    np.testing.assert_allclose(maps[:, 16, 16], 1.5 - 0.4, atol=2e-3)
    assert np.isinf(maps[:, 0, 0]).all()


def test_masks_without_a_common_volume_are_refused():
    views = traced_views(ball(0.4), 32)
    masks = np.zeros_like(views.masks)
    masks[::2, :8], masks[1::2, -8:] = 1, 1
    with pytest.raises(ValueError, match="no volume in common"):
        estimate_initial_shape(views.images, masks, views.cameras, 24, CPU)
