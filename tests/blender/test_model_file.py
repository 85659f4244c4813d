"""Models that Blender's importers misread: what is repaired, refused or reported."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from blender.model_file import repair_model

BOX = trimesh.creation.box((1.0, 0.5, 0.4))
FAR = np.array([500_000.0, 5_400_000.0, 300.0])


def obj(corners: np.ndarray, colours: str = "", end: str = "\n") -> bytes:
    lines = ["mtllib a.mtl", *(f"v {x:.9g} {y:.9g} {z:.9g}{colours}" for x, y, z in corners)]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in BOX.faces]
    return end.join([*lines, ""]).encode()


def stl(corners: np.ndarray, text: bool = False) -> bytes:
    mesh = trimesh.Trimesh(corners, BOX.faces, process=False, validate=False)
    content = mesh.export(file_type="stl_ascii" if text else "stl")
    return content.encode() if isinstance(content, str) else content


def ply(corners: np.ndarray, names: str = "red green blue", kind: str = "uchar") -> bytes:
    full = {"uchar": 200, "ushort": 51400}[kind]
    lines = ["ply", "format ascii 1.0", "element vertex 8"]
    lines += [f"property double {axis}" for axis in "xyz"]
    lines += [f"property {kind} {name}" for name in names.split()]
    lines += ["element face 12", "property list uchar int vertex_indices", "end_header"]
    lines += [f"{x:.9g} {y:.9g} {z:.9g} {full} 0 0" for x, y, z in corners]
    return "\n".join([*lines, *(f"3 {a} {b} {c}" for a, b, c in BOX.faces), ""]).encode()


def gltf(corners: np.ndarray = BOX.vertices, **change: Any) -> bytes:
    """A .glb file of a box with changes of its JSON content."""
    raw = trimesh.Trimesh(corners, BOX.faces, process=False, validate=False).export(file_type="glb")
    (length,) = struct.unpack_from("<I", raw, 12)
    text = json.dumps(json.loads(raw[20 : 20 + length]) | change).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + raw[20 + length :]
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def fbx(corners: np.ndarray) -> bytes:
    """The part of a binary FBX that has corners: as they are, and packed."""
    raw = b"Kaydara FBX Binary  \0\x1a\0"
    for packed, part in ((0, BOX.vertices.tobytes()), (1, zlib.compress(corners.tobytes()))):
        raw += b"\x08Verticesd" + struct.pack("<III", corners.size, packed, len(part)) + part
    return raw


def content(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<I", raw, 12)
    read: dict[str, Any] = json.loads(raw[20 : 20 + length])
    return read


def repair(folder: Path, name: str, raw: bytes) -> tuple[Path, list[str], str]:
    (folder / "models").mkdir(exist_ok=True)
    (folder / "temporary").mkdir(exist_ok=True)
    (folder / "models" / name).write_bytes(raw)
    return repair_model(folder / "models" / name, folder / "temporary")


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.obj", obj(BOX.vertices, " 0.5 0.5 0.5")), ("b.obj", obj(BOX.vertices, end="\r\n")),
        ("a.stl", stl(BOX.vertices)), ("b.stl", stl(BOX.vertices, text=True)),
        ("a.ply", ply(BOX.vertices)), ("b.ply", BOX.export(file_type="ply")),
        ("a.glb", gltf()), ("a.fbx", fbx(BOX.vertices)), ("text.glb", b"hello"),
        ("deep.gltf", b"[" * 10**5), ("c.ply", ply(BOX.vertices).replace(b"format ", b"f ")),
    ],
)  # fmt: skip
def test_what_blender_reads_or_refuses_itself_is_left_alone(tmp_path: Path, name: str, raw: bytes):
    assert repair(tmp_path, name, raw) == (tmp_path / "models" / name, [], "")


@pytest.mark.parametrize("scale", [1.0, 1e-20])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.obj", obj),
        ("a.ply", ply),
        ("a.stl", lambda corners: stl(corners - FAR) if corners.max() > 1 else stl(corners, True)),
    ],
)
def test_corners_far_away_or_close_together_are_normalised_in_double_precision(
    tmp_path: Path, name: str, make: Callable[[np.ndarray], bytes], scale: float
):
    corners = BOX.vertices * scale if scale < 1 else BOX.vertices + FAR
    file, problems, _ = repair(tmp_path, name, make(corners))
    mesh = trimesh.load(file, process=False, force="mesh", skip_materials=True)
    np.testing.assert_allclose(mesh.extents, BOX.extents, rtol=1e-4)
    np.testing.assert_allclose(mesh.bounds.mean(axis=0), 0, atol=1e-6)
    assert not problems


def points_of(file: Path) -> np.ndarray:
    """Corners of all nodes of a glTF file, in double precision."""
    scene = trimesh.load(file, process=False)
    parts = [
        trimesh.transform_points(scene.geometry[name].vertices, matrix)
        for matrix, name in map(scene.graph.get, scene.graph.nodes_geometry)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("change", "corners"),
    [
        ({}, BOX.vertices * 64 + [2.0**19, 2.0**22, 0]),
        ({}, BOX.vertices * 1e-20),
        (
            {"nodes": [{"children": [2, 1], "rotation": [0, 0.6, 0, 0.8]},
                       {"mesh": 0, "translation": [5e5, 300, -5.4e6], "scale": [1, 2, 1]},
                       {"mesh": 0, "translation": [5e5 + 1.3, 300, -5.4e6]}],
             "scenes": [{"nodes": [0]}]}, BOX.vertices,
        ),
        (
            {"nodes": [{"children": [1]}, {"mesh": 0, "children": [2], "matrix": [
                0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 1e7, 0, 0, 1]}, {"mesh": 0}]}, BOX.vertices,
        ),
    ],
)  # fmt: skip
def test_a_gltf_far_away_is_brought_near_in_double_precision(
    tmp_path: Path, change: dict[str, Any], corners: np.ndarray
):
    given = gltf(corners, **change)
    file, problems, _ = repair(tmp_path, "a.glb", given)
    assert file.parent.name == "temporary"
    assert not problems
    expected = points_of(tmp_path / "models" / "a.glb")
    low, high = expected.min(axis=0), expected.max(axis=0)
    expected = (expected - (low + high) / 2) / (high - low).max()
    found = points_of(file)
    key = lambda points: points[np.lexsort(points.round(4).T)]  # noqa: E731
    np.testing.assert_allclose(key(found), key(expected), atol=1e-6)
    for node in content(file)["nodes"]:
        assert np.abs(node.get("matrix", [0])).max() < 1.5


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("name", "make"),
    [("a.obj", obj), ("a.ply", ply), ("a.stl", stl), ("a.glb", gltf), ("a.fbx", fbx)],
)
def test_corners_that_are_not_finite_are_refused_in_every_format(
    tmp_path: Path, name: str, make: Callable[[np.ndarray], bytes], value: float
):
    corners = np.array(BOX.vertices)
    corners[0, 0] = value
    with pytest.raises(ValueError, match=rf"{name}: .*corners are not finite"):
        repair(tmp_path, name, make(corners))


def test_stl_files_of_an_unexpected_size_or_in_capitals_are_read(tmp_path: Path):
    texts = [stl(BOX.vertices, text=True).upper(), b"\xef\xbb\xbf" + stl(BOX.vertices, text=True)]
    for raw in (stl(BOX.vertices) + bytes(10), *texts):
        file, _, _ = repair(tmp_path, "a.stl", raw)
        content = file.read_bytes()
        assert len(content) == 84 + 50 * 12
        np.testing.assert_allclose(trimesh.load(file).extents, BOX.extents)
    with pytest.raises(ValueError, match="cut off: it announces 12 triangles and has 9"):
        repair(tmp_path, "a.stl", stl(BOX.vertices)[:-120])
    with pytest.raises(ValueError, match="cut off after"):
        repair(tmp_path, "a.stl", stl(BOX.vertices, text=True)[:-120])


def test_obj_files_with_old_line_ends_and_colours_to_255_are_read(tmp_path: Path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.mtl").write_text("newmtl m\n")
    file, _, _ = repair(tmp_path, "a.obj", obj(BOX.vertices, " 255 51 0", end="\r"))
    lines = file.read_text().splitlines()
    assert lines[1].split()[4:] == ["1.000000", "0.200000", "0.000000"]
    library = lines[0].removeprefix("mtllib ")
    assert (file.parent / library).resolve() == (tmp_path / "models" / "a.mtl").resolve()


def libraries(file: Path) -> list[Path]:
    lines = file.read_bytes().splitlines()
    names = [line.split(None, 1)[1].decode() for line in lines if line.startswith(b"mtllib")]
    return [(file.parent / name).resolve() for name in names]


@pytest.mark.parametrize(
    ("line", "there", "copied"),
    [
        ("mtllib a b.mtl", ["a b.mtl"], False), ('mtllib "a b.mtl"', ["a b.mtl"], False),
        ("mtllib Sub\\A.MTL", ["sub/a.mtl"], True), ("mtllib gone.mtl", ["m.mtl"], False),
        ("mtllib b.mtl c.mtl", ["b.mtl", "c.mtl"], True),
        ("\xef\xbb\xbfmtllib b.mtl", ["b.mtl"], True),
    ],
)  # fmt: skip
def test_materials_of_an_obj_are_found_as_on_windows_and_missing_ones_reported(
    tmp_path: Path, line: str, there: list[str], copied: bool
):
    raw = line.encode("latin1") + b"\nusemtl m\n" + obj(BOX.vertices).partition(b"\n")[2]
    file, problems, _ = repair(tmp_path, "m.obj", raw)
    assert all(problem.endswith("are missing, their faces will be grey") for problem in problems)
    assert problems
    for name in there:
        (tmp_path / "models" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "models" / name).write_text("newmtl m\n")
    file, problems, _ = repair(tmp_path, "m.obj", raw)
    assert not problems
    assert (file.parent.name == "temporary") == copied
    if copied:
        found = {(tmp_path / "models" / name).resolve() for name in there}
        assert set(libraries(file)) == found


@pytest.mark.parametrize(
    ("raw", "coloured"),
    [
        (b"COLOR=" + stl(BOX.vertices)[6:], True), (stl(BOX.vertices), False),
        (stl(BOX.vertices)[:84] + 12 * (bytes(48) + b"\x00\x80"), True),
    ],
)  # fmt: skip
def test_colours_of_an_stl_are_reported(tmp_path: Path, raw: bytes, coloured: bool):
    _, problems, _ = repair(tmp_path, "a.stl", raw)
    assert [problem.startswith("its colours are not rendered") for problem in problems] == (
        [True] * coloured
    )


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("red green blue", "ushort"),
        ("diffuse_red diffuse_green diffuse_blue", "uchar"),
        ("r g b", "ushort"),
    ],
)
def test_ply_colours_of_other_types_and_names_are_read(tmp_path: Path, names: str, kind: str):
    file, problems, _ = repair(tmp_path, "a.ply", ply(BOX.vertices, names, kind))
    assert "property uchar red\n" in file.read_text()
    colours = trimesh.load(file, process=False).visual.vertex_colors
    np.testing.assert_array_equal(colours, [[200, 0, 0, 255]] * 8)
    assert not problems


def test_ply_colours_that_are_not_rendered_are_reported(tmp_path: Path):
    raw = ply(BOX.vertices).replace(b"1.0\n", b"1.0\ncomment TextureFile a b.png\n", 1)
    raw = raw.replace(b"vertex_indices\n", b"vertex_indices\nproperty uchar red\n")
    _, problems, _ = repair(tmp_path, "a.ply", raw)
    assert ["texture a b.png" in problems[0], "faces" in problems[1]] == [True, True]


def test_only_the_default_scene_of_a_gltf_keeps_its_meshes(tmp_path: Path):
    nodes = [{"mesh": 0, "children": [1]}, {"mesh": 0}, {"mesh": 0}, {"mesh": 0}]
    raw = gltf(nodes=nodes, scenes=[{"nodes": [2]}, {"nodes": [0]}], scene=1)
    file, problems, _ = repair(tmp_path, "a.glb", raw)
    assert ["mesh" in node for node in content(file)["nodes"]] == [True, True, False, False]
    assert not problems
    raw = gltf(nodes=nodes[:2], scenes=[{"nodes": [0]}])
    assert repair(tmp_path, "b.glb", raw)[0].name == "b.glb"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_gltf_of_another_encoding_is_read_and_its_files_are_found(tmp_path: Path, encoding: str):
    text = json.dumps({"asset": {"version": "2.0"}, "images": [{"uri": "a%20b.png"}]})
    file, _, _ = repair(tmp_path, "a.gltf", text.encode(encoding))
    image = json.loads(file.read_text())["images"][0]["uri"]
    assert image == str((tmp_path / "models" / "a%20b.png").resolve())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": [{"mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": {}}}],
          "scenes": [{"nodes": [0]}]}, "EXT_mesh_gpu_instancing, of which one copy"),
        ({"nodes": [{"mesh": 0, "children": [1]}, {"children": [0]}]}, "no tree: .*ancestors"),
        ({"nodes": [{"children": [2]}, {"children": [2]}, {"mesh": 0}]}, "2 has two parents"),
    ],
)  # fmt: skip
def test_gltf_files_that_would_be_rendered_wrongly_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=rf"a\.glb: .*{message}"):
        repair(tmp_path, "a.glb", gltf(**change))


def test_gltf_extensions_are_named(tmp_path: Path):
    _, problems, hint = repair(tmp_path, "a.glb", gltf(extensionsUsed=["ACME_warp", "KHR_xmp"]))
    assert problems == ["it uses ACME_warp, which is not rendered"]
    required = {"extensionsRequired": ["EXT_meshopt_compression"]}
    _, _, hint = repair(tmp_path, "b.glb", gltf(**required))
    assert "EXT_meshopt_compression" in hint
    assert "gltf-transform" in hint


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"\n<html><body>404", "web page"),
        (b"PK\3\4" + bytes(40), "zip archive"),
        (b"{}", "has 2 bytes|no binary FBX|no PLY"),
    ],
)
@pytest.mark.parametrize("suffix", ["fbx", "stl", "ply"])
def test_files_that_are_no_models_are_named_as_what_they_are(
    tmp_path: Path, suffix: str, raw: bytes, message: str
):
    with pytest.raises(ValueError, match=rf"a\.{suffix}: .*{message}"):
        repair(tmp_path, f"a.{suffix}", raw)
