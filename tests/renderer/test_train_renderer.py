"""The command `train_renderer.py`: flags, advice, signals."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import train_renderer
from renderer import reconstruction
from renderer.checkpoint import CheckpointError, CheckpointMismatchError, NoCheckpointError
from renderer.reconstruction import NoMeshError, ReconstructionOptions, ReconstructionResult
from renderer.views import MaskError
from tests.conftest import ROOT
from tests.renderer.small_runs import NUMBERED, RESULTS, TINY, TINY_YAML, files

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("xatlas")
pytest.importorskip("imageio_ffmpeg")


@pytest.mark.integration
@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_ctrl_c_ends_the_training_and_the_results_are_written(strip, tmp_path):
    (tmp_path / "long.yaml").write_text(TINY_YAML.replace("steps: 6", "steps: 100000"))
    flags = f"-i {strip} -n a -b long.yaml -l log --device cpu"
    flags += " --set save_every=1e-9 --set log_every=5"
    running = subprocess.Popen(
        [sys.executable, ROOT / "train_renderer.py", *flags.split()],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    folder, deadline = tmp_path / "log" / "a", time.monotonic() + 120
    while not (folder / "images" / "5.jpg").exists():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 130, said
    assert "stopping after this step" in said
    assert "of 100000 steps" in said
    assert "--resume continues" in said
    assert "Traceback" not in said
    assert {*RESULTS, *NUMBERED, "ckpt/last.ckpt"} <= set(files(folder))
    steps = json.loads((folder / "metrics.json").read_text())["steps"]
    assert 5 <= steps < 100000
    assert torch.load(folder / "ckpt" / "last.ckpt", weights_only=True)["state"]["step"] == steps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "long.yaml"]


def test_the_published_flags_are_known():
    flags = ["-i", "0.png", "-n", "a", "-b", "x.yaml", "-l", "logs", "-s", "1", "-g", "1,", "-r"]
    args = train_renderer.parse([*flags, "--fp16"])
    assert (args.image_path, args.name, args.base) == (Path("0.png"), "a", Path("x.yaml"))
    assert (args.log, args.seed, args.gpus) == (Path("logs"), 1, "1,")
    assert args.resume is args.fp16 is True
    defaults = train_renderer.parse(["-i", "0.png", "-n", "a"])
    assert (defaults.log, defaults.seed, defaults.gpus) == (Path("output/renderer"), 6033, "0,")
    assert defaults.base.name == "neus.yaml"


@pytest.mark.parametrize(
    ("device", "gpus", "cuda", "expected"),
    [
        ("auto", "0,", True, "cuda:0"),
        ("auto", "1,0", True, "cuda:1"),
        ("auto", "3", True, "cuda:3"),
        ("auto", "0,", False, "auto"),
        ("auto", "1,", False, "auto"),
        ("cpu", "0,", True, "cpu"),
        ("mps", "0,", False, "mps"),
    ],
)
def test_the_first_gpu_of_the_list_computes(monkeypatch, caplog, device, gpus, cuda, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert train_renderer.choose_device(device, gpus) == expected
    assert ("--gpus 1, has no effect" in caplog.text) == (gpus == "1,")
    assert ("only one GPU is used" in caplog.text) == (gpus == "1,0")


def full_disk() -> OSError:
    error = OSError("x")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error


RGBA, NO_MASKS = "RGBA views", "--set use_mask=false"


@pytest.mark.parametrize(
    ("error", "resumable", "flags"),
    [
        (NoCheckpointError("x"), False, ["--resume", "--overwrite"]),
        (CheckpointError("x"), True, ["--overwrite"]),
        (CheckpointMismatchError("x"), True, ["same flags", "--overwrite", "--name"]),
        (FileExistsError("x"), False, ["--overwrite", "--name"]),
        (FileExistsError("x"), True, ["--resume", "--overwrite", "--name"]),
        (MaskError("x"), False, ["better alpha", NO_MASKS]),
        (MaskError("x", "white"), False, [RGBA, "--set segmenter=u2net or carvekit", NO_MASKS]),
        (MaskError("x", "u2net"), False, [RGBA, "--set segmenter=carvekit or white", NO_MASKS]),
        (NoMeshError("x"), True, ["--resume"]),
        (FloatingPointError("x"), True, ["--seed"]),
        (MemoryError("x"), False, ["--set mlp.rays=48", "--preset fast"]),
        (full_disk(), False, ["run the same command again"]),
        (full_disk(), True, ["--resume"]),
        (ValueError("x"), True, []),
        (FileNotFoundError("x"), False, []),
    ],
)
def test_the_command_adds_the_flags_that_help(tmp_path, error, resumable, flags):
    if resumable:
        (tmp_path / "ckpt").mkdir()
        (tmp_path / "ckpt" / "last.ckpt").touch()
    with pytest.raises(type(error)) as caught, train_renderer.flag_advice(tmp_path, TINY):
        raise error
    said = str(caught.value)
    assert said.startswith("x; ") == bool(flags)
    for flag in flags:
        assert flag in said
    for flag in ("--resume", "--overwrite", "--name", "--set", "segmenter"):
        assert (flag in said) == any(flag in expected for expected in flags)


def test_a_full_disk_is_overcome_by_overwriting_only_what_is_in_the_way(tmp_path):
    (tmp_path / "mesh.ply").touch()
    with (
        pytest.raises(OSError, match="start over with --overwrite"),
        train_renderer.flag_advice(tmp_path, TINY),
    ):
        raise full_disk()


def test_the_command_names_flags_that_improve_a_result(caplog):
    caplog.set_level("INFO")
    good, poor = ({"replaced_masks": a, "mask_iou": b} for a, b in (([], 0.9), ([3], 0.5)))
    train_renderer.log_hints(ReconstructionResult(good, None), "default")
    assert not caplog.records
    train_renderer.log_hints(ReconstructionResult(poor, 2), "default")
    for flag in ("--set repair_masks=false", "--preset best", "--resume"):
        assert flag in caplog.text


def test_the_command_passes_on_its_flags(strip, tmp_path, monkeypatch, caplog):
    (tmp_path / "tiny.yaml").write_text(TINY_YAML)
    calls = []

    def record(*arguments: object) -> ReconstructionResult:
        calls.append(arguments)
        numbers = {"seconds": 1, "psnr": 2, "field_psnr": 3, "mask_iou": None, "replaced_masks": []}
        hygiene = {"watertight": True, "manifold": False, "textured_faces": 12345}
        (tmp_path / "a").mkdir()
        trimesh.creation.box((1, 2, 4)).export(tmp_path / "a" / "mesh.glb")
        return ReconstructionResult({**numbers, **hygiene}, None)

    monkeypatch.setattr(reconstruction, "reconstruct", record)
    flags = ["-i", strip, "-n", "a", "-l", tmp_path, "-b", tmp_path / "tiny.yaml", "--fp16"]
    flags += ["-s", "5", "--device", "cpu", "--preset", "fast", "--overwrite"]
    flags += ["--export", "glb", "stl", "--size_mm", "50", "--faces", "700"]
    caplog.set_level("INFO")
    flags += ["--texture_size", "2048", "--film_size", "720"]
    train_renderer.main([*map(str, flags), "--set", "mlp.steps=3"])
    ((image, folder, config, options),) = calls
    assert (image, folder) == (strip, tmp_path / "a")
    assert (config.mlp.steps, config.mlp.rays, config.mlp.half) == (3, 1536, True)
    assert (config.texture_size, config.film_size) == (2048, 720)
    assert options == ReconstructionOptions(
        5, torch.device("cpu"), "fast", resume=False, overwrite=True
    )
    assert config.faces == 700
    assert "--fp16 has no effect on cpu" in caplog.text
    assert "closed, not manifold, 12,345 faces" in caplog.text
    written = trimesh.load(tmp_path / "a" / "mesh.stl")
    np.testing.assert_allclose(written.extents, [12.5, 50, 25])  # y of the .glb is up
    assert (tmp_path / "a" / "mesh.print.json").exists()
    assert "volume_cm3 15.625" in caplog.text


def test_a_folder_is_no_configuration_file(strip, tmp_path):
    flags = ["-i", str(strip), "-n", "a", "-l", str(tmp_path / "log"), "--device", "cpu"]
    with pytest.raises(ValueError, match="is a folder, expected a configuration file"):
        train_renderer.main([*flags, "-b", str(tmp_path)])
