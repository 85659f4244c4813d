"""Prints and their reports, of shapes whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from renderer.formats.printing import NotPrintableError, measure_print, printable, thinnest_wall

trimesh = pytest.importorskip("trimesh")


def test_a_box_has_the_report_of_a_box():
    report = measure_print(printable(trimesh.creation.box((0.5, 1.0, 0.25)), 80))
    assert report == {
        "closed": True, "manifold": True, "size_mm": [40.0, 80.0, 20.0], "volume_cm3": 64.0,
        "thinnest_wall_mm": 20.0, "overhang_share": 0.0, "base_cm2": 32.0,
    }  # fmt: skip


def test_the_wall_of_a_hollow_ball_and_of_a_tube_is_found_and_solids_are_as_thick_as_they_are():
    outer, inner = (trimesh.creation.icosphere(4, radius) for radius in (40, 37))
    inner.invert()
    hollow = trimesh.util.concatenate([outer, inner])
    assert thinnest_wall(hollow) == pytest.approx(3.0, abs=0.3)
    tube = trimesh.creation.annulus(18, 20, 60, sections=128)
    assert thinnest_wall(tube) == pytest.approx(2.0, abs=0.25)
    assert thinnest_wall(trimesh.creation.box((30, 20, 10))) == pytest.approx(10, rel=0.01)


def test_only_surfaces_that_hang_over_count():
    table = trimesh.util.concatenate(
        [trimesh.creation.box(bounds=[[-1, -1, 0], [1, 1, 2]]),
         trimesh.creation.box(bounds=[[-4, -4, 3], [4, 4, 4]])]
    )  # fmt: skip
    report = measure_print(printable(table, 80))
    assert report["overhang_share"] == pytest.approx(64 / (24 + 160), abs=1e-3)
    assert report["base_cm2"] == pytest.approx(4.0)
    cone = trimesh.creation.cone(1, 2)  # its sides face up
    assert measure_print(printable(cone, 80))["overhang_share"] == 0
    cone.apply_transform(trimesh.transformations.rotation_matrix(np.pi, [1, 0, 0]))
    assert measure_print(printable(cone, 80))["overhang_share"] == 0  # steeper than 45 degrees
    cone.apply_scale([1, 1, 0.25])
    assert measure_print(printable(cone, 80))["overhang_share"] > 0.5


def test_a_ball_gets_a_flat_base_and_a_box_keeps_its_own():
    pytest.importorskip("manifold3d")
    ball = trimesh.creation.icosphere(4)
    ball.apply_scale([1.0, 0.6, 1.0])
    solid = printable(ball, 80, flat_base=True)
    assert solid.is_watertight
    assert solid.extents.max() == pytest.approx(80)
    assert solid.bounds[0, 2] == 0
    height = solid.extents[2] / 80 * 2  # of 2, in radii
    assert height == pytest.approx(1.96, abs=0.01)
    report = measure_print(solid)
    assert report["base_cm2"] == pytest.approx(0.6 * np.pi * 4**2 * (1 - 0.96**2), rel=0.02)
    box = trimesh.creation.box((1, 1, 1))
    assert printable(box, 80, flat_base=True).volume == pytest.approx(80**3)


def test_what_is_not_solid_is_refused_with_the_reason():
    ball = trimesh.creation.icosphere(2)
    fin = np.vstack([ball.faces, [*ball.faces[0, :2], len(ball.vertices)]])
    finned = trimesh.Trimesh(np.vstack([ball.vertices, [[2, 2, 2]]]), fin, process=False)
    touching = trimesh.creation.box(bounds=[[0, 0, 0], [1, 1, 1]])
    other = trimesh.creation.box(bounds=[[1, 1, 0], [2, 2, 1]])
    inside_out = trimesh.Trimesh(ball.vertices, ball.faces[:, ::-1])
    for mesh, reason in (
        (trimesh.Trimesh(ball.vertices, ball.faces[1:]), "not closed: 3 edges"),
        (finned, "not closed: 2 edges"),
        (trimesh.util.concatenate([touching, other]), "not manifold: 1 edges belong to more"),
        (inside_out, "turned inwards"),
    ):
        with pytest.raises(NotPrintableError, match=reason):
            printable(mesh, 80)


def test_seams_of_a_texture_do_not_open_a_mesh():
    ball = trimesh.creation.icosphere(2)
    parted = trimesh.Trimesh(ball.triangles.reshape(-1, 3), np.arange(960).reshape(-1, 3))
    assert printable(parted, 80).is_watertight
