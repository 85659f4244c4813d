import numpy as np
import pytest
import torch

from multiview.visual_hull import cell_centres, visual_hull
from renderer.methods.hollows import carve_hollow
from renderer.methods.initial_shape import render_depth_maps
from renderer.methods.stereo import CameraTensors
from tests.renderer.traced import Shape, ball, traced_views

CPU = torch.device("cpu")
SIZE = 48


def block(points: np.ndarray) -> np.ndarray:
    """A cylinder of radius 0.4 and height 0.5."""
    return np.maximum(np.linalg.norm(points[..., :2], axis=-1) - 0.4, np.abs(points[..., 2]) - 0.25)


def cup(points: np.ndarray) -> np.ndarray:
    """The same with a hollow 0.35 deep; its far wall is up to 0.7 behind the hull."""
    inside = np.maximum(np.linalg.norm(points[..., :2], axis=-1) - 0.34, -0.1 - points[..., 2])
    return np.maximum(block(points), -inside)


def carved(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Hull before and after."""
    views = traced_views(shape, SIZE)
    hull = visual_hull(views.masks >= 0.5, views.cameras, 64)
    images = torch.from_numpy(views.images).movedim(-1, 1)
    tensors = CameraTensors.of(views.cameras, CPU)
    return hull, carve_hollow(
        hull,
        images,
        tensors,
        lambda sdf: torch.from_numpy(render_depth_maps(sdf, views.cameras, SIZE)),
    )


@pytest.mark.integration
def test_a_cup_is_hollowed_and_keeps_its_walls_and_bottom():
    hull, hollow = carved(cup)
    centres = cell_centres(64)
    low = np.abs(centres) < 0.2
    assert (hull[32, 32][low] < 0).all()
    assert (hollow[32, 32][low & (centres > -0.05)] > 0).all()
    assert (hollow[32, 32] < 0).any()
    assert (hollow >= hull).all()
    wall = hollow[:, 32, 37] < 0  # at height 0.1
    assert 2 <= wall.sum() <= 8  # two walls of a few cells


@pytest.mark.integration
@pytest.mark.parametrize("shape", [block, ball(0.4)])
def test_nothing_of_a_solid_is_carved(shape: Shape):
    _, hollow = carved(shape)
    centres = cell_centres(64)
    grid = np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), axis=-1)
    assert (hollow[shape(grid) < -0.04] < 0).all()
