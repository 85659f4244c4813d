"""Whole reconstructions: results, resuming, replacing, failures.

One file, because the tests share finished runs of each method, which are slow to make.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.files import file_lock
from multiview.cameras import orbit_cameras
from renderer import reconstruction
from renderer.checkpoint import CheckpointError, CheckpointMismatchError
from renderer.config import RendererConfig
from renderer.methods.hash_grid import HashGridConfig
from renderer.methods.nerf import NeRFConfig
from renderer.methods.neus_grid import GridNeuSConfig
from renderer.methods.occupancy import OccupancyConfig
from renderer.methods.radiance_field import FieldConfig
from renderer.reconstruction import (
    NoMeshError,
    ReconstructionResult,
    build_method,
    reconstruct,
    summary,
)
from renderer.video import render
from renderer.views import read_input
from tests.renderer.photos import CENTRE, SCALE, take_photos, write_photos
from tests.renderer.small_runs import (
    NUMBERED,
    OPTIONS,
    RADII,
    RESULTS,
    SIZE,
    TINY,
    TINY_MLP,
    ellipsoid,
    files,
    read_image,
    with_alpha,
    write_strip,
)
from tests.renderer.traced import overlap

SMALL_GRID = RendererConfig(grid=GridNeuSConfig(resolution=32, steps=10, rays=256))
pytestmark = pytest.mark.integration
trimesh = pytest.importorskip("trimesh")
pytest.importorskip("xatlas")
pytest.importorskip("imageio_ffmpeg")
imageio = pytest.importorskip("imageio.v3")


@pytest.fixture
def only_the_mesh(monkeypatch):
    """Leave out what takes long after the training."""
    monkeypatch.setattr("renderer.export.bake", lambda mesh, *views: mesh)
    monkeypatch.setattr("renderer.export.write_glb", lambda path, mesh: path.write_bytes(b"glb"))
    monkeypatch.setattr(reconstruction, "write_video", lambda path, _: path.write_bytes(b""))


@pytest.fixture(scope="module")
def whole(strip: Path, tmp_path_factory) -> tuple[Path, ReconstructionResult]:
    """One run of the tiny configuration, with all its results."""
    folder = tmp_path_factory.mktemp("log") / "ellipsoid"
    return folder, reconstruct(strip, folder, TINY, OPTIONS)


def test_all_files_are_there_and_no_others(whole):
    folder, _ = whole
    expected = [*NUMBERED, *RESULTS, "ckpt/last.ckpt", "images/3.jpg", "images/6.jpg", ".ckpt.lock"]
    assert files(folder) == sorted(expected)
    assert [path.name for path in folder.parent.iterdir()] == ["ellipsoid"]


@pytest.mark.parametrize("kept", [False, True])
def test_images_by_any_cameras_give_a_mesh_in_their_coordinates_on_request(
    kept, only_the_mesh, tmp_path
):
    cameras = write_photos(tmp_path / "in", take_photos(8))
    options = replace(OPTIONS, cameras=cameras, keep_coordinates=kept)
    reconstruct(tmp_path / "in", tmp_path / "out", SMALL_GRID, options)
    said = json.loads((tmp_path / "out" / "coordinates.json").read_text())
    mesh = trimesh.load(tmp_path / "out" / "mesh.ply", process=False)
    assert mesh.is_watertight
    assert said["meshes"] == ("given" if kept else "own")
    if not kept:
        assert mesh.extents.max() == pytest.approx(1, abs=0.1)
        mesh.apply_transform(said["own_to_given"])
    assert mesh.volume > 0
    expected = [CENTRE - SCALE * RADII, CENTRE + SCALE * RADII]
    np.testing.assert_allclose(mesh.bounds, expected, atol=0.15 * SCALE * RADII.max())
    assert [name for name in files(tmp_path / "out") if name.startswith("input")] == NUMBERED[:8]


def test_the_views_are_written_with_the_masks_as_alpha(whole, strip):
    folder, _ = whole
    views = np.split(read_image(strip), 16, axis=1)
    for k in range(16):
        np.testing.assert_array_equal(read_image(folder / f"input-{k}.png"), views[k])
        masked = read_image(folder / f"masked-{k}.png")
        np.testing.assert_array_equal(masked[..., :3], views[k])
        assert np.abs(masked[..., 3] / 255 - ellipsoid()[k, ..., 3]).mean() < 0.02


def test_the_meshes_are_closed_coloured_and_the_same_shape(whole):
    folder, result = whole
    mesh = trimesh.load(folder / "mesh.ply", process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(result.metrics["volume"], rel=1e-4)
    assert len(mesh.faces) == result.metrics["faces"]
    assert mesh.visual.kind == "vertex"
    assert len(np.unique(mesh.visual.vertex_colors, axis=0)) > 100
    textured = trimesh.load(folder / "mesh.glb", force="mesh")
    assert textured.visual.material.baseColorTexture.size == (512, 512)
    np.testing.assert_allclose(np.ptp(textured.bounds, axis=0).max(), mesh.extents.max(), rtol=0.02)


def test_the_film_is_as_large_as_configured_whatever_the_size_of_the_views(whole):
    film = imageio.imread(whole[0] / "rendering.mp4", plugin="FFMPEG")
    assert film.shape == (180, 48, 48, 3)
    assert (film[:, 0, 0] > 245).all()
    assert (film[:, 24, 24] < 245).any(axis=-1).all()


def test_previews_show_colour_mask_and_normals_of_another_view_each_time(whole):
    early, late = (read_image(whole[0] / "images" / name) for name in ("3.jpg", "6.jpg"))
    for shown in (early, late):
        assert shown.shape == (SIZE, 3 * SIZE, 3)
        color, mask, normal = np.split(shown.astype(float), 3, axis=1)
        assert (color[0, 0] > 240).all()
        assert (mask[0, 0] < 15).all()
        assert (normal[0, 0] > 240).all()
        assert (mask[SIZE // 2, SIZE // 2] > 200).all()
        assert np.abs(mask - mask.mean(axis=-1, keepdims=True)).max() < 10  # grey
        # Seen from above, the top of the ball points up: more blue than where it faces sideways
        assert normal[SIZE // 4, SIZE // 2, 2] > normal[-SIZE // 4, SIZE // 2, 2] + 20
    assert np.abs(early.astype(int) - late).max() > 50


def test_the_metrics_say_how_good_it_is_and_what_made_it(whole, strip):
    folder, result = whole
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == result.metrics
    assert result.stopped_by is None
    assert 10 < metrics["psnr"] < 40
    assert 10 < metrics["field_psnr"] < 40
    assert 0.4 < metrics["mask_iou"] < 1
    assert 0 < sum(metrics["stage_seconds"].values()) <= metrics["seconds"] + 0.5 < 600
    stages = ["masks", "initial shape", "training", "mesh", "texture", "film"]
    assert list(metrics["stage_seconds"]) == stages
    record = {"kind": "mlp", "preset": "default", "steps": 6, "all_steps": 6, "seed": 7}
    record |= {"device": "cpu", "watertight": True, "manifold": True, "replaced_masks": []}
    record |= {"consistent_normals": True, "clean": True, "misfits": []}
    assert {**metrics, **record} == metrics
    line = summary(metrics)
    hygiene = f"closed, manifold, {metrics['textured_faces']:,} faces"
    for part in (f"PSNR {metrics['psnr']:.2f} dB", hygiene, "mask IoU 0."):
        assert part in line


def test_the_psnr_is_that_of_the_textured_mesh_in_the_sixteen_views(whole):
    folder, result = whole
    written = trimesh.load(folder / "mesh.glb", force="mesh", process=False)
    x, y, z = np.asarray(written.vertices).T
    written.vertices = np.stack([x, -z, y], axis=1)  # the file has y up
    rendered = np.stack(list(render(written, orbit_cameras(16, image_size=SIZE), SIZE)))
    errors = np.square(rendered[..., :3] - ellipsoid()[..., :3]).mean(axis=(1, 2, 3))
    assert np.mean(-10 * np.log10(errors)) == pytest.approx(result.metrics["psnr"], abs=0.05)
    iou = overlap(rendered[..., 3], TRUE)
    assert iou == pytest.approx(result.metrics["mask_iou"], abs=0.02)


def copy_of(whole, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "log" / "copy"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_the_progress_callback_is_called_and_can_end_the_run(strip, tmp_path, monkeypatch):
    """Without masks, too, all results are made."""
    calls = []
    monkeypatch.setattr("renderer.reconstruction.FRAMES", 4)
    options = replace(OPTIONS, on_progress=lambda *call: calls.append(call))
    config = replace(TINY, use_mask=False, log_every=100)
    result = reconstruct(strip, tmp_path / "a", config, options)
    training = [("training", k / 6) for k in range(7)]
    assert calls == [*training, ("mesh", 0.0), *(("video", k / 4) for k in range(1, 5))]
    expected = [*NUMBERED[:16], *RESULTS, "ckpt/last.ckpt", "images/6.jpg", ".ckpt.lock"]
    assert files(tmp_path / "a") == sorted(expected)
    assert result.metrics["mask_iou"] is None
    assert "no masks" in summary(result.metrics)

    def stop(stage: str, share: float) -> None:
        calls.append((stage, share))
        if stage == "training" and share >= 0.5:
            raise InterruptedError

    for _ in range(2):  # the folder is not locked the second time
        with pytest.raises(InterruptedError):
            reconstruct(strip, tmp_path / "b", TINY, replace(OPTIONS, on_progress=stop))
        assert calls[-1] == ("training", 0.5)
        assert not (tmp_path / "b" / "metrics.json").exists()
        shutil.rmtree(tmp_path / "b")


def test_a_finished_run_that_is_resumed_only_exports_again(whole, strip, tmp_path):
    folder = copy_of(whole, tmp_path)
    path = folder / "ckpt" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    assert 0 < content["seconds"] < whole[1].metrics["seconds"]
    torch.save({**content, "seconds": 5000.0}, path)
    before = bytes_of(folder)
    for name in RESULTS:
        (folder / name).unlink()
    larger = replace(TINY, film_size=64)  # only the export depends on it
    again = reconstruct(strip, folder, larger, replace(OPTIONS, resume=True))
    after = bytes_of(folder)
    same = [name for name in before if name not in ("metrics.json", "rendering.mp4")]
    assert {n: after[n] for n in same} == {n: before[n] for n in same}
    assert again.metrics["psnr"] == whole[1].metrics["psnr"]
    assert 5000 < again.metrics["seconds"] < 5600


def test_a_killed_run_that_is_resumed_ends_with_the_same_bits(
    whole, strip, tmp_path, monkeypatch, only_the_mesh
):
    """Killed in step 3, after the checkpoint of step 2."""
    write = reconstruction.write_checkpoint

    def die(path: Path, identity: object, state: dict, seconds: float) -> None:
        if state["step"] == 3:
            raise SystemExit
        write(path, identity, state, seconds)

    folder, config = tmp_path / "killed", replace(TINY, save_every=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(reconstruction, "write_checkpoint", die)
        with pytest.raises(SystemExit):
            reconstruct(strip, folder, config, OPTIONS)
    assert not set(RESULTS) & set(files(folder))
    written = []
    monkeypatch.setattr(reconstruction, "write_preview", lambda path, *_: written.append(path.name))
    reconstruct(strip, folder, config, replace(OPTIONS, resume=True))
    assert written == ["3.jpg", "6.jpg"]
    paths = (whole[0] / "ckpt/last.ckpt", folder / "ckpt/last.ckpt")
    once, resumed = (torch.load(path, weights_only=True)["state"] for path in paths)
    torch.testing.assert_close(once, resumed, rtol=0, atol=0)
    assert (folder / "mesh.ply").read_bytes() == (whole[0] / "mesh.ply").read_bytes()


def test_the_seed_decides_what_the_networks_start_from_and_nothing_else_changes(strip):
    views, _ = read_input(strip, TINY, "cpu")
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    starts = [build_method(TINY, views, OPTIONS.device, seed).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    first, same, other = (state["renderer.sdf_network.lin1.weight_v"] for state in starts)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_checkpoint_that_does_not_fit_is_refused_and_nothing_changes(whole, strip, tmp_path):
    folder = copy_of(whole, tmp_path)
    before = bytes_of(folder)
    other = write_strip(tmp_path / "other.png", 1 - 0.5 * (1 - ellipsoid()[..., :3]))
    with pytest.raises(CheckpointMismatchError, match="other views"):
        reconstruct(other, folder, TINY, replace(OPTIONS, resume=True))
    longer = replace(TINY, mlp=replace(TINY_MLP, steps=9))
    with pytest.raises(CheckpointMismatchError, match=r"mlp\.steps was 6, is 9"):
        reconstruct(strip, folder, longer, replace(OPTIONS, resume=True))
    assert bytes_of(folder) == before
    checkpoint = folder / "ckpt" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["state"]["method"]["renderer.sdf_network.lin0.bias"] = torch.zeros(3)
    torch.save(content, checkpoint)
    with pytest.raises(CheckpointError, match=r"last\.ckpt.*size mismatch"):
        reconstruct(strip, folder, TINY, replace(OPTIONS, resume=True))


def test_overwriting_removes_the_commands_own_files_and_nothing_else(
    whole, strip, tmp_path, only_the_mesh
):
    folder = copy_of(whole, tmp_path)
    for name in ("images/5.jpg", "notes.txt", "images/mine.jpg"):
        (folder / name).write_text("mine")
    config = replace(TINY, use_mask=False)
    reconstruct(strip, folder, config, replace(OPTIONS, overwrite=True))
    assert (folder / "notes.txt").read_text() == (folder / "images/mine.jpg").read_text() == "mine"
    assert not (folder / "images" / "5.jpg").exists()
    assert not list(folder.glob("masked-?.png"))
    assert (folder / "input-15.png").exists()


def test_former_results_stay_with_a_bad_input_or_without_leave_to_overwrite(whole, strip, tmp_path):
    folder = copy_of(whole, tmp_path)
    before = bytes_of(folder)
    white = write_strip(tmp_path / "white.png", np.ones((16, SIZE, SIZE, 3)))
    with pytest.raises(ValueError, match="all views are white"):
        reconstruct(white, folder, TINY, replace(OPTIONS, overwrite=True))
    with pytest.raises(FileExistsError, match=r"copy already .*mesh|input-0\.png"):
        reconstruct(strip, folder, TINY, OPTIONS)
    assert bytes_of(folder) == before


def test_two_runs_cannot_share_a_folder(strip, tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    folder = tmp_path / "a"
    folder.mkdir()
    busy = pytest.raises(OSError, match="another process is writing there")
    with file_lock(folder / "ckpt"), busy:
        reconstruct(strip, folder, TINY, OPTIONS)
    assert files(folder) == [".ckpt.lock"]

    def slowly(*arguments: object) -> object:
        (folder / "mesh.ply").write_text("of the other run")
        return read_input(*arguments)

    monkeypatch.setattr(reconstruction, "read_input", slowly)
    with pytest.raises(FileExistsError, match=r"mesh\.ply"):
        reconstruct(strip, folder, TINY, OPTIONS)
    assert (folder / "mesh.ply").read_text() == "of the other run"


TRUE = ellipsoid()[..., 3]
BAD = {
    "all views are white": np.ones((16, 32, 32, 3)),
    "masks from the alpha are all empty": with_alpha(0.4 * (TRUE > 0)),
    "of segmenter white are all full": 0.8 * ellipsoid()[..., :3],
    "masks .*are empty in views 0, 2, .* and full in views 1, 3, ": with_alpha(
        np.arange(16)[:, None, None] % 2 + np.zeros((32, 32))
    ),
    r"0\.png: the alpha is 0 everywhere": with_alpha(np.zeros((16, 32, 32))),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_input_is_named_and_nothing_is_written(tmp_path, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(write_strip(tmp_path / "0.png", BAD[message]), tmp_path / "out", TINY, OPTIONS)
    assert not (tmp_path / "out").exists()


def test_the_video_of_a_radiance_field_shows_the_field(strip, tmp_path, monkeypatch):
    """Its mesh is left out: a field of ten steps has none yet, which is said at the end."""
    frames = []
    monkeypatch.setattr("renderer.export.FRAMES", 3)
    monkeypatch.setattr(reconstruction, "write_video", lambda path, some: frames.extend(some))
    monkeypatch.setattr("renderer.export.extract", lambda *grid: _no_surface())
    grid = HashGridConfig(levels=2, features=4, base_resolution=8, max_resolution=16)
    occupancy = OccupancyConfig(resolution=24, decay=0.8)
    sizes = {
        "steps": 10,
        "rays": 256,
        "max_samples": 1 << 13,
        "length": 0.04,
        "mesh_resolution": 24,
    }
    nerf = NeRFConfig(FieldConfig(grid, width=16), occupancy, **sizes)
    config = RendererConfig(kind="nerf", nerf=nerf, log_every=100)
    folder = tmp_path / "a"
    with pytest.raises(NoMeshError, match=r"10 of 10 steps \(no surface"):
        reconstruct(strip, folder, config, OPTIONS)
    assert len(frames) == 3
    assert {frame.shape for frame in frames} == {(SIZE, SIZE, 3)}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    color = read_image(folder / "images" / "10.jpg")[:, :SIZE].astype(int)
    assert np.ptp(frames[0]) > 10
    # The preview is of view 5, azimuth 112.5; the second frame is from 120 degrees
    nearest, other = (np.abs(frames[k].astype(int) - color).mean() for k in (1, 2))
    assert nearest < min(10, other)


def _no_surface() -> None:
    raise ValueError("no surface")


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_a_memory_error_on_every_device(strip, tmp_path, monkeypatch, error):
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(reconstruction, "train", fail)
    with pytest.raises(MemoryError, match="kind mlp with 96 rays"):
        reconstruct(strip, tmp_path / "a", TINY, OPTIONS)


def test_the_published_networks_on_a_cpu_are_warned_of_and_small_ones_are_not(strip, caplog):
    views, _ = read_input(strip, TINY, "cpu")
    build_method(TINY, views, OPTIONS.device, 0)
    assert "hours" not in caplog.text
    build_method(RendererConfig(kind="mlp"), views, OPTIONS.device, 0)
    assert "hours on a CPU" in caplog.text
    assert "configs/neus.yaml" in caplog.text
