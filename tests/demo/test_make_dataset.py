from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("embreex", reason="pip install -r requirements/demo.txt")
pytest.importorskip("manifold3d", reason="pip install -r requirements/demo.txt")

from blender.dataset_index import read_uid_set
from common.files import file_lock
from demo import make_dataset
from demo.make_dataset import HELD_OUT_SEED, is_held_out, list_real_objects, list_toys, main
from ldm.data.folder import FolderDataset, read_meta
from ldm.data.loader import DataConfig, make_loader, open_dataset
from tests.conftest import ROOT

CUBE = """mtllib cube.mtl
v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nv 1 0 1\nv 1 1 1\nv 0 1 1
usemtl red\nf 1 4 3 2\nf 5 6 7 8
usemtl green\nf 1 2 6 5\nf 3 4 8 7
usemtl blue\nf 2 3 7 6\nf 1 5 8 4
"""
BOXES = [f"box{n}" for n in range(30)]
TRAINED = [name for name in BOXES if not is_held_out(f"blendswap-cc-0-{name}")]
COLOURS = "newmtl red\nKd 1 0 0\nnewmtl green\nKd 0 1 0\nnewmtl blue\nKd 0 0 1\n"


def make_furniture(folder: Path, models: dict[str, str]) -> Path:
    """An archive as Sweet Home 3D's, of these models."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "BlendSwap-CC-0.sh3f", "w") as archive:
        lines = []
        for number, (name, content) in enumerate(models.items(), 1):
            archive.writestr(f"models/{name}/{name}.obj", content)
            archive.writestr(f"models/{name}/cube.mtl", COLOURS)
            lines.append(f"model#{number}=/models/{name}/{name}.obj")
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join(lines))
    return folder


def make(out: Path, *flags: str) -> None:
    main(["--output", str(out), "--size", "16", "--workers", "1", *flags])


def test_the_set_is_one_that_training_reads(tmp_path: Path):
    make(tmp_path / "set", "--toys", "3")
    source = open_dataset(str(tmp_path / "set"))
    assert isinstance(source, FolderDataset)
    assert [uid.decode() for uid in source.uids] == [f"toy-{n:010d}" for n in range(3)]
    batch = next(iter(make_loader(source, DataConfig(batch_size=3, num_workers=0), 16, 16)))
    assert batch.target_images.shape == (3, 16, 3, 16, 16)
    assert batch.target_images.float().std() > 10
    elevations = read_meta(tmp_path / "set/input/toy-0000000000/meta.pkl", 16)["elevations"]
    assert elevations.min() >= np.deg2rad(-10)
    assert elevations.max() <= np.deg2rad(40)
    assert elevations.std() > np.deg2rad(5)


def test_a_second_run_makes_only_what_is_missing_or_was_removed(tmp_path: Path, monkeypatch):
    make(tmp_path, "--toys", "2")
    kept = tmp_path / "target" / "toy-0000000001" / "003.png"
    before = kept.stat().st_mtime_ns
    made: list[int] = []
    real = make_dataset.make_toy
    monkeypatch.setattr(make_dataset, "make_toy", lambda seed: made.append(seed) or real(seed))
    make(tmp_path, "--toys", "3")
    assert made == [2]
    assert kept.stat().st_mtime_ns == before
    assert len(read_uid_set(tmp_path / "uid_set.pkl")) == 3
    shutil.rmtree(tmp_path / "input" / "toy-0000000001")
    make(tmp_path, "--toys", "3")
    assert made == [2, 1]
    assert (tmp_path / "input" / "toy-0000000001" / "015.png").is_file()


def test_one_process_at_a_time_writes_a_set(tmp_path: Path):
    busy = pytest.raises(OSError, match="another process is writing there")
    with file_lock(tmp_path / "uid_set.pkl"), busy:
        make(tmp_path, "--toys", "1")


def fail_with(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Let a function of make_dataset raise an error the first time it is called."""
    real, errors = getattr(make_dataset, name), [error]

    def fail_once(*args: object) -> object:
        if errors:
            raise errors.pop()
        return real(*args)

    monkeypatch.setattr(make_dataset, name, fail_once)


def failures(folder: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO((folder / "failures.csv").read_text())))[1:]


@pytest.mark.parametrize(
    ("function", "error", "row"),
    [
        ("make_toy", ValueError(), "ValueError"),
        ("render_view_folders", OSError("disk full"), "disk full"),
        ("render_view_folders", IndexError("index 3"), "IndexError: index 3"),
        ("ground_truth_mesh", RuntimeError("Not\nManifold"), "RuntimeError: Not Manifold"),
    ],
)
def test_no_error_of_a_toy_stops_the_others_but_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, error: Exception, row: str
):
    fail_with(monkeypatch, function, error)
    with pytest.raises(SystemExit) as end:
        make(tmp_path, "--toys", "2", "--held_out")
    assert end.value.code == 1
    assert read_uid_set(tmp_path / "uid_set.pkl") == ["toy-1000000001"]
    assert failures(tmp_path) == [["toy-1000000000", row]]
    make(tmp_path, "--toys", "2", "--held_out")
    assert failures(tmp_path) == []


@pytest.mark.parametrize(
    ("function", "error"),
    [("make_toy", KeyboardInterrupt()), ("render_view_folders", MemoryError())],
)
def test_a_lack_of_memory_or_an_interrupt_ends_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, error: BaseException
):
    make(tmp_path, "--toys", "1")
    fail_with(monkeypatch, function, error)
    with pytest.raises(type(error)):
        make(tmp_path, "--toys", "3")
    assert read_uid_set(tmp_path / "uid_set.pkl") == ["toy-0000000000"]


def test_a_lack_of_memory_while_furniture_is_read_is_not_the_models_fault(tmp_path, monkeypatch):
    (obj,) = furniture_objects(tmp_path / "furniture", [CUBE])

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("trimesh.load", fail)
    with pytest.raises(MemoryError):
        make_dataset.render_object(obj, tmp_path, 16, meshes=False)


def furniture_objects(folder: Path, contents: list[str]) -> list[make_dataset.DatasetObject]:
    """Objects for training, one of each content."""
    make_furniture(folder, dict(zip(TRAINED, contents, strict=False)))
    return list_real_objects(folder, 1, held_out=False)


@pytest.mark.parametrize(
    ("error", "usable"), [(IndexError("odd face"), True), (OSError("disk full"), False)]
)
def test_a_set_is_usable_without_odd_furniture_but_not_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, usable: bool
):
    first, second = furniture_objects(tmp_path / "furniture", [CUBE, CUBE])
    fail_with(monkeypatch, "render_view_folders", error)
    out = tmp_path / "set"
    out.mkdir()
    assert make_dataset.render_set([first, second], out, 16, meshes=False, workers=1) == usable
    assert read_uid_set(out / "uid_set.pkl") == [second.uid]
    assert [row[0] for row in failures(out)] == [first.uid]


def test_an_empty_set_is_not_usable(tmp_path: Path):
    objects = furniture_objects(tmp_path / "furniture", ["f 1 2 3\n"])
    assert not make_dataset.render_set(objects, tmp_path, 16, meshes=False, workers=1)
    assert len(failures(tmp_path)) == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("failing", ["", "demo-model/train", "demo-model/held-out"])
def test_make_demo_model_trains_only_on_usable_sets(tmp_path: Path, failing: str):
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    case = f'case "$*" in *make_dataset*"{failing or "none"} "*) exit 1;; esac'
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{case}\n')
    python.chmod(0o755)
    (tmp_path / "bin" / "pip").touch()
    for stamp in (".runtime", ".train", ".demo", ".eval"):
        (tmp_path / stamp).touch()
    command = ["make", "demo-model", f"VENV={tmp_path}", f"DEMO={tmp_path}/demo-model"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    calls = (tmp_path / "calls").read_text()
    assert (done.returncode == 0) == (not failing), done.stderr
    assert ("train_syncdreamer.py" in calls) == (not failing)
    assert ("demo.evaluate" in calls) == (not failing)


@pytest.mark.integration
def test_two_processes_make_the_same_set(tmp_path: Path):
    make(tmp_path / "one", "--toys", "2")
    make(tmp_path / "two", "--toys", "2", "--workers", "2")
    for path in (tmp_path / "one" / "target").rglob("*.png"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(other)))


def test_held_out_objects_are_never_trained_on(tmp_path: Path):
    trained, held = list_toys(50, held_out=False), list_toys(50, held_out=True)
    assert {s.seed for s in trained}.isdisjoint(s.seed for s in held)
    assert min(s.seed for s in held) == HELD_OUT_SEED
    folder = make_furniture(tmp_path / "furniture", {f"box{n}": CUBE for n in range(40)})
    both = (list_real_objects(folder, 2, held_out) for held_out in (False, True))
    seen, unseen = ({obj.furniture.uid for obj in objects} for objects in both)
    assert seen.isdisjoint(unseen)
    assert len(seen | unseen) == 40
    assert 0 < len(unseen) < 15
    assert all(map(is_held_out, unseen))


def test_held_out_shapes_are_written_where_the_views_show_them(tmp_path: Path):
    import trimesh

    make(tmp_path, "--toys", "1", "--held_out")
    uid = f"toy-{HELD_OUT_SEED:010d}"
    shape = trimesh.load(tmp_path / "mesh" / f"{uid}.ply")
    size = shape.extents / shape.extents.max()
    views = (tmp_path / "target" / uid / name for name in ("000.png", "004.png"))
    alpha = np.stack([np.asarray(Image.open(path))[..., 3] for path in views])
    # Seen along x the width is y's, seen along y it is x's.
    widths = (alpha > 127).any(axis=1).sum(axis=1)
    assert (widths[0] > widths[1]) == (size[1] > size[0]) or abs(size[0] - size[1]) < 0.2


def test_damaged_models_are_listed_as_failures_and_the_set_is_usable_without_them(tmp_path: Path):
    trained = TRAINED[:2]
    folder = make_furniture(tmp_path / "f", {trained[0]: CUBE, trained[1]: "f 1 2 3\n"})
    make(tmp_path / "set", "--furniture", str(folder), "--variants", "2")
    good = [f"blendswap-cc-0-{trained[0]}-{n}" for n in (1, 2)]
    assert read_uid_set(tmp_path / "set" / "uid_set.pkl") == good
    bad = [f"blendswap-cc-0-{trained[1]}-{n}" for n in (1, 2)]
    assert [row[0] for row in failures(tmp_path / "set")] == bad
    first, second = (tmp_path / "set" / "target" / uid / "000.png" for uid in good)
    assert not np.array_equal(np.asarray(Image.open(first)), np.asarray(Image.open(second)))


def test_the_log_is_of_this_project_only(tmp_path: Path):
    """trimesh logs every mesh whose faces it triangulates."""
    held_out = next(name for name in BOXES if is_held_out(f"blendswap-cc-0-{name}"))
    folder = make_furniture(tmp_path / "f", {held_out: CUBE})
    flags = ["--output", "set", "--furniture", str(folder), "--size", "16", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "demo.make_dataset", "--held_out", *flags],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "lists 1 objects" in done.stderr
    assert "triangulating" not in done.stderr


def test_sets_of_other_sizes_are_not_mixed_nor_what_is_held_out(tmp_path: Path):
    make(tmp_path, "--toys", "1")
    with pytest.raises(ValueError, match="held_out None, not True"):
        make(tmp_path, "--toys", "1", "--held_out")
    assert not (tmp_path / "mesh").exists()
    with pytest.raises(ValueError, match="was rendered with"):
        make(tmp_path, "--toys", "1", "--size", "24")
