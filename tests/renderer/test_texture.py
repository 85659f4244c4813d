from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from multiview.cameras import Cameras, orbit_cameras
from renderer.mesh import with_vertex_colors
from renderer.texture import bake, sample_vertex_colors, write_glb
from renderer.video import render

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("xatlas")

SIZE = 128
RING = orbit_cameras(16, image_size=SIZE)
X = (0.25, -0.25)
SIDES = np.array(
    [[0.8, 0.2, 0.2], [0.2, 0.7, 0.3], [0.2, 0.3, 0.8], [0.7, 0.7, 0.2], [0.3, 0.7, 0.7]]
)
"""Colours of the sides +x, +y, -x, -y and of the top; the bottom is pink in no view."""


def photos(mesh, cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Views on white, (N, S, S, 3), and masks (N, S, S)."""
    images = np.stack(list(render(mesh, cameras, SIZE)))
    return images[..., :3], images[..., 3] > 0.5


@cache
def cube():
    """A cube without colours, its colourful twin with parted sides, and the side of each face."""
    box = trimesh.creation.box((0.7, 0.7, 0.7)).subdivide().subdivide().subdivide()
    directions = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    side = (box.face_normals @ directions.T).argmax(axis=1)
    colors = np.concatenate([SIDES, [[1.0, 0.0, 1.0]]])[side]
    corners = np.asarray(box.vertices)[box.faces].reshape(-1, 3)
    parted = trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False)
    return box, with_vertex_colors(parted, np.repeat(colors, 3, axis=0)), side


@cache
def baked_cube():
    box, colorful, _ = cube()
    return bake(box, *photos(colorful, RING), RING, size=256)


def test_a_cube_gets_the_colours_of_its_sides_back():
    _, colorful, _ = cube()
    for elevation in (85, 30, 5):  # degrees
        cameras = orbit_cameras(8, elevation_deg=elevation, image_size=SIZE)
        expected, masks = photos(colorful, cameras)
        actual, _ = photos(baked_cube(), cameras)
        off = np.abs(actual - expected).max(axis=-1)
        inner = np.stack([ndimage.binary_erosion(mask, iterations=2) for mask in masks])
        assert np.median(off[inner]) < 0.01
        assert (off[inner] > 0.1).mean() < 0.05  # at the edges of the cube, which views blur


def test_the_bottom_that_no_view_sees_takes_the_colours_around_it():
    cameras = orbit_cameras(1, elevation_deg=-90, image_size=SIZE)
    views, masks = photos(baked_cube(), cameras)
    bottom = views[0][ndimage.binary_erosion(masks[0], iterations=2)]
    low, high = SIDES[:4].min(axis=0), SIDES[:4].max(axis=0)
    assert (bottom > low - 0.02).all()
    assert (bottom < high + 0.02).all()
    centre = views[0, SIZE // 2, SIZE // 2]
    np.testing.assert_allclose(centre, SIDES[:4].mean(axis=0), atol=0.1)


def test_no_texel_is_black_or_white_not_even_between_the_charts():
    texels = np.asarray(baked_cube().visual.material.baseColorTexture) / 255
    assert texels.shape == (256, 256, 3)
    assert texels.min() > SIDES.min() - 0.03
    assert texels.max() < SIDES.max() + 0.03


def test_vertices_get_the_colours_of_their_sides():
    box, colorful, side = cube()
    colors = sample_vertex_colors(box, *photos(colorful, RING), RING)
    on_edges = (np.abs(box.vertices) > 0.349).sum(axis=1) > 1
    corners, sides = box.faces.reshape(-1), np.repeat(side, 3)
    chosen = ~on_edges[corners] & (sides < 5)
    np.testing.assert_allclose(colors[corners[chosen]], SIDES[sides[chosen]], atol=0.03)


def test_the_white_background_leaves_no_halo_where_masks_are_a_pixel_too_large():
    ball = trimesh.creation.icosphere(4, radius=0.4)
    dark = np.tile([0.2, 0.15, 0.1], (len(ball.vertices), 1))
    views, masks = photos(with_vertex_colors(ball, dark), RING)
    masks = np.stack([ndimage.binary_dilation(mask) for mask in masks])
    np.testing.assert_allclose(sample_vertex_colors(ball, views, masks, RING), dark, atol=0.02)


@cache
def two_balls():
    """A red and a blue ball, the colours of their vertices, and views of them with masks."""
    parts = [trimesh.creation.icosphere(4, radius=0.2).apply_translation([x, 0, 0]) for x in X]
    colors = np.repeat([[0.8, 0.2, 0.2], [0.2, 0.2, 0.8]], len(parts[0].vertices), axis=0)
    balls = trimesh.util.concatenate(parts)
    return balls, colors, *photos(with_vertex_colors(balls, colors), RING)


def test_what_hides_another_part_does_not_colour_it():
    balls, colors, *_ = two_balls()
    cameras = orbit_cameras(16, elevation_deg=0, image_size=SIZE)
    views, _ = photos(with_vertex_colors(balls, colors), cameras)
    np.testing.assert_allclose(sample_vertex_colors(balls, views, None, cameras), colors, atol=0.05)


def test_one_view_of_sixteen_that_shows_something_else_is_outvoted():
    balls, colors, views, masks = two_balls()
    views = views.copy()
    views[5][masks[5]] = [0.1, 0.9, 0.1]
    off = np.abs(sample_vertex_colors(balls, views, masks, RING) - colors).max(axis=1)
    assert (off > 0.1).mean() < 0.02  # 1 in 16 without the vote


@pytest.mark.integration
def test_detail_stays_sharp_where_views_do_not_match_exactly():
    """48 stripes around a ball, half a period away in every second view, as generated views do."""
    ball = trimesh.creation.icosphere(6, radius=0.4)
    azimuths = np.arctan2(ball.vertices[:, 1], ball.vertices[:, 0])
    kinds = [0.5 + 0.3 * np.sin(48 * azimuths + shift) for shift in (0, np.pi)]
    (views, masks), (moved, _) = (
        photos(with_vertex_colors(ball, np.tile(kind[:, None], 3)), RING) for kind in kinds
    )
    frontal = np.abs(ball.vertices[:, 2] - 0.15) < 0.1
    exact = sample_vertex_colors(ball, views, masks, RING)[frontal, 0]
    views[1::2] = moved[1::2]
    assert sample_vertex_colors(ball, views, masks, RING)[frontal, 0].std() > 0.6 * exact.std()


def test_a_part_that_no_view_shows_takes_the_mean_colour_and_empty_masks_do_no_harm():
    balls, colors, views, masks = two_balls()
    half = len(colors) // 2
    blue_is_unseen = sample_vertex_colors(balls, views, masks & (views[..., 0] > 0.5), RING)
    np.testing.assert_allclose(blue_is_unseen[half:], colors[:half], atol=0.05)
    nothing = sample_vertex_colors(balls, views, np.zeros_like(masks), RING)
    np.testing.assert_allclose(nothing, 0.5, atol=1e-6)
    with pytest.raises(ValueError, match="16 cameras, got views"):
        sample_vertex_colors(balls, np.ones((4, SIZE, SIZE, 3)), None, RING)


def test_a_glb_holds_the_mesh_with_y_up_and_its_texture(tmp_path):
    mesh = baked_cube()
    write_glb(tmp_path / "mesh.glb", mesh)
    assert [path.name for path in tmp_path.iterdir()] == ["mesh.glb"]
    content = (tmp_path / "mesh.glb").read_bytes()
    length = int.from_bytes(content[12:16], "little")
    gltf = json.loads(content[20 : 20 + length])
    assert all("uri" not in item for item in gltf["buffers"] + gltf["images"])
    (material,) = gltf["materials"]
    matte = {"metallicFactor": 0, "roughnessFactor": 0.9}
    assert material["pbrMetallicRoughness"].items() >= matte.items()
    assert not material.get("doubleSided", False)
    assert "NORMAL" in gltf["meshes"][0]["primitives"][0]["attributes"]

    read = trimesh.load(tmp_path / "mesh.glb", force="mesh", process=False)
    x, y, z = read.vertices.T
    np.testing.assert_allclose(np.stack([x, -z, y], axis=1), mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(read.faces, mesh.faces)
    np.testing.assert_allclose(read.visual.uv, mesh.visual.uv, atol=1e-6)
    np.testing.assert_array_equal(
        np.asarray(read.visual.material.baseColorTexture),
        np.asarray(mesh.visual.material.baseColorTexture),
    )
