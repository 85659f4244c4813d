from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

pytest.importorskip("manifold3d")

from demo.toys import profiles
from demo.toys.make_toys import FAMILIES, ground_truth_mesh, main, make_toy, write_toy
from demo.toys.paint import Paint, make_texture, texture_coordinates
from demo.toys.patterns import checks, noise, vertical_stripes
from demo.toys.solids import (
    Solid,
    box,
    cylinder,
    difference,
    lathe,
    loft,
    sphere,
    to_manifold,
    torus,
    translated,
    tube,
    union,
)
from demo.toys.toy_builder import ToyBuilder, textured_mesh
from evaluation.meshes import count_open_edges
from tests.conftest import ROOT

Y_UP_TO_Z_UP = trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0])


def digest(seed: int) -> str:
    """Hash of everything that a renderer sees."""
    found = hashlib.sha256()
    for name, part in make_toy(seed).geometry.items():
        found.update(name.encode())
        found.update(np.round(part.vertices, 6).tobytes() + part.faces.tobytes())
        found.update(np.round(part.visual.uv, 6).tobytes())
        found.update(np.asarray(part.visual.material.baseColorTexture).tobytes())
    return found.hexdigest()


def volume(solid: Solid) -> float:
    return float(trimesh.Trimesh(*solid, process=False).volume)


@pytest.mark.integration
def test_a_seed_gives_the_same_toy_in_every_process_and_another_one_another_toy():
    seeds = range(5)
    here = [digest(seed) for seed in seeds]
    assert len(set(here)) == len(here)
    program = (
        "from tests.demo.toys.test_toys import digest\n"
        f"print('\\n'.join(digest(seed) for seed in reversed({seeds!r})))"
    )
    command, other = [sys.executable, "-c", program], {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=other)
    assert done.stdout.split()[::-1] == here, done.stderr


def test_the_seed_determines_the_family_and_unknown_ones_are_refused():
    families = {make_toy(seed).metadata["family"] for seed in range(60)}
    assert len(families) > 0.4 * len(FAMILIES)
    assert families <= set(FAMILIES)
    with pytest.raises(ValueError, match="-1"):
        make_toy(-1)
    with pytest.raises(ValueError, match=r"'dragon'.* assembly"):
        make_toy(0, "dragon")


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_closed_textured_and_in_their_place_and_their_union_is_closed(family: str):
    for seed in range(3):
        scene = make_toy(seed, family)
        parts = list(scene.geometry.values())
        assert sum(len(part.faces) for part in parts) < 20_000
        low, high = scene.bounds
        np.testing.assert_allclose([low[2], *(low + high)[:2]], 0, atol=1e-9)
        assert (high - low).min() > 0.1 * (high - low).max()
        for part in parts:
            assert count_open_edges(part) == 0
            assert part.volume > 0
            assert part.visual.uv.shape == (len(part.vertices), 2)
            assert part.visual.uv.min() >= 0
            assert part.visual.uv.max() <= 1
            image = part.visual.material.baseColorTexture
            assert image.mode == "RGB"
            assert max(image.size) <= 256
            np.testing.assert_allclose(np.linalg.norm(part.vertex_normals, axis=1), 1, atol=1e-6)
            agree = part.vertex_normals[part.faces] * part.face_normals[:, None]
            assert np.median(agree.sum(axis=-1)) > 0.8
    shape = ground_truth_mesh(scene)  # one closed surface
    assert count_open_edges(shape) == 0
    np.testing.assert_allclose(shape.bounds, scene.bounds, atol=1e-6)
    volumes = [part.volume for part in parts]
    assert 0.999 * max(volumes) < shape.volume < 1.001 * sum(volumes)


def test_the_ground_truth_mesh_counts_overlaps_once_and_refuses_a_part_with_a_hole():
    toy = ToyBuilder(np.random.default_rng(0))
    toy.add(box(1, 1, 1, 0), (1.0, 0.0, 0.0), (0, 0, 0), (0.5, 0, 0))
    assert ground_truth_mesh(toy.scene()).volume == pytest.approx(1.5, abs=5e-3)
    scene = make_toy(0, "snowman")
    part = next(iter(scene.geometry.values()))
    part.update_faces(np.arange(len(part.faces)) > 0)
    with pytest.raises(ValueError, match="part-000"):
        ground_truth_mesh(scene)


A, B = box(1, 1, 1, 0), translated(box(1, 1, 1, 0), (0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    ("solid", "expected", "tolerance"),
    [
        (union(A, B), 2 - 0.75**3, 0.01),
        (difference(A, B), 1 - 0.75**3, 0.02),
        (box(1.0, 2.0, 3.0, 0.0), 6.0, 0.01),
        (sphere(1.0, 64), 4 / 3 * np.pi, 0.01),
        (cylinder(1.0, 2.0, bevel=0.0, segments=64), 2 * np.pi, 0.01),
        (cylinder(1.0, 1.0, 0.0, 0.0, 64), np.pi / 3, 0.01),
        (torus(1.0, 0.25, 64, 32), 2 * np.pi**2 * 0.25**2, 0.02),
        (tube([(0, 0, 0), (3, 0, 0)], 0.1, 32, 1), np.pi * 0.01 * (3 + 4 / 3 * 0.1), 0.02),
        (loft([(0, 0, 1, 1), (2, 0, 1, 1)], sides=64, smooth=1), np.pi / 2, 0.01),
        (lathe([(0, 0), (1, 0), (1, 1), (0, 1)], 4), 2.0, 0.001),
    ],
)
def test_solids_are_closed_and_have_their_volumes(solid: Solid, expected: float, tolerance: float):
    assert to_manifold(solid).status().name == "NoError"
    assert volume(solid) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    "profile",
    [
        *[profiles.letter(name, width) for name in profiles.STROKES for width in (0.18, 0.25)],
        profiles.heart(),
        *[profiles.star(points, inner) for points in (4, 8) for inner in (0.4, 0.65)],
        profiles.arrow(0.25, 0.5), profiles.arrow(0.45, 0.35), profiles.cross(0.25),
        profiles.gear(10, 0.13, 0.2), profiles.crescent(0.16), profiles.crescent(0.26),
    ],
)  # fmt: skip
def test_plates_do_not_fold_over_at_their_edges(profile: profiles.Profile):
    solid = profiles.plate(profile, 0.3, 0.025)
    mesh = trimesh.Trimesh(*solid, process=False)
    front = np.isclose(mesh.triangles[..., 0], 0.15).all(axis=1)
    assert (mesh.face_normals[front & (mesh.area_faces > 1e-12), 0] > 0.99).all()
    area = sum(_area(line) for line in profile)
    assert 0.85 * 0.3 * area < mesh.volume < 0.3 * area


def _area(line: np.ndarray) -> float:
    x, y = line.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def test_a_decal_is_upright_and_not_mirrored_on_all_sides():
    def corner(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cover = ((x > 0) & (y > 0)).astype(float)  # upper right
        return np.broadcast_to(np.array([1.0, 0.0, 0.0]), (*x.shape, 3)), cover

    paint = Paint((0, 0, 1), decal=corner, place=(0.5, 0.5, 0.5, 0.5), all_sides=True)
    part = textured_mesh(box(1, 1, 1, 0.02), paint)
    image = np.asarray(part.visual.material.baseColorTexture)
    directions = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], dtype=float)
    for outwards in directions:
        right = np.cross([0, 0, 1], outwards)
        for side, red in ((0.3, True), (-0.3, False)):
            point = outwards * 0.5 + right * side + [0, 0, 0.3]
            assert (_colour_at(part, image, point)[0] > 200) == red, (outwards, side)


def _colour_at(part: trimesh.Trimesh, image: np.ndarray, point: np.ndarray) -> np.ndarray:
    _, _, faces = trimesh.proximity.closest_point_naive(part, [point])
    weights = trimesh.triangles.points_to_barycentric(part.triangles[faces], [point])[0]
    u, v = weights @ part.visual.uv[part.faces[faces[0]]]
    height, width = image.shape[:2]
    return image[int((1 - v) * height), int(u * width)]


@pytest.mark.parametrize("pattern", [checks, vertical_stripes, noise(3), noise(5, stretch=3.0)])
def test_patterns_around_a_column_have_no_seam(pattern):
    image = make_texture(Paint((0, 0, 0), (1, 1, 1), pattern, "cylinder"), np.ones(3)).astype(int)
    turn = round(image.shape[1] / 1.5)
    np.testing.assert_allclose(image[:, : image.shape[1] - turn], image[:, turn:], atol=2)


def test_a_ball_is_smooth_across_its_seam_and_no_triangle_of_a_column_spans_it():
    toy = ToyBuilder(np.random.default_rng(0))
    places = np.array([(0.0, 0.0, 0.0), (3.0, 1.0, 0.0)])
    paint = Paint((0, 0, 0), pattern=checks, wrap="cylinder")
    toy.add(sphere(1.0), paint, *places, turn=[(0, 30.0)])
    for part, place in zip(toy.parts, places, strict=True):
        cosine = (part.vertex_normals * (part.vertices - place)).sum(axis=1)
        assert cosine.min() > 0.995
    solid = cylinder(1.0, 2.0)
    corners = solid.vertices[solid.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    uv = texture_coordinates(Paint((0, 0, 0), pattern=checks, wrap="cylinder"), corners, normals)
    assert np.ptp(uv[..., 0], axis=1).max() < 0.1


@pytest.mark.parametrize("family", ["car", "carved", "house", "person"])
def test_a_glb_holds_the_toy_with_its_colours(tmp_path: Path, family: str):
    scene = make_toy(5, family)
    write_toy(scene, tmp_path / "toy.glb")
    again = trimesh.load(tmp_path / "toy.glb", force="scene", process=False)
    again.apply_transform(Y_UP_TO_Z_UP)
    np.testing.assert_allclose(again.bounds, scene.bounds, atol=1e-6)
    assert set(again.geometry) == set(scene.geometry)
    for name, part in scene.geometry.items():
        other = again.geometry[name]
        nodes = (again.graph[node] for node in again.graph.nodes_geometry)
        frame = next(matrix for matrix, geometry in nodes if geometry == name)
        places = trimesh.transform_points(other.vertices, frame)
        np.testing.assert_allclose(places, part.vertices, atol=1e-6)
        np.testing.assert_array_equal(other.faces, part.faces)
        np.testing.assert_allclose(other.visual.uv, part.visual.uv, atol=1e-6)
        images = (each.visual.material.baseColorTexture.convert("RGB") for each in (other, part))
        np.testing.assert_array_equal(*map(np.asarray, images))
        normals = other.vertex_normals @ frame[:3, :3].T
        np.testing.assert_allclose(normals, part.vertex_normals, atol=1e-5)


def test_the_command_writes_the_toys_of_its_seeds_and_needs_manifold3d(tmp_path, monkeypatch):
    main(["--count", "3", "--first", "7", "--output", str(tmp_path / "new" / "toys")])
    written = sorted((tmp_path / "new" / "toys").iterdir())
    assert [path.name for path in written] == ["toy-7.glb", "toy-8.glb", "toy-9.glb"]
    write_toy(make_toy(8), tmp_path / "toy.glb")
    assert (tmp_path / "toy.glb").read_bytes() == written[1].read_bytes()
    monkeypatch.setitem(sys.modules, "manifold3d", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -r requirements/demo\.txt"):
        main(["--count", "1", "--output", str(tmp_path / "toys")])
    assert not (tmp_path / "toys").exists()
