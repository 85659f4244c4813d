"""render_batch.py with a fast program that stands in for Blender."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import render_batch
from blender.dataset_index import check_settings, read_uid_set, write_warnings
from blender.objects import DatasetObject
from blender.process import RenderError, check_version, find_blender, run_blender
from common.workers.ray_cluster import Cluster
from tests.conftest import ROOT

QUICK = ["--resolution", "16", "--num_images", "4", "--retries", "0", "--workers", "3"]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in needs a #! line")


class Batch:
    """A folder of models, a tree, and the stand-in for Blender."""

    def __init__(self, folder: Path) -> None:
        self.models, self.out, self.notes = folder / "models", folder / "tree", folder / "notes"
        self.blender = folder / "bin" / "blender"
        for made in (self.models, self.notes, self.blender.parent):
            made.mkdir()
        self.blender.write_text(
            f"#!/bin/sh\nexport PYTHONPATH={ROOT}\n"
            f'exec {sys.executable} {Path(__file__).with_name("stand_in.py")} "$@"\n'
        )
        self.blender.chmod(self.blender.stat().st_mode | stat.S_IXUSR)

    def add(self, *uids: str) -> Batch:
        for uid in uids:
            (self.models / f"{uid}.glb").write_text(uid)
        return self

    def command(self, *flags: str) -> list[str]:
        paths = ["--models", str(self.models), "--out", str(self.out)]
        return [*paths, "--blender", str(self.blender), *QUICK, *flags]

    def start(self, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, ROOT / "render_batch.py", *self.command(*flags)]
        environment = {**os.environ, "STAND_IN_NOTES": str(self.notes)}
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    def run(self, *flags: str) -> tuple[int, str]:
        process = self.start(*flags)
        _, output = process.communicate(timeout=120)
        assert "Traceback" not in output, output
        return process.returncode, output

    def runs(self) -> dict[str, int]:
        """How often Blender was started for an object since the last call."""
        counts = {path.name: len(path.read_text().splitlines()) for path in self.notes.iterdir()}
        for path in self.notes.iterdir():
            path.unlink()
        return counts

    def pids(self, count: int) -> list[int]:
        """Processes of objects that hang."""
        text = " ".join(path.read_text() for path in self.notes.glob("hangs*"))
        assert len(text.split()) == count
        return list(map(int, text.split()))

    def failures(self) -> dict[str, str]:
        with (self.out / "failures.csv").open(newline="") as file:
            return {row["uid"]: row["error"] for row in csv.DictReader(file)}

    def uids(self) -> list[str]:
        return read_uid_set(self.out / "uid_set.pkl")


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        pytest.importorskip("ray", reason="needs Ray: pip install -r requirements/render.txt")
    return request.param


def test_blender_finds_the_python_beside_it_first(tmp_path: Path, monkeypatch):
    """Debian's takes the packages of the first Python in the path, which may be conda's."""
    for folder in ("usr", "conda"):
        (tmp_path / folder).mkdir()
        for name in ("blender", "python3"):
            (tmp_path / folder / name).write_text("#!/bin/sh\ncommand -v python3\n")
            (tmp_path / folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "conda"), prepend=os.pathsep)
    with (tmp_path / "log").open("wb") as log:
        run_blender([f"{tmp_path}/usr/blender"], log, time.monotonic() + 20, lambda: False, {})
    assert (tmp_path / "log").read_text() == f"{tmp_path}/usr/python3\n"


def test_a_list_of_objects_that_cannot_be_extended_is_refused_before_the_work(batch):
    batch.add("a")
    batch.out.mkdir(exist_ok=True)
    (batch.out / "uid_set.pkl").write_bytes(b"not a pickle")
    code, output = batch.run()
    assert code == 1
    assert "uid_set.pkl: not a pickle that can be read safely" in output
    assert not batch.runs()


def test_tables_of_earlier_runs_that_are_damaged_end_no_run(tmp_path: Path, caplog):
    table = tmp_path / "warnings.csv"
    table.write_bytes(b"uid,model,warning\na,b,\xff\n")
    write_warnings(tmp_path, [])
    assert table.read_text() == "uid,model,warning\na,b,\\xff\n"
    table.write_bytes(b"uid,model,warning\na,b," + b"x" * 2**18)
    write_warnings(tmp_path, [])
    assert table.read_text() == "uid,model,warning\n"
    assert "warnings.csv: damaged" in caplog.text
    (tmp_path / "render_settings.json").write_text("[" * 10**5)
    with pytest.raises(ValueError, match=r"render_settings\.json: not a file of"):
        check_settings(tmp_path, {})


@pytest.mark.integration
def test_four_of_six_are_done_two_reported_and_a_second_run_does_what_is_missing(batch, engine):
    batch.add("a", "b", "huge", "c", "corrupt", "hangs")
    code, output = batch.run("--engine", engine, "--timeout", "6")
    assert code == 1
    assert "2 of 6 objects failed" in output
    assert batch.uids() == ["a", "b", "c", "huge"]
    failures = batch.failures()
    assert set(failures) == {"corrupt", "hangs"}
    assert failures["corrupt"].endswith("it is corrupt")
    assert "took longer" in failures["hangs"]
    for name in ("target", "input"):
        assert sorted(path.name for path in (batch.out / name).iterdir()) == batch.uids()
        for uid in batch.uids():
            names = sorted(path.stem for path in (batch.out / name / uid).iterdir())
            assert names == ["000", "001", "002", "003", "meta"]
    assert not any(map(is_running, batch.pids(2)))
    assert batch.runs() == {"a": 2, "b": 2, "c": 2, "huge": 2, "corrupt": 1, "hangs": 1}

    (batch.models / "hangs.glb").unlink()
    (batch.models / "corrupt.glb").unlink()
    (batch.out / "input" / "b" / "002.png").unlink()
    (batch.out / "target" / "c" / "001.png").write_bytes(b"cut off")
    code, output = batch.add("d").run("--engine", engine)
    assert code == 0, output
    assert batch.runs() == {"d": 2, "b": 1, "c": 1}
    assert batch.uids() == ["a", "b", "c", "d", "huge"]
    assert batch.failures() == {}


def test_a_crash_and_an_early_end_are_failures_and_another_attempt_may_succeed(batch: Batch):
    code, _ = batch.add("crashes", "lazy", "flaky").run("--retries", "1")
    assert code == 1
    failures = batch.failures()
    assert failures["crashes"] == "Blender ended by signal 11"
    assert "views are missing" in failures["lazy"]
    assert batch.uids() == ["flaky"]
    assert batch.runs() == {"crashes": 2, "lazy": 2, "flaky": 3}
    assert not (batch.out / "target" / "crashes").exists()  # only whole folders come into the tree


@pytest.mark.integration
def test_terminating_the_batch_terminates_blender_and_a_later_run_completes_it(batch, engine):
    process = batch.add("a", "hangs-1").start("--engine", engine)
    until = time.monotonic() + 120
    while not list(batch.notes.glob("hangs-*")) or not (batch.out / "input" / "a").exists():
        assert time.monotonic() < until
        time.sleep(0.1)
    time.sleep(1)  # until the batch knows
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM or (engine == "ray" and process.returncode)
    assert not any(map(is_running, batch.pids(2)))
    assert batch.uids() == ["a"]
    batch.runs()
    for path in batch.models.glob("hangs-*"):
        path.unlink()
    assert batch.add("b").run()[0] == 0
    assert batch.runs() == {"b": 2}


@pytest.mark.integration
def test_a_tree_is_not_mixed_of_two_settings(batch: Batch):
    batch.add("a")
    assert batch.run()[0] == 0
    code, output = batch.run("--samples", "9")
    assert code == 1
    assert "was rendered with samples 128, not 9" in output
    code, output = batch.run("--elevation", "20")
    assert code == 1
    assert "another folder" in output
    assert batch.run("--workers", "1", "--timeout", "99")[0] == 0
    recorded = json.loads((batch.out / "render_settings.json").read_text())
    kinds = {name: recorded[name]["camera_type"] for name in ("target", "input")}
    assert kinds == {"target": "fixed", "input": "random"}


def test_objects_take_turns_on_gpus_and_a_missing_model_of_a_list_is_one_failure(
    batch: Batch, tmp_path: Path
):
    batch.add("a", "b")
    (tmp_path / "list.txt").write_text("models/a.glb\nmodels/b.glb\nmodels/gone.glb\n")
    code, _ = batch.run("--models", str(tmp_path / "list.txt"), "--gpus", "4,7")
    assert code == 1
    assert "gone.glb: no such model" in batch.failures()["gone"]
    assert batch.uids() == ["a", "b"]
    logs = {path.stem: path.read_text() for path in (batch.out / "logs").glob("*.log")}
    assert "GPU 4" in logs["a"]
    assert "GPU 7" in logs["b"]


@pytest.mark.integration
def test_warnings_on_models_are_counted_and_kept_in_a_table(batch: Batch):
    def table() -> list[tuple[str, str]]:
        with (batch.out / "warnings.csv").open(newline="") as file:
            return [(row["uid"], row["warning"]) for row in csv.DictReader(file)]

    code, output = batch.add("a", "magenta-1").run()
    assert code == 0
    assert "magenta-1: its texture is missing" in output
    assert "1 objects are not rendered as they are meant" in output
    first = ("magenta-1", "its texture is missing")
    assert table() == [first]
    batch.add("magenta-2").run()
    assert table() == [first, ("magenta-2", "its texture is missing")]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_name_that_is_not_utf8_and_a_clash_are_failures_and_the_others_are_rendered(batch: Batch):
    batch.add("a", "c", "d")
    (batch.models / "d.obj").touch()
    (batch.models / os.fsdecode(b"b\xe9.glb")).touch()
    code, output = batch.run()
    assert code == 1
    assert "3 of 5 objects failed" in output
    assert batch.uids() == ["a", "c"]
    failures = batch.failures()
    assert set(failures) == {"b\\udce9", "d"}
    assert "not UTF-8" in failures["b\\udce9"]
    assert "two models have the uid 'd'" in failures["d"]


def test_what_is_wrong_for_all_objects_is_said_once_before_any(batch: Batch, tmp_path: Path):
    def check(message: str, *flags: str) -> None:
        code, output = batch.run(*flags)
        assert code == 1
        assert re.search(message, output)

    check("no models found")
    batch.add("a")
    check("none: no such program.*--blender", "--blender", str(tmp_path / "none"))
    (tmp_path / "fake").write_text("#!/bin/sh\necho hello")
    (tmp_path / "fake").chmod(0o755)
    check("is not a working Blender: hello", "--blender", str(tmp_path / "fake"))
    (batch.models / "a.obj").touch()
    check("two models have the uid 'a'")
    assert not (batch.out / "uid_set.pkl").exists()


def test_blender_is_found_in_the_path_and_an_old_one_refused(batch: Batch, monkeypatch):
    monkeypatch.setenv("STAND_IN_VERSION", "2.93.1")
    with pytest.raises(RenderError, match=r"2\.93\.1.*3\.4"):
        check_version(str(batch.blender))
    monkeypatch.setenv("STAND_IN_VERSION", "4.2.0 LTS")
    assert check_version(str(batch.blender)) == "4.2.0"
    monkeypatch.setenv("PATH", str(batch.blender.parent))
    assert find_blender(None) == str(batch.blender)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"no blender in \$PATH"):
        find_blender(None)


def test_a_damaged_or_hostile_uid_set_is_refused(batch: Batch, tmp_path: Path):
    batch.out.mkdir()
    (batch.out / "uid_set.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"uid_set\.pkl"):
        batch.uids()


def test_without_ray_it_says_what_to_install(batch: Batch, monkeypatch: pytest.MonkeyPatch):
    from blender.engines import render_on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    setup = render_batch.make_setup(render_batch.parse(batch.command("--engine", "ray")))
    with pytest.raises(ModuleNotFoundError, match=r"pip install -r requirements/render\.txt"):
        next(render_on_ray([DatasetObject("a", Path("a.glb"))], setup, Cluster()))
