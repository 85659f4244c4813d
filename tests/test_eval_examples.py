from __future__ import annotations

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy import spatial

from multiview.cameras import orbit_cameras
from tests.conftest import ROOT

EXAMPLES = ROOT / "eval_examples"
TRUE_VIEWS = EXAMPLES / "locomotive-gt"
TRUE_MESH = EXAMPLES / "locomotive-mesh" / "meshes" / "model.obj"
PREDICTION = EXAMPLES / "locomotive-pr"


def read_depth(view: int) -> np.ndarray:
    """Depth in world units; NaN where it is not valid."""
    depth = np.asarray(Image.open(TRUE_VIEWS / f"{view:03d}-depth.png")) / 65535 * 1.8 + 0.6
    return np.where((depth > 0.63) & (depth < 2.37), depth, np.nan)


@pytest.mark.parametrize(
    ("folder", "suffix", "mode"),
    [(TRUE_VIEWS, "", "RGBA"), (TRUE_VIEWS, "-depth", "I;16"), (PREDICTION, "", "RGB")],
)
def test_every_view_is_there_in_its_mode_and_size(folder, suffix, mode):
    for view in range(16):
        with Image.open(folder / f"{view:03d}{suffix}.png") as image:
            assert (image.mode, image.size) == (mode, (256, 256)), image.filename


def test_depth_maps_are_valid_where_the_views_are_opaque_and_nowhere_else():
    for view in range(16):
        opaque = np.asarray(Image.open(TRUE_VIEWS / f"{view:03d}.png"))[..., 3] > 127
        valid = np.isfinite(read_depth(view))
        assert (opaque & valid).sum() > 0.97 * (opaque | valid).sum(), view


def test_pixel_centres_lie_half_a_pixel_from_the_edges_of_the_image():
    """From the front the toy is its own mirror image about u = 128."""
    depth = read_depth(0)
    mirrored = depth[:, ::-1]
    assert (np.isfinite(depth) == np.isfinite(mirrored)).mean() > 0.998
    assert np.nanmedian(np.abs(depth - mirrored)) < 1e-4


@pytest.mark.parametrize("view", [0, 5])
def test_unprojected_depth_lies_on_the_true_mesh(view):
    points, _ = trimesh.sample.sample_surface(trimesh.load(TRUE_MESH), 200_000, seed=0)
    depth, cameras = read_depth(view), orbit_cameras(16)
    rows, columns = np.nonzero(np.isfinite(depth))
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
    in_camera = np.linalg.inv(cameras.intrinsics[view]) @ pixels * depth[rows, columns]
    pose = cameras.world_to_camera[view]
    in_world = (pose[:, :3].T @ (in_camera - pose[:, 3:])).T
    assert spatial.cKDTree(points).query(in_world)[0].mean() < 0.005


def test_the_true_mesh_is_centred_and_its_longest_side_is_1():
    low, high = trimesh.load(TRUE_MESH).bounds
    np.testing.assert_allclose(low + high, 0, atol=1e-4)
    np.testing.assert_allclose((high - low).max(), 1, atol=1e-4)


@pytest.mark.parametrize("path", [TRUE_MESH, PREDICTION / "mesh.ply"], ids=lambda path: path.name)
def test_meshes_are_closed_and_face_outwards(path):
    mesh = trimesh.load(path, force="mesh")
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert 0.1 < mesh.volume < 0.2


def test_the_stand_in_reconstruction_has_colours_and_is_close_to_the_truth_but_not_equal():
    mesh = trimesh.load(PREDICTION / "mesh.ply")
    assert mesh.visual.vertex_colors[:, :3].std(axis=0).min() > 10
    gap = np.abs(mesh.bounds - trimesh.load(TRUE_MESH).bounds)
    assert 0.001 < gap.max() < 0.05
