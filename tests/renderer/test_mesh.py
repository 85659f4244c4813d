from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from multiview.cameras import orbit_cameras
from multiview.rasterise import rasterise, rasterise_mesh
from renderer import mesh as meshes
from renderer.hygiene import measure_hygiene, without_debris
from renderer.mesh import extract, remove_floaters, simplify, smooth, with_vertex_colors

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("skimage")

VOXELS = 48
FIRST, SPACING = -0.6 + 0.6 / VOXELS, 1.2 / VOXELS


AXIS = FIRST + SPACING * np.arange(VOXELS)
GRID = np.stack(np.meshgrid(AXIS, AXIS, AXIS, indexing="ij"), axis=-1)


def ball(radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """Signed distances to a ball in the middle of the cells of the cube, (V, V, V)."""
    return np.linalg.norm(GRID - centre, axis=-1) - radius


def test_a_ball_becomes_a_closed_mesh_of_its_volume_area_and_place():
    mesh = extract(ball(0.3, (0.1, 0.0, -0.2)), FIRST, SPACING)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    np.testing.assert_allclose(mesh.volume, 4 / 3 * np.pi * 0.3**3, rtol=0.01)
    np.testing.assert_allclose(mesh.area, 4 * np.pi * 0.3**2, rtol=0.01)
    np.testing.assert_allclose(mesh.center_mass, [0.1, 0.0, -0.2], atol=1e-3)


def test_a_surface_on_samples_or_out_of_the_grid_has_no_holes_and_no_doubled_points():
    mesh = extract(np.abs(GRID).max(axis=-1) - AXIS[-10], FIRST, SPACING)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).is_watertight  # merges equal vertices
    np.testing.assert_allclose(mesh.volume, (2 * AXIS[-10]) ** 3, rtol=0.01)
    cut_off = extract(ball(0.7), FIRST, SPACING)
    assert cut_off.is_watertight
    assert np.abs(cut_off.bounds).max() <= 0.6 + SPACING


def test_distances_without_a_surface_are_refused():
    with pytest.raises(ValueError, match="negative nowhere"):
        extract(np.ones((8, 8, 8)), FIRST, SPACING)
    with pytest.raises(ValueError, match="nan"):
        extract(np.full((8, 8, 8), np.nan), FIRST, SPACING)


def roughness(mesh) -> float:
    """Mean angle between the normals of neighbouring faces, degrees."""
    return float(np.degrees(mesh.face_adjacency_angles).mean())


def test_pits_are_smoothed_and_the_shape_stays():
    noise = np.random.default_rng(0).normal(0, 0.2 * SPACING, ball(0.3).shape)
    pitted = extract(ball(0.3) + noise, FIRST, SPACING)
    smoothed = smooth(pitted, SPACING)
    assert roughness(smoothed) < 0.5 * roughness(pitted)
    assert smoothed.is_watertight
    np.testing.assert_allclose(smoothed.volume, pitted.volume, rtol=0.005)
    np.testing.assert_array_equal(smoothed.faces, pitted.faces)
    radii = [np.linalg.norm(mesh.vertices, axis=1) - 0.3 for mesh in (smoothed, pitted)]
    assert np.abs(radii[0]).mean() < 0.6 * np.abs(radii[1]).mean()


def test_a_thin_bar_is_not_shrunk_by_more_than_the_reach():
    bar = extract(
        np.maximum(np.linalg.norm(GRID[..., :2], axis=-1) - SPACING, np.abs(GRID[..., 2]) - 0.4),
        FIRST,
        SPACING,
    )
    smoothed = smooth(bar, 0.2 * SPACING, 100)
    moved = np.linalg.norm(smoothed.vertices - bar.vertices, axis=1)
    assert moved.max() <= 0.2 * SPACING + 1e-12
    assert smoothed.volume > 0.7 * bar.volume


def test_floating_pieces_and_cavities_go_and_large_pieces_stay():
    solids = [ball(0.1, (0.4, 0, 0)), ball(0.05, (0.4, 0.4, 0)), ball(0.1, (-0.2, 0, 0))]
    shell = np.maximum(ball(0.3, (-0.2, 0, 0)), -ball(0.2, (-0.2, 0, 0)))
    mesh = remove_floaters(extract(np.minimum.reduce([shell, *solids]), FIRST, SPACING))
    assert mesh.is_watertight
    assert mesh.body_count == 2
    np.testing.assert_allclose(mesh.volume, 4 / 3 * np.pi * (0.3**3 + 0.1**3), rtol=0.02)


def test_a_mesh_that_is_inside_out_has_no_pieces_to_keep():
    mesh = extract(ball(0.3), FIRST, SPACING)
    mesh.invert()
    with pytest.raises(ValueError, match="positive volume"):
        remove_floaters(mesh)


@pytest.mark.parametrize("faces", [500, 2000, 8000])
def test_a_simplified_mesh_has_few_faces_and_stays_closed(faces: int):
    pytest.importorskip("fast_simplification")
    waves = np.sin(25 * ball(0.0, (0.3, 0.1, 0))) * np.cos(30 * ball(0.0, (0, 1, 0)))
    mesh = remove_floaters(extract(ball(0.4) + 0.15 * waves, FIRST, SPACING))
    simpler = simplify(mesh, faces)
    assert len(mesh.faces) > 8000
    assert faces / 2 < len(simpler.faces) <= faces
    assert simpler.is_watertight
    np.testing.assert_allclose(simpler.volume, mesh.volume, rtol=0.05 if faces < 1000 else 0.01)
    assert simplify(mesh, len(mesh.faces)) is mesh


def test_a_mesh_that_breaks_when_simplified_is_simplified_all_the_same(monkeypatch, caplog):
    fast = pytest.importorskip("fast_simplification")
    mesh, real, targets = extract(ball(0.3), FIRST, SPACING), fast.simplify, []

    def torn(points, faces, target_count, agg):
        targets.append(target_count)
        vertices, kept = real(points, faces, target_count=target_count, agg=agg)
        return vertices, kept[1:]

    monkeypatch.setattr(fast, "simplify", torn)
    simpler = simplify(mesh, 500)
    assert 400 < len(simpler.faces) < 600
    assert len(targets) < 10
    assert max(targets) == 500
    assert "cracks" in caplog.text


def test_a_ply_is_binary_and_keeps_the_colours_of_the_vertices(tmp_path):
    mesh = extract(ball(0.3), FIRST, SPACING)
    colors = np.random.default_rng(0).uniform(-0.1, 1.1, (len(mesh.vertices), 3))
    meshes.write_ply(tmp_path / "mesh.ply", with_vertex_colors(mesh, colors))
    assert [path.name for path in tmp_path.iterdir()] == ["mesh.ply"]
    header = (tmp_path / "mesh.ply").read_bytes().split(b"end_header")[0].decode()
    assert "format binary_little_endian" in header
    assert "property uchar red" in header
    read = trimesh.load(tmp_path / "mesh.ply", process=False)
    np.testing.assert_allclose(read.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(read.faces, mesh.faces)
    expected = np.round(np.clip(colors, 0, 1) * 255)
    np.testing.assert_array_equal(read.visual.vertex_colors[:, :3], expected)


def test_triangles_cover_exactly_the_pixel_centres_inside_them():
    corners = np.array([[[0.6, 0.6], [6.4, 0.6], [0.6, 6.4]]])
    fragments = rasterise(corners, 8)
    rows, columns = np.divmod(np.arange(64), 8)
    x, y = columns + 0.5, rows + 0.5
    expected = np.flatnonzero((x >= 0.6) & (y >= 0.6) & (x + y <= 7))
    np.testing.assert_array_equal(np.sort(fragments.pixels), expected)
    centres = fragments.interpolate(corners[0], np.array([[0, 1, 2]]))
    np.testing.assert_allclose(centres[:, 0], x[fragments.pixels], atol=1e-9)
    np.testing.assert_allclose(centres[:, 1], y[fragments.pixels], atol=1e-9)


def test_many_triangles_of_all_shapes_cover_what_a_test_of_every_pixel_says():
    """Also slivers, and triangles partly or wholly outside of the image."""
    generator = np.random.default_rng(0)
    corners = generator.uniform(-4, 20, (60, 1, 2)) + generator.uniform(-6, 6, (60, 3, 2))
    corners[::4, 2] = corners[::4, :2].mean(axis=1) + 0.05
    corners[1, :, 1] = [3.5, 3.5, 9.5]  # an edge along pixel centres
    rows, columns = np.divmod(np.arange(256), 16)
    centres = np.stack([columns + 0.5, rows + 0.5, np.ones(256)])
    homogeneous = np.concatenate([corners, np.ones((60, 3, 1))], axis=2)
    weights = np.linalg.inv(homogeneous.swapaxes(1, 2)) @ centres  # (F, 3, pixels)
    expected = np.argwhere((weights > -1e-9).all(axis=1))
    fragments = rasterise(corners, 16)
    found = np.stack([fragments.faces, fragments.pixels], axis=1)
    np.testing.assert_array_equal(found[np.lexsort(found.T[::-1])], expected)
    own = weights[fragments.faces, :, fragments.pixels]
    np.testing.assert_allclose(fragments.weights, own, atol=1e-8)


def test_a_camera_sees_the_near_side_of_a_ball_at_the_depth_of_its_rays():
    ball_mesh = trimesh.creation.icosphere(5, radius=0.5)
    cameras = orbit_cameras(4, image_size=64)
    intrinsics, pose = cameras.intrinsics[1], cameras.world_to_camera[1]
    seen = rasterise_mesh(ball_mesh, intrinsics, pose, 64)
    rows, columns = np.divmod(seen.pixels, 64)
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], axis=1)
    rays = pixels @ np.linalg.inv(intrinsics).T
    a, b = (rays**2).sum(axis=1), rays[:, 2] * 1.5
    expected = (b - np.sqrt(np.maximum(b**2 - a * (1.5**2 - 0.5**2), 0))) / a
    inner = b**2 - a * 2 > 0.05
    np.testing.assert_allclose(seen.depth[inner], expected[inner], atol=2e-3)
    assert len(np.unique(seen.pixels)) == len(seen.pixels)
    points = seen.interpolate(np.asarray(ball_mesh.vertices), ball_mesh.faces)
    np.testing.assert_allclose((points @ pose[:, :3].T + pose[:, 3])[:, 2], seen.depth, atol=1e-9)
    front = rasterise_mesh(ball_mesh, intrinsics, pose, 64, one_sided=True)
    np.testing.assert_array_equal(front.pixels[np.argsort(front.pixels)], np.sort(seen.pixels))
    np.testing.assert_array_equal(np.unique(front.faces), np.unique(seen.faces))
    # Faces behind the camera, and those without area or outside of the image, are not seen
    behind = ball_mesh.copy().apply_translation(-2 * pose[:, :3].T @ pose[:, 3])
    both = trimesh.util.concatenate([ball_mesh, behind])
    assert np.array_equal(rasterise_mesh(both, intrinsics, pose, 64).faces, seen.faces)
    unseen = np.array([[[1, 1], [3, 3], [5, 5]], [[-9, 2], [-2, 2], [-5, 6]]], dtype=float)
    assert len(rasterise(unseen, 8).pixels) == 0


def test_an_image_sampled_in_the_middle_of_its_pixels_gives_the_pixels():
    image = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0))
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    places = torch.stack([columns, rows], dim=-1).reshape(-1, 2)
    sampled = meshes.sample_bilinear(image, (places + 0.5) / 5 * 2 - 1)
    torch.testing.assert_close(sampled.T.reshape(3, 5, 5), image)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    with pytest.raises(ImportError, match=r"fast_simplification.*requirements\.txt"):
        simplify(extract(ball(0.3), FIRST, SPACING), 100)


def test_debris_goes_and_what_is_small_but_no_debris_stays():
    ball, crumb, handle = (trimesh.creation.icosphere(2, radius) for radius in (1.0, 0.05, 0.2))
    crumb.apply_translation((2, 0, 0))
    handle.apply_translation((0, 2, 0))
    cleaned = without_debris(trimesh.util.concatenate([ball, crumb, handle]))
    assert cleaned.volume == pytest.approx(ball.volume + handle.volume)
    assert measure_hygiene(cleaned)["parts"] == 2
    assert measure_hygiene(cleaned)["clean"]
