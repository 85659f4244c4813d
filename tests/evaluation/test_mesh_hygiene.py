"""Hygiene of meshes, on shapes whose faults are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

trimesh = pytest.importorskip("trimesh", reason="needs requirements/eval.txt")

from evaluation.mesh_hygiene import measure_hygiene
from tests.conftest import ROOT


def measure(tmp_path: Path, mesh) -> dict[str, int | bool]:
    mesh.export(tmp_path / "mesh.ply")
    return measure_hygiene(tmp_path / "mesh.ply")


def test_a_closed_sphere_has_every_property_but_texture_coordinates(tmp_path: Path):
    sphere = trimesh.creation.icosphere(2)
    assert measure(tmp_path, sphere) == {
        "watertight": True, "manifold": True, "consistent_normals": True, "uvs": False,
        "clean": True, "faces": 320, "parts": 1, "debris": 0,
    }  # fmt: skip
    unmerged = trimesh.Trimesh(sphere.triangles.reshape(-1, 3), np.arange(960).reshape(-1, 3))
    assert measure(tmp_path, unmerged)["watertight"]


def test_each_fault_is_found(tmp_path: Path):
    sphere = trimesh.creation.icosphere(2)
    pierced = trimesh.Trimesh(sphere.vertices, sphere.faces[1:])
    assert not measure(tmp_path, pierced)["watertight"]
    assert measure(tmp_path, pierced)["manifold"]

    inside_out = trimesh.Trimesh(sphere.vertices, sphere.faces[:, ::-1])
    assert not measure(tmp_path, inside_out)["consistent_normals"]
    one_turned = sphere.faces.copy()
    one_turned[0] = one_turned[0, ::-1]
    turned = trimesh.Trimesh(sphere.vertices, one_turned, process=False)
    assert not measure(tmp_path, turned)["consistent_normals"]

    fin = np.vstack([sphere.faces, [*sphere.faces[0, :2], len(sphere.vertices)]])
    finned = trimesh.Trimesh(np.vstack([sphere.vertices, [2, 2, 2]]), fin)
    assert not measure(tmp_path, finned)["manifold"]

    crumb = trimesh.creation.box((0.02, 0.02, 0.02))
    crumb.apply_translation((2, 0, 0))
    dirty = measure(tmp_path, trimesh.util.concatenate([sphere, crumb]))
    assert (dirty["clean"], dirty["parts"], dirty["debris"]) == (False, 2, 1)
    crumb.apply_scale(40)
    pair = measure(tmp_path, trimesh.util.concatenate([sphere, crumb]))
    assert (pair["clean"], pair["parts"]) == (True, 2)


def test_texture_coordinates_are_found_in_the_file_or_in_the_textured_mesh_beside_it(
    tmp_path: Path,
):
    box = trimesh.creation.box()
    box.export(tmp_path / "mesh.ply")
    box.visual = trimesh.visual.TextureVisuals(uv=box.vertices[:, :2])
    box.export(tmp_path / "mesh.glb")
    assert measure_hygiene(tmp_path / "mesh.ply")["uvs"]
    assert not measure_hygiene(ROOT / "eval_examples" / "locomotive-pr" / "mesh.ply")["uvs"]
    (tmp_path / "mesh.glb").write_bytes(b"glTF, broken")
    with pytest.raises(ValueError, match=r"mesh\.glb: the mesh cannot be read"):
        measure_hygiene(tmp_path / "mesh.ply")
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n")
    assert measure_hygiene(tmp_path / "a.obj")["uvs"]
