"""A toy's mesh.glb in every format and back; what is refused."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from multiview.cameras import Z_UP_TO_Y_UP
from renderer.formats.convert import convert, main
from renderer.formats.options import FORMATS, ExportOptions
from renderer.formats.read import read_textured
from renderer.hygiene import measure_hygiene
from renderer.texture import textured
from tests.renderer.formats.toy import spread_of_colors, textured_toy

trimesh = pytest.importorskip("trimesh")
for package in ("lxml", "networkx", "manifold3d"):
    pytest.importorskip(package, reason="needs requirements/export.txt")
pytest.importorskip("pxr", reason="needs requirements/export.txt")

from pxr import Usd, UsdGeom, UsdUtils

OPTIONS = ExportOptions(size_mm=80)


@pytest.fixture(scope="module")
def files(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy in every format."""
    folder = tmp_path_factory.mktemp("formats")
    convert(toy, {name: folder / file for name, file in FORMATS.items()}, OPTIONS)
    return folder


def read_obj(path: Path) -> trimesh.Trimesh:
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["mesh.mtl", "mesh.obj", "texture.png"]
        members = {name: archive.read(name) for name in archive.namelist()}
    resolver = trimesh.resolvers.ZipResolver({n: io.BytesIO(c) for n, c in members.items()})
    flags = {"resolver": resolver, "force": "mesh", "process": False}
    return trimesh.load(io.BytesIO(members["mesh.obj"]), file_type="obj", **flags)


def read_usdz(path: Path) -> trimesh.Trimesh:
    stage = Usd.Stage.Open(str(path))
    metres = UsdGeom.GetStageMetersPerUnit(stage)
    shape = UsdGeom.Mesh.Get(stage, "/Object/Mesh")
    points = np.array(shape.GetPointsAttr().Get())
    assert np.ptp(points, axis=0).max() * metres == pytest.approx(0.08)
    faces = np.array(shape.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    uv = np.array(UsdGeom.PrimvarsAPI(shape).GetPrimvar("st").Get())
    with zipfile.ZipFile(path) as archive:
        image = Image.open(io.BytesIO(archive.read("texture.png")))
    return textured(points, faces, np.zeros_like(points), uv * [1, -1] + [0, 1], image)


def load(path: Path) -> trimesh.Trimesh:
    return trimesh.load(path, force="mesh", process=False)


READ = {"glb": load, "obj": read_obj, "usdz": read_usdz, "ply": load, "stl": load, "3mf": load}


@pytest.mark.integration
@pytest.mark.parametrize("name", READ)
def test_a_toy_keeps_its_place_its_volume_and_its_colours(files: Path, name: str):
    toy, mesh = textured_toy(), READ[name](files / FORMATS[name])
    points = np.asarray(mesh.vertices)
    if name in ("glb", "obj", "usdz"):
        points = points @ Z_UP_TO_Y_UP
    if name in ("stl", "3mf"):
        assert mesh.extents.max() == pytest.approx(80, abs=1e-3)
        np.testing.assert_allclose(mesh.bounds[:, :2].sum(axis=0), 0, atol=1e-3)
        assert mesh.bounds[0, 2] == pytest.approx(0, abs=1e-3)
        low, high = toy.bounds
        points = points * (toy.extents.max() / 80) + [*(low + high)[:2] / 2, low[2]]
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], toy.bounds, atol=1e-4)
    turned = trimesh.Trimesh(points, mesh.faces, process=False)
    assert turned.volume == pytest.approx(toy.volume, rel=1e-3)
    found = measure_hygiene(turned)
    assert all(found[key] for key in ("watertight", "manifold", "consistent_normals", "clean"))
    assert found["faces"] == len(toy.faces) <= 3000
    if name in ("glb", "obj", "usdz"):
        colors = mesh.visual.to_color().vertex_colors[:, :3] / 255
        assert spread_of_colors(colors, points) < 0.03
        uv = np.asarray(mesh.visual.uv)
        assert uv.min() >= 0
        assert uv.max() <= 1
    elif name == "ply":
        colors = mesh.visual.vertex_colors[:, :3] / 255
        assert spread_of_colors(colors, points) < 0.03
        off = np.abs(colors - (0.5 + points))[points[:, 2] > -0.2].max(axis=1)
        assert np.percentile(off, 99.5) < 0.1  # no specks from charts of few texels


def test_gaussians_lie_flat_on_the_surface_in_its_colours(files: Path):
    content = (files / "splat.ply").read_bytes()
    header, _, body = content.partition(b"end_header\n")
    names = [line.split()[2] for line in header.decode().splitlines() if "property" in line]
    assert all(f"property float {name}\n".encode() in header for name in names)
    table = np.frombuffer(body, "<f4").reshape(-1, len(names))
    of = dict(zip(names, table.T, strict=True))
    assert f"element vertex {len(table)}\n".encode() in header
    toy = textured_toy()
    x, y, z = (of[key] for key in "xyz")
    points = np.stack([x, z, -y], axis=1)  # y is down
    on_surface = trimesh.proximity.closest_point_naive(toy, points[::1000])[0]
    np.testing.assert_allclose(on_surface, points[::1000], atol=1e-5)
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], toy.bounds, atol=0.01)
    colors = 0.5 + 0.28209479 * np.stack([of[f"f_dc_{k}"] for k in range(3)], axis=1)
    assert spread_of_colors(colors, points) < 0.03
    w, i, j, k = (of[f"rot_{index}"] for index in range(4))
    np.testing.assert_allclose(w**2 + i**2 + j**2 + k**2, 1, atol=1e-5)
    third_axis = np.stack([2 * (i * k + w * j), 2 * (j * k - w * i), 1 - 2 * (i * i + j * j)])
    np.testing.assert_allclose(third_axis, [of["nx"], of["ny"], of["nz"]], atol=1e-4)
    assert (of["scale_2"] < of["scale_0"] - 1).all()
    gaps, _ = cKDTree(points).query(points, k=2)  # to itself, and to the next one
    assert np.percentile(gaps[:, 1], 99) < 2 * np.exp(of["scale_0"][0])
    assert (1 / (1 + np.exp(-of["opacity"])) > 0.9).all()


def problems(path: Path) -> list[str]:
    """By Apple's rules for augmented reality."""
    if not hasattr(UsdUtils, "ComplianceChecker"):
        pytest.skip("usd-core has no ComplianceChecker from 26.8 on")
    checker = UsdUtils.ComplianceChecker(arkit=True)
    checker.CheckCompliance(str(path))
    return [*checker.GetErrors(), *checker.GetFailedChecks(), *checker.GetWarnings()]


def test_a_usdz_passes_apples_rules_and_is_aligned(files: Path):
    path = files / "mesh.usdz"
    assert problems(path) == []
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        assert members[0].filename.endswith(".usdc")
        for member in members:
            assert member.compress_type == zipfile.ZIP_STORED
            start = path.read_bytes()[member.header_offset :][:30]
            name, extra = struct.unpack("<HH", start[26:30])
            assert (member.header_offset + 30 + name + extra) % 64 == 0


def test_a_print_has_a_report_beside_it(files: Path):
    report = json.loads((files / "mesh.print.json").read_text())
    toy = textured_toy()
    scale = 80 / toy.extents.max()
    assert report["closed"] is report["manifold"] is True
    np.testing.assert_allclose(report["size_mm"], toy.extents * scale, atol=0.01)
    assert report["volume_cm3"] == pytest.approx(toy.volume * scale**3 / 1000, rel=1e-3)


@pytest.mark.parametrize("name", ["stl", "3mf"])
def test_an_open_mesh_is_not_printed_and_the_reason_is_said(tmp_path: Path, name: str):
    ball = trimesh.creation.icosphere(2)
    trimesh.Trimesh(ball.vertices, ball.faces[3:]).export(tmp_path / "open.ply")
    target = tmp_path / f"open.{name}"
    reason = r"open\.ply: the mesh cannot be printed, it is not closed: \d+ edges belong to one"
    with pytest.raises(ValueError, match=reason):
        main([str(tmp_path / "open.ply"), "--to", name, "-o", str(target)])
    assert [path.name for path in tmp_path.iterdir()] == ["open.ply"]


def test_the_command_writes_one_file_and_checks_its_name(toy: Path, tmp_path: Path, capsys):
    part = tmp_path / "part.stl"
    main([str(toy), "--to", "stl", "--size_mm", "120", "--flat_base", "-o", str(part)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.print.json", "part.stl"]
    assert load(part).extents.max() == pytest.approx(120, abs=1e-3)
    for flags, message in (
        (["--to", "stl", "-o", str(tmp_path / "a.obj")], "ends in .stl"),
        (["--to", "stl", "--size_mm", "0"], "from 1 to 10,000"),
        (["--to", "stl", "--size_mm", "nan"], "from 1 to 10,000"),
        (["--to", "glb", "-o", str(toy)], "is the mesh itself"),
        (["--to", "fbx"], "invalid choice"),
    ):
        with pytest.raises(SystemExit) as end:
            main([str(toy), *flags])
        assert end.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.glb", None, "no such mesh file"),
        ("a.obj", b"v 0 0 0", "expected a mesh in one of the formats"),
        ("a.glb", b"glTF broken", "cannot be read"),
        ("a.glb", b"", "is empty"),
        ("a.stl", b"solid\nendsolid\n", "a.stl: the mesh"),
    ],
)
def test_a_mesh_that_cannot_be_read_is_named(tmp_path: Path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, OSError), match=message):
        read_textured(tmp_path / name)


def test_a_mesh_of_several_parts_without_a_texture_is_exported_too(tmp_path: Path):
    parts = [trimesh.creation.box((1, 2, 3)), trimesh.creation.icosphere(2)]
    parts[1].apply_translation((4, 0, 0))
    for part, color in zip(parts, ([255, 0, 0, 255], [0, 0, 255, 255]), strict=True):
        part.visual.vertex_colors = color
    trimesh.Scene(parts).export(tmp_path / "two.glb")
    targets = {name: tmp_path / file for name, file in FORMATS.items()}
    convert(tmp_path / "two.glb", targets, OPTIONS)
    for name, path in targets.items():
        assert path.stat().st_size > 1000, name
    with zipfile.ZipFile(targets["obj"]) as archive:
        assert archive.namelist() == ["mesh.obj"]
    mesh = load(targets["ply"])
    assert sorted(np.unique(mesh.visual.vertex_colors[:, 0])) == [0, 255]
    assert problems(targets["usdz"]) == []
