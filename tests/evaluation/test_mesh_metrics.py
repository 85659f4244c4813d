from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

trimesh = pytest.importorskip("trimesh", reason="needs requirements/eval.txt")
pytest.importorskip("mesh2sdf", reason="needs requirements/eval.txt")
pytest.importorskip("scipy", reason="needs requirements/eval.txt")

from evaluation.depth import depth_maps, depth_to_points, read_depth_maps, write_depth_map
from evaluation.mesh_metrics import (
    chamfer,
    evaluate_mesh,
    inside,
    normal_consistency,
    visible_points,
    volume_iou,
    voxel_down_sample,
)
from evaluation.meshes import GSO_ROTATIONS_DEG, gso_rotation, read_mesh, to_render_frame
from multiview.cameras import orbit_cameras
from tests.conftest import SHARED, needs_shared
from tests.evaluation.conftest import EXAMPLES, GPU

CPU = torch.device("cpu")
LOCOMOTIVE = (
    EXAMPLES / "locomotive-pr" / "mesh.ply",
    EXAMPLES / "locomotive-mesh" / "meshes" / "model.obj",
    EXAMPLES / "locomotive-gt",
)


def sphere(radius: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)):
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    mesh.apply_translation(centre)
    return mesh


def nearest_on(mesh, points: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    surface, _ = trimesh.sample.sample_surface(mesh, 400_000, seed=0)
    return cKDTree(surface).query(points)[0]


@pytest.mark.integration
def test_chamfer_and_iou_of_two_spheres_equal_the_published_evaluations():
    """The numbers are the published implementation's for these two meshes, see the goldens."""
    a, b = sphere(0.40), sphere(0.42, (0.03, -0.01, 0.02))
    found = chamfer(visible_points(a, CPU), visible_points(b, CPU))
    assert found == pytest.approx(0.02750222757458687, abs=1e-4)
    assert volume_iou(a, b) == pytest.approx(0.8369808384398405, abs=1e-6)
    assert (inside(a).sum(), inside(b).sum()) == (8733, 10153)


@pytest.mark.integration
def test_chamfer_is_the_mean_of_both_directions_and_iou_the_ratio_of_volumes():
    a = np.array([[0.0, 0, 0], [1, 0, 0]])
    b = np.array([[0.0, 0, 0.3]])
    there = (0.3 + np.sqrt(1 + 0.09)) / 2
    assert chamfer(a, b) == pytest.approx((there + 0.3) / 2)
    assert chamfer(a, b) == pytest.approx(chamfer(b, a))
    outer, inner = trimesh.creation.box((1.0, 1.0, 1.0)), trimesh.creation.box((0.5, 1.0, 1.0))
    assert volume_iou(outer, inner) == pytest.approx(0.5, abs=0.04)  # 1/32 wide samples
    assert volume_iou(outer, trimesh.creation.box((0.1,) * 3).apply_translation((3, 3, 3))) == 0


def test_normal_consistency_is_1_whatever_the_winding_and_the_cosine_of_a_tilt():
    plate = trimesh.creation.box((1.0, 1.0, 1e-3))
    tilted, points = plate.copy(), np.array([[0.1, 0, 0], [0, 0.2, 0], [-0.3, 0.1, 0]])
    turned = trimesh.transformations.rotation_matrix(np.radians(60), [1, 0, 0])
    tilted.apply_transform(turned)
    moved = points @ turned[:3, :3].T
    assert normal_consistency(plate, points, tilted, moved) == pytest.approx(0.5, abs=1e-6)
    flipped = plate.copy()
    flipped.invert()
    assert normal_consistency(plate, points, flipped, points) == pytest.approx(1)


def test_points_are_averaged_voxel_by_voxel():
    points = np.array([[0.0, 0, 0], [0.002, 0, 0], [0.02, 0, 0], [0.0, 0.5, 0]])
    down = voxel_down_sample(points, 0.01)
    assert sorted(map(tuple, down)) == [(0.0, 0.5, 0.0), (0.001, 0.0, 0.0), (0.02, 0.0, 0.0)]
    assert voxel_down_sample(np.empty((0, 3)), 0.01).shape == (0, 3)


@pytest.mark.integration
def test_visible_points_are_on_the_surface_and_a_mesh_compared_with_itself_is_perfect():
    mesh = sphere(0.4)
    points = visible_points(mesh, CPU)
    assert np.abs(np.linalg.norm(points, axis=1) - 0.4).mean() < 0.004
    assert (chamfer(points, points), volume_iou(mesh, mesh)) == (0, 1)


def test_the_chickens_depth_points_are_the_published_ones_and_on_its_mesh(
    chicken: Path, eval_goldens: dict[str, np.ndarray]
):
    depth, cameras = read_depth_maps(chicken / "chicken-gt", 16), orbit_cameras()
    seen = np.isfinite(depth)
    counts = eval_goldens["chicken_mask_pixels_per_view"]
    np.testing.assert_array_equal(seen.sum(axis=(1, 2)), counts)
    points = voxel_down_sample(depth_to_points(depth, seen, cameras), 0.01)
    assert len(points) == eval_goldens["chicken_down_point_count"]
    box = np.stack([points.min(axis=0), points.max(axis=0)])
    np.testing.assert_allclose(box, eval_goldens["chicken_down_bbox"], atol=1e-5)
    model = read_mesh(chicken / "chicken-mesh" / "meshes" / "model.obj")
    right = nearest_on(to_render_frame(model, gso_rotation("chicken")), points).mean()
    assert right < 0.005
    for other in (0, 90, 180):
        assert nearest_on(to_render_frame(model, other), points).mean() > 4 * right


@needs_shared
@pytest.mark.parametrize("name", ["alarm", "lion", "mario", "sofa", "teapot"])
def test_scanned_objects_in_their_render_frame_cover_their_renders(name: str):
    folder = SHARED / "data" / "gso" / name
    mesh = to_render_frame(read_mesh(folder / "model.obj"), gso_rotation(name))
    depth = depth_maps(mesh, orbit_cameras(), 256, CPU)
    for view in (3, 10):
        with Image.open(folder / f"{view:03d}.png") as image:
            alpha = np.asarray(image)[..., 3] > 127
        mask = np.isfinite(depth[view])
        assert (alpha & mask).sum() / (alpha | mask).sum() > 0.99


def example(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A sphere with a bump as the true mesh, a folder for its depth, and a prediction of it."""
    bump = trimesh.util.concatenate([sphere(0.4), sphere(0.15, (0.45, 0.0, 0.0))])
    bump.export(tmp_path / "true.obj")
    to_render_frame(bump, 30.0).export(tmp_path / "predicted.ply")
    (tmp_path / "gt").mkdir()
    return tmp_path / "predicted.ply", tmp_path / "true.obj", tmp_path / "gt"


@pytest.mark.integration
def test_without_depth_maps_they_are_made_from_the_true_mesh(tmp_path: Path, caplog):
    caplog.set_level("INFO")
    paths = example(tmp_path)
    scores = evaluate_mesh(*paths, 30.0, CPU)
    assert "has no depth maps" in caplog.text
    assert scores.chamfer < 1e-4
    assert scores.iou > 0.97
    assert scores.normals > 0.97
    assert evaluate_mesh(*paths, 210.0, CPU).chamfer > 0.01


@pytest.mark.integration
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_the_bundled_example_is_scored_and_its_wrong_rotation_noticed(device: str, caplog):
    scores = evaluate_mesh(*LOCOMOTIVE, 0.0, torch.device(device))
    assert 0.005 < scores.chamfer < 0.015
    assert 0.8 < scores.iou < 0.9
    assert "do not agree" not in caplog.text
    if device == "cuda":
        assert scores.chamfer == pytest.approx(evaluate_mesh(*LOCOMOTIVE, 0, CPU).chamfer, abs=1e-4)
    evaluate_mesh(*LOCOMOTIVE, 90.0, CPU)
    assert "do not agree: their silhouettes have an IoU of 0." in caplog.text
    assert 90.0 not in GSO_ROTATIONS_DEG.values()


def test_missing_packages_are_named_before_the_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "mesh2sdf", None)
    with pytest.raises(ModuleNotFoundError, match=r"the IoU needs .*requirements/eval\.txt"):
        evaluate_mesh(Path("no.ply"), Path("no.obj"), Path("nowhere"), 0.0, CPU)


@pytest.mark.integration
def test_an_open_true_mesh_is_warned_about(tmp_path: Path, caplog):
    predicted, true, depth = example(tmp_path)
    mesh = sphere(0.4)
    mesh.update_faces(np.arange(3, len(mesh.faces)))
    mesh.export(true)
    evaluate_mesh(predicted, true, depth, 0.0, CPU)
    assert "true.obj is not a closed manifold" in caplog.text


def test_a_mesh_that_no_camera_sees_and_depth_maps_of_nothing_are_errors(tmp_path: Path):
    predicted, true, folder = example(tmp_path)
    sphere(0.1, (0.0, 0.0, 50.0)).export(tmp_path / "away.ply")
    with pytest.raises(ValueError, match=r"away\.ply: .*not visible"):
        evaluate_mesh(tmp_path / "away.ply", true, folder, 0.0, CPU)
    for k in range(16):
        write_depth_map(folder / f"{k:03d}-depth.png", np.full((16, 16), np.inf))
    with pytest.raises(ValueError, match="only background"):
        evaluate_mesh(predicted, true, folder, 0.0, CPU)
