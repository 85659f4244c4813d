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
from renderer import reconstruction
from renderer.checkpoint import CheckpointError, CheckpointMismatchError, NoCheckpointError
from renderer.config import RendererConfig
from renderer.methods.hash_grid import HashGridConfig
from renderer.methods.nerf import NeRFConfig
from renderer.methods.occupancy import OccupancyConfig
from renderer.methods.radiance_field import FieldConfig
from renderer.reconstruction import (
    NoMeshError,
    ReconstructionResult,
    build_method,
    reconstruct,
    summary,
)
from renderer.views import read_input
from tests.renderer.small_runs import (
    NUMBERED,
    OPTIONS,
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

pytestmark = pytest.mark.integration


trimesh = pytest.importorskip("trimesh")
pytest.importorskip("xatlas")
pytest.importorskip("imageio_ffmpeg")


@pytest.fixture
def only_the_mesh(monkeypatch):
    """Leave out what takes long after the training."""
    monkeypatch.setattr("renderer.export.bake", lambda mesh, *views: mesh)
    monkeypatch.setattr("renderer.export.write_glb", lambda path, mesh: path.write_bytes(b"glb"))
    monkeypatch.setattr(
        "renderer.reconstruction.write_video", lambda path, f: path.write_bytes(b"")
    )


@pytest.fixture(scope="module")
def whole(
    strip: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ReconstructionResult]:
    """One run of the tiny configuration, with all its results."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("log") / "ellipsoid"
    result = reconstruct(strip, folder, TINY, OPTIONS)
    torch.set_num_threads(threads)
    return folder, result


def test_all_files_are_there_and_no_others(whole):
    folder, _ = whole
    expected = [*NUMBERED, *RESULTS, "ckpt/last.ckpt", "images/3.jpg", "images/6.jpg", ".ckpt.lock"]
    assert files(folder) == sorted(expected)
    assert [path.name for path in folder.parent.iterdir()] == ["ellipsoid"]


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
    assert textured.visual.material.baseColorTexture.size[0] >= 512
    np.testing.assert_allclose(np.ptp(textured.bounds, axis=0).max(), mesh.extents.max(), rtol=0.02)


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
    assert metrics["watertight"] is True
    assert metrics["replaced_masks"] == []
    record = {"kind": "mlp", "preset": "default", "steps": 6, "all_steps": 6, "seed": 7}
    assert {**metrics, **record, "device": "cpu"} == metrics
    assert 0 < metrics["seconds"] < 600
    line = summary(metrics)
    for part in (f"PSNR {metrics['psnr']:.2f} dB", f"{metrics['faces']} faces", "mask IoU 0."):
        assert part in line


def test_the_psnr_is_that_of_the_textured_mesh_in_the_sixteen_views(whole):
    from multiview.cameras import orbit_cameras
    from renderer.video import render

    folder, result = whole
    written = trimesh.load(folder / "mesh.glb", force="mesh", process=False)
    x, y, z = np.asarray(written.vertices).T
    written.vertices = np.stack([x, -z, y], axis=1)  # the file has y up
    rendered = np.stack(list(render(written, orbit_cameras(16, image_size=SIZE), SIZE)))
    errors = np.square(rendered[..., :3] - ellipsoid()[..., :3]).mean(axis=(1, 2, 3))
    assert np.mean(-10 * np.log10(errors)) == pytest.approx(result.metrics["psnr"], abs=0.05)
    ours, theirs = rendered[..., 3] >= 0.5, ellipsoid()[..., 3] >= 0.5
    iou = (ours & theirs).sum() / (ours | theirs).sum()
    assert iou == pytest.approx(result.metrics["mask_iou"], abs=0.02)


def copy_of(whole, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "log" / "copy"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_the_progress_callback_is_called_and_can_end_the_run(strip, tmp_path, only_the_mesh):
    calls = []
    options = replace(OPTIONS, on_progress=lambda stage, share: calls.append((stage, share)))
    reconstruct(strip, tmp_path / "a", TINY, options)
    shares = [(k + 1) / 6 for k in range(6)]
    assert calls == [("training", share) for share in [0.0, *shares]] + [("mesh", 0.0)]

    def stop(stage: str, share: float) -> None:
        calls.append((stage, share))
        if stage == "training" and share >= 0.5:
            raise InterruptedError

    calls.clear()
    with pytest.raises(InterruptedError):
        reconstruct(strip, tmp_path / "b", TINY, replace(OPTIONS, on_progress=stop))
    assert calls[-1] == ("training", 0.5)
    assert not (tmp_path / "b" / "metrics.json").exists()
    reconstruct(strip, tmp_path / "b", TINY, replace(OPTIONS, overwrite=True))  # it is not locked


def test_the_progress_callback_is_called_for_every_frame_of_the_video(strip, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("renderer.reconstruction.FRAMES", 4)
    options = replace(OPTIONS, on_progress=lambda stage, share: calls.append((stage, share)))
    reconstruct(strip, tmp_path / "a", TINY, options)
    assert [share for stage, share in calls if stage == "video"] == [0.25, 0.5, 0.75, 1.0]


def test_a_finished_run_that_is_resumed_only_exports_again(whole, strip, tmp_path):
    folder = copy_of(whole, tmp_path)
    before = bytes_of(folder)
    for name in RESULTS:
        (folder / name).unlink()
    again = reconstruct(strip, folder, TINY, replace(OPTIONS, resume=True))
    after = bytes_of(folder)
    same = [name for name in before if name not in ("metrics.json", "rendering.mp4")]
    assert {n: after[n] for n in same} == {n: before[n] for n in same}
    assert again.metrics["psnr"] == whole[1].metrics["psnr"]
    assert again.metrics["seconds"] > 0


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
    monkeypatch.setattr(
        reconstruction, "write_preview", lambda path, *others: written.append(path.name)
    )
    reconstruct(strip, folder, config, replace(OPTIONS, resume=True))
    assert written == ["3.jpg", "6.jpg"]
    states = [
        torch.load(path / "ckpt" / "last.ckpt", weights_only=True)["state"]
        for path in (whole[0], folder)
    ]
    assert states[0]["step"] == states[1]["step"] == 6
    for name, value in states[0]["method"].items():
        assert torch.equal(value, states[1]["method"][name]), name
    assert torch.equal(states[0]["generator"], states[1]["generator"])
    assert (folder / "mesh.ply").read_bytes() == (whole[0] / "mesh.ply").read_bytes()


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_parts(
    whole, strip, tmp_path, only_the_mesh
):
    folder = copy_of(whole, tmp_path)
    path = folder / "ckpt" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    assert 0 < content["seconds"] < whole[1].metrics["seconds"]
    torch.save({**content, "seconds": 5000.0}, path)
    again = reconstruct(strip, folder, TINY, replace(OPTIONS, resume=True))
    assert 5000 < again.metrics["seconds"] < 5600


def test_the_seed_decides_what_the_networks_start_from_and_nothing_else_changes(strip):
    views = read_input(strip, TINY, "cpu").views
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    starts = [build_method(TINY, views, OPTIONS.device, seed).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    first, same, other = (state["renderer.sdf_network.lin1.weight_v"] for state in starts)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def resumed(folder: Path, strip: Path, **changes: object) -> None:
    """Resume with another configuration, or other options."""
    config = {k: v for k, v in changes.items() if k in RendererConfig.__dataclass_fields__}
    options = {k: v for k, v in changes.items() if k not in config}
    reconstruct(strip, folder, replace(TINY, **config), replace(OPTIONS, resume=True, **options))


def test_a_checkpoint_that_does_not_fit_is_refused_and_nothing_changes(whole, strip, tmp_path):
    folder = copy_of(whole, tmp_path)
    before = bytes_of(folder)
    other = write_strip(tmp_path / "other.png", 1 - 0.5 * (1 - ellipsoid()[..., :3]))
    with pytest.raises(CheckpointMismatchError, match="other views"):
        resumed(folder, other)
    with pytest.raises(CheckpointMismatchError, match=r"mlp\.steps was 6, is 9"):
        resumed(folder, strip, mlp=replace(TINY_MLP, steps=9))
    with pytest.raises(CheckpointMismatchError, match="seed was 7, is 8"):
        resumed(folder, strip, seed=8)
    with pytest.raises(CheckpointMismatchError, match="use_mask was True, is False"):
        resumed(folder, strip, use_mask=False)
    assert bytes_of(folder) == before
    checkpoint = folder / "ckpt" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        resumed(folder, strip)
    checkpoint.unlink()
    with pytest.raises(NoCheckpointError, match=r"last\.ckpt"):
        resumed(folder, strip)


def test_a_checkpoint_with_weights_of_other_shapes_is_called_damaged(whole, strip, tmp_path):
    folder = copy_of(whole, tmp_path)
    path = folder / "ckpt" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["state"]["method"]["renderer.sdf_network.lin0.bias"] = torch.zeros(3)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt.*size mismatch"):
        resumed(folder, strip)


def test_a_reconstruction_is_not_overwritten_unless_that_is_asked_for(whole, strip, tmp_path):
    folder = copy_of(whole, tmp_path)
    before = bytes_of(folder)
    with pytest.raises(FileExistsError, match=r"copy already .*mesh|input-0\.png"):
        reconstruct(strip, folder, TINY, OPTIONS)
    assert bytes_of(folder) == before


def test_overwriting_removes_the_commands_own_files_and_nothing_else(
    whole, strip, tmp_path, only_the_mesh
):
    folder = copy_of(whole, tmp_path)
    others = ["notes.txt", "input-16.png", "input-a.png", "mesh.obj", "images/mine.jpg"]
    others += ["ckpt/best.ckpt", "masked-3.png.bak", "sub/input-1.png"]
    (folder / "sub").mkdir()
    for name in others:
        (folder / name).write_text("mine")
    (folder / "images" / "5.jpg").write_text("of a former run")
    config = replace(TINY, use_mask=False)
    reconstruct(strip, folder, config, replace(OPTIONS, overwrite=True))
    for name in others:
        assert (folder / name).read_text() == "mine"
    assert not (folder / "images" / "5.jpg").exists()
    assert not list(folder.glob("masked-?.png"))
    assert (folder / "input-15.png").exists()


def test_a_bad_input_does_not_cost_the_former_results(whole, tmp_path):
    folder = copy_of(whole, tmp_path)
    before = bytes_of(folder)
    white = write_strip(tmp_path / "white.png", np.ones((16, SIZE, SIZE, 3)))
    with pytest.raises(ValueError, match="all views are white"):
        reconstruct(white, folder, TINY, replace(OPTIONS, overwrite=True))
    assert bytes_of(folder) == before


def test_two_runs_cannot_share_a_folder(strip, tmp_path):
    pytest.importorskip("fcntl")
    folder = tmp_path / "a"
    folder.mkdir()
    with (
        file_lock(folder / "ckpt"),
        pytest.raises(OSError, match="another process is writing there"),
    ):
        reconstruct(strip, folder, TINY, OPTIONS)
    assert files(folder) == [".ckpt.lock"]


def test_what_another_run_wrote_meanwhile_is_not_overwritten(strip, tmp_path, monkeypatch):
    def slowly(*arguments: object) -> object:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "mesh.ply").write_text("of the other run")
        return read_input(*arguments)

    monkeypatch.setattr(reconstruction, "read_input", slowly)
    with pytest.raises(FileExistsError, match=r"mesh\.ply"):
        reconstruct(strip, tmp_path / "a", TINY, OPTIONS)
    assert (tmp_path / "a" / "mesh.ply").read_text() == "of the other run"


def test_a_file_in_the_place_of_the_folder_is_named(strip, tmp_path):
    (tmp_path / "a").write_text("a file")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(NotADirectoryError, match="a: is a file, expected a folder"):
            reconstruct(strip, folder, TINY, OPTIONS)


def text_file(path: Path) -> Path:
    path.write_text("no image")
    return path


BAD = {
    "missing": (lambda p: p.with_name("no.png"), {}, "no.png: no such"),
    "no image": (text_file, {}, "not an image"),
    "eight views": (
        lambda p: write_strip(p, ellipsoid()[:8, ..., :3]),
        {},
        "looks like 8 views of 32 px, expected 16",
    ),
    "white": (lambda p: write_strip(p, np.ones((16, 32, 32, 3))), {}, "all views are white"),
    "empty": (
        lambda p: write_strip(p, with_alpha(0.4 * (ellipsoid()[..., 3] > 0))),
        {},
        "masks from the alpha are all empty",
    ),
    "full": (
        lambda p: write_strip(p, 0.8 * ellipsoid()[..., :3]),
        {},
        "of segmenter white are all full",
    ),
    "empty or full": (
        lambda p: write_strip(p, with_alpha(np.arange(16)[:, None, None] % 2 + np.zeros((32, 32)))),
        {},
        "masks .*are empty in views 0, 2, .* and full in views 1, 3, ",
    ),
    "transparent": (
        lambda p: write_strip(p, with_alpha(np.zeros((16, 32, 32)))),
        {},
        r"0\.png: the alpha is 0 everywhere",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_named_and_nothing_is_written(tmp_path, name):
    make, changes, message = BAD[name]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        reconstruct(make(tmp_path / "0.png"), tmp_path / "out", replace(TINY, **changes), OPTIONS)
    assert not (tmp_path / "out").exists()


def test_without_masks_all_results_are_made(strip, tmp_path):
    folder = tmp_path / "a"
    config = replace(TINY, use_mask=False, log_every=100)
    result = reconstruct(strip, folder, config, OPTIONS)
    expected = [*NUMBERED[:16], *RESULTS, "ckpt/last.ckpt", "images/6.jpg", ".ckpt.lock"]
    assert files(folder) == sorted(expected)
    assert result.metrics["mask_iou"] is None
    assert "no masks" in summary(result.metrics)


def test_the_video_of_a_radiance_field_shows_the_field(strip, tmp_path, monkeypatch):
    """Its mesh is left out: a field of ten steps has none yet, which is said at the end."""
    frames = []
    monkeypatch.setattr("renderer.export.FRAMES", 3)
    monkeypatch.setattr(reconstruction, "write_video", lambda path, some: frames.extend(some))
    monkeypatch.setattr("renderer.export.extract", lambda *grid: _no_surface())
    nerf = NeRFConfig(
        network=FieldConfig(
            grid=HashGridConfig(levels=2, features=4, base_resolution=8, max_resolution=16),
            width=16,
        ),
        occupancy=OccupancyConfig(resolution=24, decay=0.8),
        steps=10,
        rays=256,
        max_samples=1 << 13,
        length=0.04,
        mesh_resolution=24,
    )
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
    views = read_input(strip, TINY, "cpu").views
    build_method(TINY, views, OPTIONS.device, 0)
    assert "hours" not in caplog.text
    build_method(RendererConfig(kind="mlp"), views, OPTIONS.device, 0)
    assert "hours on a CPU" in caplog.text
    assert "configs/neus.yaml" in caplog.text
