from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

trimesh = pytest.importorskip("trimesh", reason="needs requirements/eval.txt")

from evaluation import ground_truth
from evaluation.depth import (
    clip_coordinates,
    depth_maps,
    depth_to_points,
    read_depth_maps,
    write_depth_map,
)
from evaluation.meshes import read_mesh
from multiview.cameras import Cameras, orbit_cameras
from tests.evaluation.conftest import GPU

CPU = torch.device("cpu")


def sphere_depth(cameras: Cameras, size: int, centre: np.ndarray, radius: float) -> np.ndarray:
    """Closed form of the camera-z depth of a sphere, at the middle of the pixels."""
    ends = np.arange(size) + 0.5
    pixels = np.stack([*np.meshgrid(ends, ends), np.ones((size, size))], axis=-1)
    maps = []
    for intrinsics, pose in zip(cameras.intrinsics, cameras.world_to_camera, strict=True):
        rays = pixels @ np.linalg.inv(intrinsics).T  # camera-z 1
        c = pose[:, :3] @ centre + pose[:, 3]
        a, b = (rays**2).sum(-1), rays @ c
        root = b**2 - a * (c @ c - radius**2)
        maps.append(np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf))
    return np.stack(maps)


@pytest.mark.parametrize(
    ("device", "size"),
    [("cpu", 128), *(pytest.param("cuda", size, marks=GPU) for size in (128, 100))],
)  # fmt: skip
def test_the_depth_of_an_analytic_sphere_is_found(device: str, size: int):
    centre, radius = np.array([0.1, -0.05, 0.2]), 0.3
    sphere = trimesh.creation.icosphere(subdivisions=6, radius=radius)
    sphere.apply_translation(centre)
    cameras = orbit_cameras(4, image_size=size)
    depth = depth_maps(sphere, cameras, size, torch.device(device))
    expected = sphere_depth(cameras, size, centre, radius)
    seen, should = np.isfinite(depth), np.isfinite(expected)
    assert (seen != should).mean() < 2e-4  # the polyhedron is inside the sphere by 4e-5
    both = seen & should
    error = np.abs(depth[both] - expected[both])
    assert error.mean() < 2e-4
    assert np.median(error) < 5e-5


def test_clip_coordinates_put_pixel_centres_where_a_rasteriser_samples():
    """Row 0 and column 0 of a rasteriser are at y and x of -1 + 1 / size."""
    size, depth = 8, 1.5
    centre_of_first = torch.tensor([[0.5 * depth, 0.5 * depth, depth]])
    x, y, z, w = clip_coordinates(centre_of_first, size)[0].tolist()
    assert (x / w, y / w) == pytest.approx((-1 + 1 / size, -1 + 1 / size))
    assert -1 < z / w < 1
    nearer, farther = clip_coordinates(torch.tensor([[0, 0, 0.7], [0.0, 0.0, 2.3]]), size)
    assert nearer[2] / nearer[3] < farther[2] / farther[3]
    beside = clip_coordinates(torch.tensor([[7.5 * depth, 2.5 * depth, depth]]), size)[0] / w
    assert beside[:2].tolist() == pytest.approx([1 - 1 / size, -1 + 5 / size])


def test_both_sides_of_a_face_are_seen_and_the_nearest_wins():
    square = np.array([[-0.4, -0.4], [0.4, -0.4], [0.4, 0.4], [-0.4, 0.4]])
    vertices = np.concatenate([np.insert(square, 0, x, axis=1) for x in (-0.3, 0.2)])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 6, 5], [4, 7, 6]])
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    cameras = orbit_cameras(2, elevation_deg=0.0, image_size=32)  # from +x and from -x
    depth = depth_maps(mesh, cameras, 32, CPU)[:, 16, 16]
    np.testing.assert_allclose(depth, [1.5 - 0.2, 1.5 - 0.3], atol=1e-9)


def test_points_of_depth_maps_project_back_to_their_pixels():
    cameras = orbit_cameras(3, image_size=16)
    depth = np.full((3, 16, 16), np.inf)
    depth[1, 4, 9], depth[2, 15, 0] = 1.4, 1.6
    points = depth_to_points(depth, np.isfinite(depth), cameras)
    for view, point, (u, v) in ((1, points[0], (9, 4)), (2, points[1], (0, 15))):
        pose = cameras.world_to_camera[view]
        pixel = cameras.intrinsics[view] @ (pose[:, :3] @ point + pose[:, 3])
        np.testing.assert_allclose(pixel / pixel[2], [u, v, 1], atol=1e-9)
        assert pixel[2] == pytest.approx(depth[view, v, u])


def test_depth_maps_survive_their_pngs_and_others_are_background(
    tmp_path: Path,
):
    depth = np.full((16, 8, 8), np.inf)
    depth[:, 2:5, 3:] = np.random.default_rng(0).uniform(0.64, 2.36, size=(16, 3, 5))
    for k, view in enumerate(depth):
        write_depth_map(tmp_path / f"{k:03d}-depth.png", view)
    read = read_depth_maps(tmp_path, 16)
    np.testing.assert_array_equal(np.isfinite(read), np.isfinite(depth))
    seen = np.isfinite(depth)
    np.testing.assert_allclose(read[seen], depth[seen], atol=0.5 * 1.8 / 65535 + 1e-9)
    levels = np.array([[0, 1000, 1200], [30000, 64400, 64600], [65535, 65000, 40000]])
    for k in range(16):
        Image.fromarray(levels.astype(np.uint16)).save(tmp_path / f"{k:03d}-depth.png")
    read = read_depth_maps(tmp_path, 16)
    depth = levels / 65535 * 1.8 + 0.6
    np.testing.assert_array_equal(np.isfinite(read[0]), (depth > 0.63) & (depth < 2.37))


def test_no_depth_maps_are_none_some_are_an_error_and_wrong_ones_are_named(tmp_path: Path):
    assert read_depth_maps(tmp_path, 16) is None
    for k in range(15):
        write_depth_map(tmp_path / f"{k:03d}-depth.png", np.ones((8, 8)))
    with pytest.raises(FileNotFoundError, match=r"missing: 015-depth\.png"):
        read_depth_maps(tmp_path, 16)
    last = tmp_path / "015-depth.png"
    for image, message in (
        (Image.new("L", (8, 8)), "mode L"),
        (Image.fromarray(np.zeros((8, 9), np.uint16)), "9 x 8 pixels, expected a square"),
        (Image.fromarray(np.zeros((4, 4), np.uint16)), "4 x 4 pixels, but the first"),
    ):
        image.save(last)
        with pytest.raises(ValueError, match=message) as caught:
            read_depth_maps(tmp_path, 16)
        assert "015-depth.png" in str(caught.value)
    last.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"015-depth\.png: not a depth map"):
        read_depth_maps(tmp_path, 16)


def test_the_chickens_depth_is_made_again_from_its_mesh(chicken: Path, tmp_path: Path):
    model = chicken / "chicken-mesh" / "meshes" / "model.obj"
    ground_truth.main(["--mesh", str(model), "--name", "chicken", "--out", str(tmp_path)])
    with pytest.raises(FileExistsError, match=r"true_mesh\.ply"):
        ground_truth.main(["--mesh", str(model), "--name", "chicken", "--out", str(tmp_path)])
    made, true = read_depth_maps(tmp_path, 16), read_depth_maps(chicken / "chicken-gt", 16)
    np.testing.assert_array_equal(np.isfinite(made), np.isfinite(true))
    seen = np.isfinite(true)
    assert np.abs(made[seen] - true[seen]).mean() < 1e-4
    np.testing.assert_allclose(np.ptp(read_mesh(tmp_path / "true_mesh.ply").bounds[:, 2]), 1.0)
