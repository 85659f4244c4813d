"""blender_script.py and render_batch.py in a real Blender."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from blender.dataset_index import read_uid_set
from blender.plan import ViewSettings, plan_cameras
from blender.process import blender_command
from common.safe_pickle import read_pickle
from multiview.cameras import orbit_pose
from multiview.depth_png import FAR, NEAR, levels_to_depth
from renderer.config import RendererConfig
from renderer.views import read_input
from tests.conftest import ROOT
from tests.renderer.photos import CENTRE, SCALE, check_masks, check_placement
from tests.renderer.small_runs import RADII

BLENDER = os.environ.get("BLENDER") or shutil.which("blender")
pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(BLENDER is None, reason="needs Blender (in $PATH or $BLENDER)"),
]

PHOTOS = Path(__file__).with_name("blender_photos.py")
BALLS = [
    ((1.0, 0.0, 0.0), (0.45, -0.20, -0.30)),
    ((0.0, 1.0, 0.0), (-0.45, 0.10, 0.25)),
    ((0.0, 0.0, 1.0), (0.00, 0.45, -0.10)),
    ((1.0, 1.0, 0.0), (0.10, -0.45, 0.30)),
]
"""Colour and place; no symmetry maps one onto another."""
RADIUS = 0.06
PLACES = np.array([place for _, place in BALLS])
LOWER, UPPER = PLACES.min(axis=0) - RADIUS, PLACES.max(axis=0) + RADIUS
EXPECTED = (PLACES - (LOWER + UPPER) / 2) / (UPPER - LOWER).max()
"""Where the balls are when the longest side is 1 and the box centred."""
Y_UP = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])


def render(model: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    arguments = [f"--object_path={model}", f"--output_dir={out}", "--device=CPU", "--threads=1"]
    command = blender_command(BLENDER, [*arguments, "--resolution=64", "--samples=4", *flags])
    return subprocess.run(command, capture_output=True, text=True)


def rendered(model: Path, out: Path, *flags: str) -> Path:
    done = render(model, out, *flags)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out / model.stem


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int64)


def balls(coloured_vertices: bool = False) -> trimesh.Scene:
    scene = trimesh.Scene()
    for colour, place in BALLS:
        ball = trimesh.creation.icosphere(4, RADIUS)
        rgba = np.array([*colour, 1.0])
        if coloured_vertices:
            ball.visual.vertex_colors = (255 * rgba).astype(np.uint8)
        else:
            material = PBRMaterial(baseColorFactor=rgba, metallicFactor=0.0, roughnessFactor=1.0)
            ball.visual = trimesh.visual.TextureVisuals(material=material)
        ball.apply_translation(place)
        scene.add_geometry(ball)
    return scene


def mask_of(colour: tuple[float, ...], image: np.ndarray) -> np.ndarray:
    on = np.array(colour) > 0
    margin = image[..., :3][..., on].min(axis=-1) - image[..., :3][..., ~on].max(axis=-1)
    return (image[..., 3] > 127) & (margin > 80)


def check_balls(folder: Path, tolerance: float = 0.75, size: int = 64) -> None:
    """Every ball is where the pose and the intrinsics of meta.pkl say, in every view."""
    intrinsics, _, _, _, poses = read_pickle(folder / "meta.pkl")
    errors = []
    for k, pose in enumerate(poses):
        image = pixels(folder / f"{k:03d}.png")
        assert image.shape == (size, size, 4)
        for (colour, _), place in zip(BALLS, EXPECTED, strict=True):
            u, v, z = intrinsics @ (pose @ [*place, 1.0])
            radius = intrinsics[0, 0] * RADIUS / (UPPER - LOWER).max() / z
            rows, columns = np.nonzero(mask_of(colour, image))
            if len(rows) < 0.8 * np.pi * radius**2:
                continue  # behind another
            errors.append((columns.mean() + 0.5 - u / z, rows.mean() + 0.5 - v / z))
    assert len(errors) > 3.5 * len(poses)
    assert np.abs(errors).max() < tolerance
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The balls in all formats."""
    folder = tmp_path_factory.mktemp("models")
    upright = balls().copy()
    upright.apply_transform(Y_UP)
    upright.export(folder / "balls.glb")
    (folder / "separate").mkdir()
    for name, content in trimesh.exchange.gltf.export_gltf(upright).items():
        (folder / "separate" / name.replace("model", "balls")).write_bytes(content)
    coloured = balls(coloured_vertices=True).to_geometry()
    coloured.export(folder / "balls.ply")
    coloured.export(folder / "balls.stl")
    turned = coloured.copy()
    turned.apply_transform(Y_UP)
    turned.export(folder / "balls.obj")
    script = Path(__file__).with_name("blender_models.py")
    described = json.dumps([(colour, place, RADIUS) for colour, place in BALLS])
    command = blender_command(BLENDER, [str(folder), described])
    command = [str(script) if part.endswith("blender_script.py") else part for part in command]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (folder / "rigged.glb").exists(), done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("camera_type", ["fixed", "random"])
def test_poses_are_those_of_the_pixels_and_the_closed_form(
    models: Path, tmp_path: Path, camera_type: str
):
    flags = [f"--camera_type={camera_type}", "--resolution=128"]
    folder = rendered(models / "balls.glb", tmp_path, *flags)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"{k:03d}.png" for k in range(16)), "meta.pkl"]
    _, azimuths, elevations, distances, poses = read_pickle(folder / "meta.pkl")
    for k in range(16):
        closed = orbit_pose(elevations[k], 2 * np.pi * k / 16, 1.5)
        np.testing.assert_allclose(poses[k], closed, atol=1e-4)
    np.testing.assert_allclose(azimuths, 2 * np.pi * np.arange(16) / 16, atol=1e-6)
    np.testing.assert_array_equal(distances, 1.5)
    planned = plan_cameras(ViewSettings(camera_type), "balls").elevations
    np.testing.assert_allclose(elevations, planned, atol=1e-9)
    assert (np.ptp(elevations) > 0.1) == (camera_type == "random")
    check_balls(folder, size=128)


@pytest.mark.parametrize("name", ["balls.fbx", "balls.ply", "balls.obj", "separate/balls.gltf",
                                  "rigged.glb", "rigged.fbx"])  # fmt: skip
def test_every_format_with_colours_is_read_upright_and_in_its_colours(
    models: Path, tmp_path: Path, name: str
):
    """The cyan light of a megawatt of the rigged files would drown all colours."""
    check_balls(rendered(models / name, tmp_path, "--num_images=4", "--elevation=10"))


def test_a_file_without_colours_has_the_same_outline_and_up_turns_one(models: Path, tmp_path: Path):
    flags = ["--num_images=2", "--samples=1"]
    with_colours = rendered(models / "balls.ply", tmp_path / "ply", *flags, "--up=z")
    check_balls(with_colours)
    without = rendered(models / "balls.stl", tmp_path / "stl", *flags)
    for k in range(2):
        a, b = (pixels(path / f"{k:03d}.png")[..., 3] for path in (with_colours, without))
        assert np.abs(a - b).mean() < 1
    lying = rendered(models / "balls.ply", tmp_path / "lying", *flags, "--up=y")
    assert (pixels(with_colours / "000.png") != pixels(lying / "000.png")).any()


def test_depth_of_a_sphere_and_of_a_plane_are_those_of_the_formulas(tmp_path: Path):
    trimesh.creation.icosphere(6, 3.0).export(tmp_path / "sphere.ply")
    flags = ["--num_images=2", "--camera_type=random"]
    folder = rendered(tmp_path / "sphere.ply", tmp_path, "--save_depth", *flags)
    rows, columns = np.mgrid[:64, :64] + 0.5
    direction = np.stack([(columns - 32) / 70, (rows - 32) / 70, np.ones((64, 64))])
    square = (direction**2).sum(axis=0)
    discriminant = 1.5**2 - square * (1.5**2 - 0.5**2)
    expected = (1.5 - np.sqrt(np.maximum(discriminant, 0))) / square
    inside = discriminant > 0.1  # not at the outline, where it falls steeply
    for k in range(2):
        levels = pixels(folder / f"{k:03d}-depth.png")
        assert (levels[discriminant < -0.05] == 65535).all()
        depth = levels_to_depth(levels)
        assert np.abs(depth - expected)[inside].max() < 2e-3
        assert NEAR < depth[inside].min() < FAR
    plain = rendered(tmp_path / "sphere.ply", tmp_path / "b", *flags)
    np.testing.assert_array_equal(pixels(plain / "001.png"), pixels(folder / "001.png"))
    trimesh.creation.box((2.0, 2.0, 1.0)).export(tmp_path / "box.stl")
    flags = ["--save_depth", "--num_images=1", "--elevation=90"]
    folder = rendered(tmp_path / "box.stl", tmp_path, *flags)
    depth = levels_to_depth(pixels(folder / "000-depth.png"))
    np.testing.assert_allclose(depth[32, 20:44], 1.5 - 0.25, atol=1e-4)


def test_a_rerun_keeps_valid_views_and_renders_a_damaged_one_again(models: Path, tmp_path: Path):
    flags = ["--num_images=4", "--camera_type=random"]
    folder = rendered(models / "balls.ply", tmp_path, *flags)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    whole = pixels(folder / "002.png")
    assert "all 4 views are complete" in render(models / "balls.ply", tmp_path, *flags).stderr
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / "002.png").write_bytes((folder / "002.png").read_bytes()[:500])
    done = render(models / "balls.ply", tmp_path, *flags)
    assert "rendering 1 of 4 views" in done.stderr
    np.testing.assert_array_equal(pixels(folder / "002.png"), whole)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"002.png"}
    done = render(models / "balls.ply", tmp_path, *flags, "--seed=1")
    assert "rendering 4 of 4 views" in done.stderr
    check_balls(folder)


def bad_models(folder: Path) -> dict[str, str]:
    """Name -> part of the message."""
    (folder / "corrupt.glb").write_bytes(b"glTF" + bytes(100))
    (folder / "text.fbx").write_text("hello")
    (folder / "empty.obj").write_text("# nothing\n")
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    header = f"ply\nformat ascii 1.0\nelement vertex 1\n{axes}end_header\n"
    (folder / "points.ply").write_text(f"{header}0 0 0\n")
    # not in the corners: importers set those that are not finite to 0
    changes = {"infinite": {"translation": [1e39, 0, 0]}, "far": {"scale": [1e25] * 3}}
    skin = {"skins": [{"joints": [0]}]}  # with which it is not brought near before the import
    for name, change in changes.items():
        (folder / name).mkdir()
        parts = trimesh.exchange.gltf.export_gltf(trimesh.Scene([trimesh.creation.box()]))
        content = json.loads(parts.pop("model.gltf"))
        content |= {"nodes": [{"mesh": 0, **change}], "scenes": [{"nodes": [0]}], **skin}
        (folder / name / "box.gltf").write_text(json.dumps(content))
        for part, raw in parts.items():
            (folder / name / part).write_bytes(raw)
    (folder / "flat.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    (folder / "model.blend").write_bytes(b"BLENDER")
    return {
        "corrupt.glb": "cannot be read",
        "text.fbx": "no binary FBX file",
        "empty.obj": "no mesh with faces",
        "points.ply": "no mesh with faces",
        "infinite/box.gltf": "not finite",
        "far/box.gltf": "could not be scaled to 1",
        "flat.obj": "longest side is 0",
        "model.blend": "expected a model of type .glb",
        "missing.glb": "no such model",
    }


def test_models_that_cannot_be_rendered_get_one_clear_line_and_no_folder(tmp_path: Path):
    for name, message in bad_models(tmp_path).items():
        done = render(tmp_path / name, tmp_path / "out")
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        assert (done.returncode, len(errors)) == (1, 1), (name, done.stdout, done.stderr)
        assert message in errors[0], (name, errors)
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


ONE_VIEW = ("--num_images=1", "--resolution=32", "--samples=1")


def test_a_model_of_which_nothing_is_visible_fails_again_and_leaves_no_folder(tmp_path: Path):
    box = trimesh.creation.box()
    material = PBRMaterial(baseColorFactor=[1.0, 1.0, 1.0, 0.0], alphaMode="BLEND")
    box.visual = trimesh.visual.TextureVisuals(material=material)
    box.export(tmp_path / "glass.glb")
    for _ in range(2):
        done = render(tmp_path / "glass.glb", tmp_path / "out", *ONE_VIEW)
        assert done.returncode == 1
        assert "nothing of it is visible (at most 0 % of a view, in 1 of 1 none)" in done.stderr
        assert not (tmp_path / "out" / "glass").exists()


@pytest.mark.parametrize(
    ("name", "damaged", "message"),
    [
        ("gone.png", False, "texture .*gone.png is missing, its faces will be magenta"),
        ("green.png", True, "texture .*green.png cannot be decoded, its faces will be magenta"),
        (r"folder\Green.PNG", False, ""),
    ],
)
def test_textures_that_cannot_be_loaded_are_warned_about_and_fail_if_strict(
    tmp_path: Path, name: str, damaged: bool, message: str
):
    """Of Windows' names the file is found."""
    model = tmp_path / "a.obj"
    model.write_text(
        "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 0 1\nv 0 1 0\nvt 0.5 0.5\n"
        "f 1/1 2/1 3/1\nf 1/1 3/1 4/1\nf 1/1 2/1 4/1\n"
    )
    (tmp_path / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
    for file in (tmp_path / "green.png", tmp_path / "folder" / "green.png"):
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (0, 255, 0)).save(file)
    if damaged:
        (tmp_path / "green.png").write_bytes(b"no image")
    done = render(model, tmp_path / "out", *ONE_VIEW, "--strict")
    assert done.returncode == bool(message)
    if not message:
        assert mask_of((0, 1, 0), pixels(tmp_path / "out" / "a" / "000.png")).sum() > 20
        return
    assert not (tmp_path / "out").exists()
    assert re.search(rf"ERROR: .*a\.obj: {message}", done.stderr)
    done = render(model, tmp_path / "out", *ONE_VIEW)
    assert done.returncode == 0
    assert re.search(rf"WARNING: .*a\.obj: {message}", done.stderr)


def test_what_blenders_importer_cannot_read_is_named_with_advice(tmp_path: Path):
    parts = trimesh.exchange.gltf.export_gltf(trimesh.Scene([trimesh.creation.box()]))
    content = json.loads(parts.pop("model.gltf"))
    content["extensionsUsed"] = content["extensionsRequired"] = ["EXT_meshopt_compression"]
    (tmp_path / "box.gltf").write_text(json.dumps(content))
    for part, raw in parts.items():
        (tmp_path / part).write_bytes(raw)
    done = render(tmp_path / "box.gltf", tmp_path / "out", *ONE_VIEW)
    assert re.search(
        r"ERROR: .*it uses EXT_meshopt_compression.* gltf-transform", done.stdout + done.stderr
    )


def test_wrong_usage_exits_2_and_a_device_that_is_not_there_is_warned_about(
    models: Path, tmp_path: Path
):
    done = render(models / "balls.glb", tmp_path, "--num_images=0")
    assert done.returncode == 2
    assert "num_images must be from 1 to 1000" in done.stderr
    done = render(models / "balls.stl", tmp_path, "--device=METAL", "--num_images=1")
    assert done.returncode == 0
    assert "the device METAL is not available" in done.stderr


@pytest.fixture
def six(tmp_path: Path, models: Path) -> tuple[Path, Path]:
    """A folder of six models, and a Blender that hangs with one of them."""
    folder = tmp_path / "six"
    folder.mkdir()
    for k, suffix in enumerate(("glb", "fbx", "ply")):
        shutil.copy(models / f"balls.{suffix}", folder / f"{k}.{suffix}")
    shutil.copy(models / "balls.glb", folder / "hangs.glb")
    (folder / "corrupt.glb").write_bytes((models / "balls.glb").read_bytes()[:5000])
    trimesh.creation.icosphere(7, 1e6).export(folder / "huge.ply")  # 327,680 faces
    program = tmp_path / Path(BLENDER).name  # which tells a Blender from a Python that has bpy
    case = 'case "$*" in *uid=hangs*) sleep 600;; esac'
    program.write_text(f'#!/bin/sh\n{case}\nexec {BLENDER} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder, program


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_batch_of_six_of_which_two_fail(tmp_path: Path, six: tuple[Path, Path], engine: str):
    if engine == "ray":
        pytest.importorskip("ray", reason="needs Ray: pip install -r requirements/render.txt")
    models, program = six
    out = tmp_path / "tree"
    command = [
        sys.executable, ROOT / "render_batch.py", "--models", models, "--out", out, "--engine",
        engine, "--blender", program, "--workers", "2", "--retries", "0", "--timeout", "40",
        "--device", "CPU", "--resolution", "32", "--samples", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "2 of 6 objects failed" in done.stderr
    assert read_uid_set(out / "uid_set.pkl") == ["0", "1", "2", "huge"]
    with (out / "failures.csv").open(newline="") as file:
        failures = {row["uid"]: row["error"] for row in csv.DictReader(file)}
    assert set(failures) == {"corrupt", "hangs"}
    assert "cannot be read" in failures["corrupt"]
    assert "took longer" in failures["hangs"]
    for uid in ("0", "1", "2"):
        for name in ("target", "input"):
            assert len(list((out / name / uid).glob("*.png"))) == 16
    (models / "hangs.glb").unlink()
    shutil.copy(models / "0.glb", models / "corrupt.glb")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert re.search(r"1 objects? rendered, 4 were complete", again.stderr)


def test_cameras_of_blender_are_read_as_it_has_them(tmp_path):
    """Renders by random cameras, whose matrices and angle come from Blender itself."""
    where = [*CENTRE, *(SCALE * RADII)]
    command = [BLENDER, "--background", "--factory-startup", "--python-exit-code", "1"]
    command += ["--python", PHOTOS, "--", tmp_path, "150", "120", "8", *where]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    views, _ = read_input(tmp_path, RendererConfig(), "cpu", tmp_path / "transforms.json")
    assert len(views.images) == 8
    check_placement(views)
    check_masks(views)
