from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import eval_colmap
from evaluation import colmap
from evaluation.colmap import (
    MANIFEST,
    UNFINISHED,
    Points,
    choose_form,
    count_points,
    project_folder,
    quaternion,
    write_poses,
)
from evaluation.colmap_engines import (
    EXACT_MATCHING,
    ColmapProgram,
    Engine,
    PyColmap,
    Workspace,
    open_engine,
)
from evaluation.results import read_log
from multiview.cameras import Cameras, orbit_cameras
from multiview.images import view_names
from multiview.views import read_views
from tests.conftest import ROOT, SHARED, needs_shared

HALF_SIZES = np.array([0.45, 0.35, 0.3])
NAMES = view_names(16)


@pytest.fixture(params=["pycolmap", "program"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Both engines, where they are installed."""
    if request.param == "pycolmap":
        pytest.importorskip("pycolmap")
        return open_engine(None)
    if shutil.which("colmap") is None:
        pytest.skip("there is no colmap program on the PATH")
    return open_engine("colmap")


@dataclass(frozen=True)
class Box:
    """16 views of a box with a random texture, (16, S, S, ...); depth 0 is background."""

    views: np.ndarray
    depths: np.ndarray
    normals: np.ndarray

    @staticmethod
    def distance(points: np.ndarray) -> np.ndarray:
        """Of points (P, 3) from the surface of the box, (P,)."""
        outside = np.abs(points) - HALF_SIZES
        beyond = np.linalg.norm(np.maximum(outside, 0), axis=1)
        return np.abs(beyond + np.minimum(outside.max(axis=1), 0))


def cast_rays(cameras: Cameras, view: int, size: int, texture: np.ndarray) -> list[np.ndarray]:
    """Colour, depth and normal (camera frame) of each pixel; pixel centres are at + 0.5."""
    rotation, shift = cameras.world_to_camera[view, :, :3], cameras.world_to_camera[view, :, 3]
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    pixels = np.stack([columns, rows, np.ones((size, size))], axis=-1)
    in_camera = pixels @ np.linalg.inv(cameras.intrinsics[view]).T  # z = 1, so t is the depth
    directions, origin = in_camera @ rotation, -rotation.T @ shift
    enter = (-np.sign(directions) * HALF_SIZES - origin) / directions
    leave = (np.sign(directions) * HALF_SIZES - origin) / directions
    depth, axis = enter.max(axis=-1), enter.argmax(axis=-1)
    hit = depth < leave.min(axis=-1)
    points = origin + depth[..., None] * directions
    texels = texture.shape[1]
    cells = np.clip(((points + 0.5) * texels).astype(int), 0, texels - 1)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cell = [np.take_along_axis(cells, k[..., None], -1)[..., 0] for k in (first, second)]
    side = np.take_along_axis(points, axis[..., None], -1)[..., 0] > 0
    colour = np.where(hit[..., None], texture[axis + 3 * side, cell[0], cell[1]], 1.0)
    normal = -np.eye(3)[axis] * np.sign(directions)
    return [colour, np.where(hit, depth, 0.0), np.where(hit[..., None], normal @ rotation.T, 0.0)]


@pytest.fixture(scope="module")
def box() -> Box:
    texture = np.random.default_rng(0).random((6, 16, 16, 3))
    cameras = orbit_cameras(16, image_size=512)
    images = [cast_rays(cameras, view, 512, texture) for view in range(16)]
    smooth = np.stack([image[0] for image in images])
    views = smooth.reshape(16, 256, 2, 256, 2, 3).mean(axis=(2, 4))
    maps = [cast_rays(orbit_cameras(16), view, 256, texture) for view in range(16)]
    return Box(views, np.stack([m[1] for m in maps]), np.stack([m[2] for m in maps]))


def fused_points(path: Path) -> np.ndarray:
    """Positions in COLMAP's PLY: x y z nx ny nz as floats, three bytes of colour."""
    _, body = path.read_bytes().split(b"end_header\n", 1)
    record = np.dtype([("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])
    return np.frombuffer(body, record)["xyz"]


def test_quaternions_give_back_the_rotations():
    for elevation in (-90.0, -10.0, 0.0, 30.0, 90.0):
        for pose in orbit_cameras(16, elevation_deg=elevation).world_to_camera:
            w, x, y, z = quaternion(pose[:, :3])
            assert w >= 0
            cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross
            np.testing.assert_allclose(rotation, pose[:, :3], atol=1e-14)


@pytest.mark.parametrize("size", [64, 256])
def test_the_pose_files_project_points_to_the_same_pixels_as_the_cameras(tmp_path, size):
    pycolmap = pytest.importorskip("pycolmap")
    cameras = orbit_cameras(16, image_size=size)
    ids = {name: (40 - index, 20 + index) for index, name in enumerate(NAMES)}
    write_poses(tmp_path, NAMES, ids, cameras, size)
    model = pycolmap.Reconstruction(str(tmp_path))
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    for index, name in enumerate(NAMES):
        image = model.images[ids[name][0]]
        assert (image.name, image.camera_id) == (name, ids[name][1])
        pose = cameras.world_to_camera[index]
        pixels = (points @ pose[:, :3].T + pose[:, 3]) @ cameras.intrinsics[index].T
        expected = pixels[:, :2] / pixels[:, 2:]
        found = np.array([image.project_point(point) for point in points])
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_points_of_a_textured_box_lie_on_its_surface_and_every_run_finds_as_many(
    engine, box, tmp_path
):
    pycolmap = pytest.importorskip("pycolmap")
    counts = [count_points(box.views, tmp_path, engine, "sparse")]
    model = pycolmap.Reconstruction(str(tmp_path / "sparse"))
    points = np.array([point.xyz for point in model.points3D.values()])
    assert counts[0] == Points(len(points), "sparse")
    assert len(points) > 100
    assert np.median(box.distance(points)) < 0.003  # less than a pixel's footprint, 0.004
    with project_folder(None) as folder:
        counts.append(count_points(box.views, folder, engine, "sparse"))
    if approximate(engine):  # 245 to 256 points in most runs; what it draws is not ours to bound
        assert counts[1].count == pytest.approx(counts[0].count, rel=0.2)
    else:
        assert counts[0] == counts[1]


def approximate(engine: Engine) -> bool:
    """Old programs search for matches with random numbers that no option sets."""
    return isinstance(engine, ColmapProgram) and (
        EXACT_MATCHING not in engine._known_options("exhaustive_matcher")
    )


def test_a_program_that_matches_approximately_is_warned_of(tmp_path, caplog):
    for known, warnings in (("--random_seed", 1), (f"--{EXACT_MATCHING}", 0)):
        caplog.clear()
        program = recorder(tmp_path / "colmap", "3.8", known)
        ColmapProgram(program).match(Workspace(tmp_path))
        assert len(caplog.records) == warnings
    assert f"--{EXACT_MATCHING}\t1" in (tmp_path / "colmap.calls").read_text()


def test_views_of_another_size_have_intrinsics_of_that_size(box, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    half = box.views.reshape(16, 128, 2, 128, 2, 3).mean(axis=(2, 4))
    points = count_points(half, tmp_path, open_engine(None), "sparse")
    model = pycolmap.Reconstruction(str(tmp_path / "sparse"))
    assert all(camera.params.tolist() == [140, 140, 64, 64] for camera in model.cameras.values())
    found = np.array([point.xyz for point in model.points3D.values()])
    assert points.count > 20
    assert np.median(box.distance(found)) < 0.006


def test_views_in_reversed_order_give_less_than_half_of_the_points(box, tmp_path):
    pytest.importorskip("pycolmap")
    engine = open_engine(None)
    true = count_points(box.views, tmp_path, engine, "sparse").count
    with project_folder(None) as folder:
        reversed_order = count_points(box.views[::-1], folder, engine, "sparse").count
    assert reversed_order < true / 2


@needs_shared
@pytest.mark.parametrize("name", ["alarm", "lion", "mario", "sofa", "teapot"])
def test_true_renders_of_scanned_objects_give_points(engine, name, tmp_path):
    views = read_views(SHARED / "data" / "gso" / name)
    assert count_points(views, tmp_path, engine, "sparse").count > 20


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_noise_that_differs_from_view_to_view_gives_no_points(engine, kind, seed, tmp_path):
    draw = np.random.default_rng(seed)
    noise = (
        draw.random((16, 128, 128, 3))
        if kind == "uniform"
        else 0.5 + 0.2 * draw.standard_normal((16, 128, 128, 3))
    )
    assert count_points(noise, tmp_path, engine, "sparse") == Points(0, "sparse")


def test_blank_views_give_no_points(engine, tmp_path):
    white = np.ones((16, 256, 256, 3))
    assert count_points(white, tmp_path, engine, "sparse") == Points(0, "sparse")


def test_views_without_features_among_others_do_not_disturb(engine, box, tmp_path):
    views = np.where((np.arange(16) < 8)[:, None, None, None], 1.0, box.views)
    assert count_points(views, tmp_path, engine, "sparse").count > 50


def test_views_of_the_wrong_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"square RGB views.*\(16, 8, 9, 3\)"):
        count_points(np.ones((16, 8, 9, 3)), tmp_path, FakeEngine(), "sparse")


# Dense points. No CUDA in these tests: the depth maps are the true ones, all else is real.


def write_map(path: Path, values: np.ndarray) -> None:
    """COLMAP's format: "width&height&channels&", then floats, channel by channel."""
    values = values[..., None] if values.ndim == 2 else values
    height, width, channels = values.shape
    head = f"{width}&{height}&{channels}&".encode()
    path.write_bytes(head + np.moveaxis(values, -1, 0).astype("<f4").tobytes())


def write_maps(folder: Path, box: Box) -> None:
    for kind, maps in (("depth_maps", box.depths), ("normal_maps", box.normals)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, values in zip(NAMES, maps, strict=True):
            write_map(folder / kind / f"{name}.geometric.bin", values)


class PycolmapWithStereo:
    """The package as if it were built with CUDA; its stereo writes the true maps."""

    has_cuda = True

    def __init__(self, box: Box) -> None:
        import pycolmap

        self.real, self.box = pycolmap, box

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def patch_match_stereo(self, workspace_path: str, options: Any) -> None:
        """patch_match_stereo(workspace_path: str, options: PatchMatchOptions) -> None"""
        assert options.geom_consistency
        write_maps(Path(workspace_path) / "stereo", self.box)


def engine_with_stereo(kind: str, box: Box, folder: Path, patch: pytest.MonkeyPatch) -> Engine:
    if kind == "pycolmap":
        pytest.importorskip("pycolmap")
        patch.setitem(sys.modules, "pycolmap", PycolmapWithStereo(box))
        return open_engine(None)
    real = shutil.which("colmap")
    if real is None:
        pytest.skip("there is no colmap program on the PATH")
    write_maps(folder / "maps", box)
    return ColmapProgram(
        script(
            folder / "colmap-with-stereo",
            "import shutil, subprocess, sys",
            "if sys.argv[1] == 'help':",
            "    print('COLMAP 3.8 (Commit Unknown on Unknown with CUDA)')",
            "elif sys.argv[1:] == ['patch_match_stereo', '--help']:",
            "    print('  --random_seed arg (=0)')",
            "elif sys.argv[1] == 'patch_match_stereo':",
            "    flags = dict(zip(sys.argv[2::2], sys.argv[3::2]))",
            "    assert flags['--PatchMatchStereo.geom_consistency'] == '1', flags",
            "    to = flags['--workspace_path'] + '/stereo'",
            f"    shutil.copytree({str(folder / 'maps')!r}, to, dirs_exist_ok=True)",
            "else:",
            f"    sys.exit(subprocess.call([{real!r}, *sys.argv[1:]]))",
        )
    )


@pytest.mark.parametrize("kind", ["pycolmap", "program"])
def test_with_stereo_replaced_by_true_depth_maps_the_fused_points_lie_on_the_surface(
    kind, box, tmp_path, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    engine = engine_with_stereo(kind, box, tmp_path, monkeypatch)
    assert choose_form("auto", engine) == "dense"
    with project_folder(tmp_path / "project") as folder:
        points = count_points(box.views, folder, engine, "dense")
    fused = fused_points(Workspace(folder).fused)
    assert points == Points(len(fused), "dense")
    assert points.count > 5000
    assert np.median(box.distance(fused)) < 0.003  # less than a pixel's footprint


class FakeEngine:
    name = "fake"

    def __init__(self, has_cuda: bool = False) -> None:
        self.has_cuda = has_cuda

    def __getattr__(self, step: str) -> Any:
        raise AssertionError(f"{step} must not be called")


@pytest.mark.parametrize(
    ("has_cuda", "device", "expected"),
    [(True, True, "dense"), (True, False, "sparse"), (False, True, "sparse")],
)
def test_auto_counts_dense_points_only_with_a_cuda_build_and_a_device(
    has_cuda, device, expected, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: device)
    engine = FakeEngine(has_cuda)
    assert choose_form("auto", engine) == expected
    assert choose_form("sparse", engine) == "sparse"
    if expected == "dense":
        assert choose_form("dense", engine) == "dense"
    else:
        with pytest.raises(ValueError, match=r"dense points need CUDA: .*--mode sparse"):
            choose_form("dense", engine)


def test_dense_points_of_blank_views_are_none_without_stereo_being_started(tmp_path, monkeypatch):
    pytest.importorskip("pycolmap")
    engine = open_engine(None)
    monkeypatch.setattr(PyColmap, "stereo", FakeEngine().__getattr__)
    white = np.ones((16, 64, 64, 3))
    assert count_points(white, tmp_path, engine, "dense") == Points(0, "dense")


# The program's arguments and failures.


def script(path: Path, *lines: str) -> str:
    """Make a program of Python lines."""
    path.write_text("\n".join([f"#!{sys.executable}", *lines]) + "\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def recorder(path: Path, version: str, options: str) -> str:
    """A stand-in that knows `options` and writes the arguments of each step to a file."""
    return script(
        path,
        "import sys",
        "if sys.argv[1] == 'help':",
        f"    print('COLMAP {version} (Commit 0 on 2026-01-01 with CUDA)')",
        "elif sys.argv[2] == '--help':",
        f"    print({options!r})",
        "else:",
        f"    open({str(path) + '.calls'!r}, 'a').write('\\t'.join(sys.argv[1:]) + '\\n')",
    )


@pytest.mark.parametrize(
    ("version", "group"), [("3.8", "Sift"), ("3.13.0", "Feature"), ("4.2.1", "Feature")]
)
def test_a_stand_in_program_gets_the_option_names_that_its_help_names(tmp_path, version, group):
    known = f"--{group}Extraction.use_gpu --{group}Matching.use_gpu arg (=1) --Mapper.num_threads"
    program = recorder(tmp_path / "colmap", version, known)
    engine, work = ColmapProgram(program), Workspace(tmp_path)
    assert engine.name.startswith(f"COLMAP {version} ")
    assert engine.has_cuda
    engine.extract(work, "280.0,280.0,128.0,128.0")
    for step in (engine.match, engine.triangulate, engine.undistort, engine.stereo, engine.fuse):
        step(work)
    calls = (tmp_path / "colmap.calls").read_text().splitlines()
    base = f"--database_path\t{tmp_path}/database.db"
    assert calls == [
        f"feature_extractor\t{base}\t--image_path\t{tmp_path}/images\t"
        "--ImageReader.camera_model\tPINHOLE\t--ImageReader.single_camera_per_image\t1\t"
        "--ImageReader.camera_params\t280.0,280.0,128.0,128.0\t"
        f"--{group}Extraction.use_gpu\t0",
        f"exhaustive_matcher\t{base}\t--{group}Matching.use_gpu\t0",
        f"point_triangulator\t{base}\t--image_path\t{tmp_path}/images\t--input_path\t"
        f"{tmp_path}/poses\t--output_path\t{tmp_path}/sparse\t--Mapper.num_threads\t1",
        f"image_undistorter\t--image_path\t{tmp_path}/images\t--input_path\t{tmp_path}/sparse\t"
        f"--output_path\t{tmp_path}/dense",
        f"patch_match_stereo\t--workspace_path\t{tmp_path}/dense\t"
        "--PatchMatchStereo.geom_consistency\t1",
        f"stereo_fusion\t--workspace_path\t{tmp_path}/dense\t--input_type\tgeometric\t"
        f"--output_path\t{tmp_path}/dense/fused.ply\t--output_type\tPLY",
    ]


def test_only_a_program_that_says_with_cuda_has_cuda(tmp_path):
    for said, expected in (("with CUDA", True), ("without CUDA", False), ("without GPU", False)):
        program = script(tmp_path / "colmap", f"print('COLMAP 3.9 (Commit 1 {said})')")
        assert ColmapProgram(program).has_cuda is expected


def test_a_missing_program_is_named():
    with pytest.raises(FileNotFoundError, match="--colmap no-such-colmap: no such program"):
        open_engine("no-such-colmap")


def test_a_file_that_cannot_be_executed_is_named(tmp_path):
    path = tmp_path / "colmap"
    path.write_text("no program")
    with pytest.raises(ValueError, match=r"colmap: cannot be executed \(no permission\)"):
        open_engine(str(path))
    path.chmod(0o755)
    with pytest.raises(ValueError, match=r"colmap: cannot be executed \(Exec format error\)"):
        open_engine(str(path))


def test_another_program_is_not_taken_for_colmap(tmp_path):
    program = script(tmp_path / "colmap", "print('usage: something else')")
    with pytest.raises(ValueError, match=r"is not COLMAP.*usage: something else"):
        open_engine(program)


def test_a_program_that_fails_is_named_with_the_last_line_that_it_said(tmp_path):
    program = script(
        tmp_path / "colmap",
        "import sys",
        "if sys.argv[1] == 'help':",
        "    sys.exit(print('COLMAP 3.8 (without CUDA)'))",
        "print('reading')",
        "print('E1 Check failed: no more disk\\n*** Aborted\\n    @ 0x7f main', file=sys.stderr)",
        "sys.exit(1)",
    )
    with pytest.raises(RuntimeError) as failure:
        count_points(np.ones((16, 32, 32, 3)), tmp_path, open_engine(program), "sparse")
    message = str(failure.value)
    assert "feature_extractor failed (exit status 1): E1 Check failed: no more disk (" in message
    assert "reading" in (tmp_path / "colmap.log").read_text()


def test_a_program_that_does_nothing_is_a_failure_and_not_zero_points(tmp_path):
    program = recorder(tmp_path / "colmap", "3.8", "")
    with pytest.raises(RuntimeError, match=r"COLMAP 3.8 .*: wrote no database database.db"):
        count_points(np.ones((16, 32, 32, 3)), tmp_path, open_engine(program), "sparse")


def test_a_failure_inside_pycolmap_names_it_in_one_line(tmp_path):
    pytest.importorskip("pycolmap")
    with pytest.raises(RuntimeError, match=r"^pycolmap \d\S*: extract_features failed: .+") as info:
        open_engine(None).extract(Workspace(tmp_path / "missing"), "1,1,1,1")
    assert "\n" not in str(info.value)


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pycolmap.*--colmap"):
        open_engine(None)


def test_a_full_disk_is_noticed_before_the_work(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="not enough disk space"):
        count_points(np.ones((16, 32, 32, 3)), tmp_path, FakeEngine(), "sparse")


# The project folder.


def fill(folder: Path) -> None:
    for name in ("images/000.png", "sparse/points3D.bin", "database.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("ours")


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_removes_what_the_first_made_and_nothing_else(tmp_path):
    project = tmp_path / "deep" / "project"
    with project_folder(project) as folder:
        fill(folder)
    (project / "notes.txt").write_text("mine")
    with project_folder(project) as folder:
        assert contents(folder) == {"notes.txt", MANIFEST}
        fill(folder)
    assert contents(project) >= {"notes.txt", "images/000.png", "database.db", MANIFEST}


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("foreign", ["images/holiday.png", "dense", "sparse/deep/model.bin"])
def test_foreign_files_under_our_names_are_refused_and_all_is_left_untouched(
    tmp_path, foreign, earlier
):
    if earlier:
        with project_folder(tmp_path) as folder:
            fill(folder)
    (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=f"such as {foreign}.*another --project"):
        project_folder(tmp_path).__enter__()
    assert contents(tmp_path) == before


def test_nothing_behind_a_link_is_removed(tmp_path):
    project, album = tmp_path / "project", tmp_path / "album"
    with project_folder(project) as folder:
        fill(folder)
    shutil.move(project / "images", album)
    (project / "images").symlink_to(album)
    with pytest.raises(FileExistsError, match="such as images"):
        project_folder(project).__enter__()
    assert (album / "000.png").exists()


def test_a_failed_run_can_be_repeated_in_its_folder(tmp_path):
    def run() -> Iterator[None]:
        with project_folder(tmp_path) as folder:
            fill(folder)
            raise RuntimeError("COLMAP failed")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="COLMAP failed"):
            run()


def test_a_run_that_was_killed_can_be_repeated_in_its_folder(tmp_path):
    with project_folder(tmp_path) as folder:
        assert (folder / MANIFEST).read_text() == f"{UNFINISHED}\n"
        fill(folder)
    (tmp_path / MANIFEST).write_text(f"{UNFINISHED}\n")  # as if it had been killed in there
    with project_folder(tmp_path) as folder:
        assert contents(folder) == {MANIFEST}
        fill(folder)
    assert "images/000.png" in (tmp_path / MANIFEST).read_text()


def test_two_runs_in_one_folder_do_not_mix(tmp_path):
    with project_folder(tmp_path / "p"), pytest.raises(OSError, match="another process"):
        project_folder(tmp_path / "p").__enter__()


def test_a_file_in_place_of_the_project_folder_is_refused(tmp_path):
    path = tmp_path / "project"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="must be a folder"):
        project_folder(path).__enter__()


def test_without_a_project_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(colmap.tempfile, "tempdir", str(tmp_path))
    with project_folder(None) as folder:
        fill(folder)
    assert not list(tmp_path.iterdir())


# The command.


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "eval_colmap.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_one_row_says_the_form_and_appends_to_the_log(box, tmp_path):
    pytest.importorskip("pycolmap")
    strip = tmp_path / "0.png"
    levels = np.round(box.views * 255).astype(np.uint8)
    Image.fromarray(np.concatenate(levels, axis=1)).save(strip)
    log, project = tmp_path / "results.csv", tmp_path / "project"
    done = run("--dir", strip, "--name", "box", "--mode", "sparse", "--log", log,
               "--project", project)  # fmt: skip
    assert done.returncode == 0, done.stderr
    name, count, form = done.stdout.rstrip("\n").split("\t")
    assert (name, form) == ("box", "sparse")
    assert int(count) > 100
    assert "INFO: pycolmap 4" in done.stderr or "INFO: pycolmap 3" in done.stderr
    assert "the paper counts dense ones" in done.stderr
    assert not re.search(r"^[IWEF]\d{8} ", done.stderr, re.M), "COLMAP's own messages"
    (row,) = read_log(log)
    assert (row["name"], row["points"], row["points_form"]) == ("box", count, "sparse")
    assert (project / "sparse" / "points3D.bin").is_file()


def test_a_folder_of_views_is_read_too(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pycolmap")
    for name in NAMES:
        Image.new("RGBA", (64, 64)).save(tmp_path / name)
    eval_colmap.main(["--dir", str(tmp_path), "--name", "nothing", "--mode", "sparse"])
    assert capsys.readouterr().out == "nothing\t0\tsparse\n"


def test_help_needs_no_heavy_import():
    done = run("--help")
    assert done.returncode == 0
    assert "--project" in done.stdout
    code = "import sys, eval_colmap; eval_colmap.build_parser(); print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "pycolmap", "PIL"} & set(modules)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--dir", "nowhere"], 2, "required: --name"),
        (["--dir", "nowhere", "--name", "a", "--mode", "fused"], 2, "invalid choice"),
        (["--dir", "nowhere", "--name", "a", "--colmap", "nope"], 1, "nope: no such program"),
        (["--dir", "nowhere", "--name", "a", "--log", "a.txt"], 1, "a.txt: a log is a .csv"),
    ],
)
def test_mistakes_end_with_one_line_and_the_exit_status(arguments, code, message):
    done = run(*arguments)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_missing_folder_of_views_is_named(capsys):
    pytest.importorskip("pycolmap")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of views"):
        eval_colmap.main(["--dir", "nowhere", "--name", "a", "--mode", "sparse"])
    assert capsys.readouterr().out == ""
