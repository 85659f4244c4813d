from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

trimesh = pytest.importorskip("trimesh", reason="needs requirements/eval.txt")

from evaluation.frames import warn_if_other_frame_fits
from evaluation.meshes import (
    count_open_edges,
    gso_rotation,
    read_mesh,
    to_render_frame,
    warn_if_not_normalised,
    warn_if_not_watertight,
)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".PLY", ".stl"])
def test_triangle_meshes_of_every_format_are_read_as_they_are(tmp_path: Path, suffix: str):
    box = trimesh.creation.box((1.0, 0.5, 0.25))
    path = tmp_path / f"box{suffix}"
    box.export(path, file_type=suffix[1:].lower())
    mesh = read_mesh(path)
    np.testing.assert_allclose(mesh.bounds, box.bounds, atol=1e-6)
    assert mesh.volume == pytest.approx(0.125, rel=1e-5)
    assert count_open_edges(mesh) == 0


def test_obj_files_of_every_style_give_the_same_triangles(tmp_path: Path):
    corners = ["0 0 0", "1 0 0", "0 1 0", "0 0 1"]
    faces = [(0, 2, 1), (0, 1, 3), (1, 2, 3), (2, 0, 3)]
    absolute = "".join(f"v {c}\n" for c in corners) + "".join(
        f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in faces
    )
    relative = "".join(
        "".join(f"v {corners[k]} 0.5 0.5 0.5\n" for k in face) + "f -3 -2 -1\n" for face in faces
    )
    styles = {
        "absolute": absolute,
        "relative": relative,
        "commented": absolute.replace("\n", " # said\n"),
        "indented": "  " + absolute.replace("\n", "\r\n  "),
        "mixed": absolute.replace("f 1 3 2", "f 1/1/1 3//2 2/7"),
        "continued": absolute.replace("f 1 3 2", "f 1 \\\n3 2"),
    }
    contents = {name: text.encode() for name, text in styles.items()}
    contents["bom"] = b"\xef\xbb\xbf" + absolute.encode()
    contents["latin1"] = b"# caf\xe9\n" + absolute.encode()
    for name, content in contents.items():
        (tmp_path / f"{name}.obj").write_bytes(content)
        mesh = read_mesh(tmp_path / f"{name}.obj")
        assert mesh.volume == pytest.approx(1 / 6), name
        assert count_open_edges(mesh) == 0, name


def test_an_obj_opens_no_other_file_and_quads_become_triangles(tmp_path: Path):
    """Its material library and textures may be anywhere; nothing needs them."""
    fifo = tmp_path / "blocks-whoever-opens-it.mtl"
    os.mkfifo(fifo)
    text = f"mtllib {fifo}\nmtllib {fifo.name}\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl a\nf 1 2 3 1\n"
    (tmp_path / "a.obj").write_text(text)
    assert read_mesh(tmp_path / "a.obj").faces.shape == (2, 3)


COORDINATES = "".join(f"property float {axis}\n" for axis in "xyz")
PLY = "ply\nformat ascii 1.0\nelement vertex {}\n" + COORDINATES
FACES = "element face {}\nproperty list uchar int vertex_indices\nend_header\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.ply", "hello", "cannot be read"),
        ("empty.ply", "", "empty"),
        ("cut.ply", PLY.format(3) + FACES.format(1) + "0 0 0\n1 0", "cannot be read"),
        ("header.ply", PLY.format(3), "cannot be read"),
        ("points.ply", PLY.format(1) + "end_header\n0 0 0\n", "no faces"),
        ("none.ply", PLY.format(0) + FACES.format(0), "empty|cannot be read"),
        ("ascii.ply", PLY.format(3) + FACES.format(2) + "0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
         "2 elements of type face, the file has 1"),
        ("zero.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "line 4 "),
        ("before.obj", "v 0 0 0\nf -1 -2 -3\n", "line 2 "),
        ("after.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "vertex 8"),
        ("far.obj", "v 1e30 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", r"up to 1e\+30"),
        ("points.stl", "solid", "cannot be read|no faces"),
        ("points.xyz", "0 0 0", r"formats \.ply \.obj \.glb \.stl"),
        ("pointer.ply", "version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
        ("page.obj", "<!DOCTYPE html>", "web page"),
        ("flat.obj", "v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "area 0"),
        ("nan.obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "coordinates up to nan"),
        ("index.ply", PLY.format(3) + FACES.format(1) + "0 0 0\n1 0 0\n0 1 0\n3 0 1 9\n",
         "vertex 9|cannot be read"),
        ("scene.glb", "glTF", "cannot be read"),
    ],
)  # fmt: skip
def test_files_that_hold_no_mesh_are_refused_by_name(
    tmp_path: Path, name: str, content: str, message: str
):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_mesh(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_mesh_and_a_binary_ply_that_is_cut_off_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no\.ply: no such mesh"):
        read_mesh(tmp_path / "no.ply")
    trimesh.creation.icosphere(subdivisions=3).export(tmp_path / "whole.ply")
    whole = (tmp_path / "whole.ply").read_bytes()
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "cut.ply").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"cut\.ply: .* cannot be read .*write or download"):
            read_mesh(tmp_path / "cut.ply")


def test_a_glb_is_turned_to_z_up(tmp_path: Path):
    trimesh.creation.box((1.0, 0.5, 0.25)).export(tmp_path / "a.glb")
    np.testing.assert_allclose(read_mesh(tmp_path / "a.glb").extents, (1.0, 0.25, 0.5), atol=1e-6)


def test_bytes_after_a_binary_ply_and_textures_of_it_are_not_read(tmp_path: Path, caplog):
    box = trimesh.creation.box()
    content = box.export(file_type="ply").replace(b"\n", b"\ncomment TextureFile a.png\n", 1)
    for rest in (b"", b"\n", bytes(100)):
        (tmp_path / "a.ply").write_bytes(content + rest)
        assert read_mesh(tmp_path / "a.ply").volume == pytest.approx(1.0)
    assert not caplog.text


def test_a_mesh_in_centimetres_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"a\.ply: .*side of the mesh is 100, .*scale it"):
        warn_if_not_normalised(tmp_path / "a.ply", trimesh.creation.box((100.0, 60.0, 20.0)))


@pytest.mark.parametrize(("turn", "named"), [(0, ""), (np.pi / 2, "with (x, -z, y)")])
def test_a_mesh_with_y_up_is_warned_about(caplog, turn: float, named: str):
    """A letter L; with y up its box fits too."""
    parts = [trimesh.creation.box((0.8, 0.3, 0.2)), trimesh.creation.box((0.2, 0.3, 0.8))]
    parts[0].apply_translation((0.0, 0.0, -0.3))
    parts[1].apply_translation((-0.3, 0.0, 0.0))
    true = trimesh.util.concatenate(parts)
    mesh = true.copy()
    mesh.apply_transform(trimesh.transformations.rotation_matrix(-turn, [1, 0, 0]))
    points, true_points = (item.sample(20_000, seed=0) for item in (mesh, true))
    warn_if_other_frame_fits(Path("a.ply"), points, true_points)
    assert named in caplog.text
    assert bool(caplog.text) == bool(named)


def test_the_render_frame_is_centred_has_longest_side_1_and_is_turned_back():
    box = trimesh.creation.box((4.0, 2.0, 1.0))
    box.apply_translation((10.0, 20.0, 30.0))
    corner = trimesh.Trimesh(vertices=[[10, 20, 30], [12, 20, 30], [10, 21, 30]], faces=[[0, 1, 2]])
    mesh = trimesh.util.concatenate([box, corner])
    moved = to_render_frame(mesh, 90.0)
    np.testing.assert_allclose(moved.bounds, [[-0.25, -0.5, -0.125], [0.25, 0.5, 0.125]], atol=1e-9)
    # the middle of the side at +x goes to -y: rotation about z by -90 degrees
    np.testing.assert_allclose(moved.vertices[-2], [0.0, -0.5, 0.0], atol=1e-9)
    np.testing.assert_allclose(mesh.vertices[-2], [12.0, 20.0, 30.0])  # the given one stays


def test_the_listed_rotations_are_those_of_the_papers_objects():
    expected = {"chicken": 270, "sofa": -90, "elephant": 180, "turtle": 225, "sorter": 112.5}
    assert {name: gso_rotation(name) for name in expected} == expected
    assert gso_rotation("teapot") == 0


def test_a_good_mesh_gives_no_warning(caplog):
    turned = trimesh.creation.box((1.0, 1.0, 0.4))
    turned.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 4, (0, 0, 1)))
    for mesh in (trimesh.creation.icosphere(subdivisions=2, radius=0.5), turned):
        warn_if_not_normalised(Path("good.ply"), mesh)
        warn_if_not_watertight(Path("good.ply"), mesh)
    assert not caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda mesh: mesh.apply_scale(3.0),
            "bad.ply extends to 1.5, 1.5, 1.5, outside |x|, |y|",
        ),
        (lambda mesh: mesh.apply_translation((0, 0, 2.0)), "extends to 0.5, 0.5, 2.5, outside"),
        (lambda mesh: mesh.apply_scale(0.1), "longest side is 0.1"),
        (lambda mesh: mesh.update_faces(np.arange(5, len(mesh.faces))), "not a closed manifold"),
    ],
)
def test_a_mesh_in_another_frame_or_open_is_warned_about(caplog, change, message: str):
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    change(mesh)
    warn_if_not_normalised(Path("bad.ply"), mesh)
    warn_if_not_watertight(Path("bad.ply"), mesh)
    assert message in caplog.text


def test_an_edge_with_three_faces_is_not_manifold():
    tetrahedron = trimesh.creation.icosphere(subdivisions=0)
    fin = np.vstack([tetrahedron.vertices, [[2.0, 2.0, 2.0]]])
    a, b = tetrahedron.faces[0][:2]
    mesh = trimesh.Trimesh(fin, np.vstack([tetrahedron.faces, [[a, b, 12]]]), process=False)
    assert count_open_edges(tetrahedron) == 0
    assert count_open_edges(mesh) == 3
