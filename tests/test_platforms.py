"""Support of Windows and macOS, as far as it can be tested on Linux."""

from __future__ import annotations

import pickle
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import image_to_3d
from blender import process as blender_process
from ldm.data.folder import FolderDataset
from ldm.data.loader import DataConfig, make_loader
from ldm.data.shard_dataset import ShardDataset
from ldm.shards import pack
from tests.conftest import ROOT, run
from tests.ldm.training.training_tree import make_tree


@pytest.mark.parametrize("kind", ["tree", "shards"])
def test_training_data_sets_can_be_sent_to_a_new_process(tmp_path: Path, kind: str):
    """Windows and macOS spawn worker processes, which receive the pickled data set."""
    make_tree(tmp_path / "tree", ["a", "b"])
    source: FolderDataset | ShardDataset = FolderDataset(tmp_path / "tree")
    if kind == "shards":
        pack(tmp_path / "tree", tmp_path / "shards")
        source = ShardDataset(str(tmp_path / "shards"))
    loader = make_loader(source, DataConfig(batch_size=2, num_workers=0), 16, 16)
    dataset, wanted = loader.loader.dataset, (0, [1, 0])
    here, there = dataset[wanted], pickle.loads(pickle.dumps(dataset))[wanted]
    assert here.uids == there.uids
    assert torch.equal(here.target_images, there.target_images)


def test_on_windows_blender_has_ended_before_its_files_are_moved(monkeypatch: pytest.MonkeyPatch):
    """The replaced modules have neither process groups nor SIGKILL."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(blender_process, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(blender_process, "signal", SimpleNamespace())
    blender_process._terminate_group(process)
    assert process.returncode is not None


def test_the_application_of_macos_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    app = tmp_path / "Blender"
    app.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr(blender_process, "MACOS_APP", app)
    assert blender_process.find_blender(None) == str(app)
    with pytest.raises(FileNotFoundError, match="no such program"):
        blender_process.find_blender("blender-4")


def test_files_are_utf_8_whatever_the_locale(tmp_path: Path):
    """In the C locale text is ASCII by default, on Windows often cp1252."""
    code = (
        "import sys; from pathlib import Path\n"
        "from blender.dataset_index import write_failures\n"
        "from blender.job import RenderResult\n"
        "from blender.objects import DatasetObject\n"
        "item = DatasetObject('a', Path('St\\u00fchle/\\u6905.glb'))\n"
        "write_failures(Path(sys.argv[1]), [RenderResult(item, '', 1, 1.0)])\n"
    )
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("-c", code, tmp_path, env=settings)
    assert done.returncode == 0, done.stderr
    assert "Stühle" in (tmp_path / "failures.csv").read_text(encoding="utf-8")


WITHOUT_UNIX = """
import importlib, os, pkgutil, signal, sys
from contextlib import suppress

for library in "torch PIL.Image filelock scipy.ndimage trimesh lightning gradio".split():
    with suppress(ImportError):  # libraries have their own checks of the system
        importlib.import_module(library)
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios"):
    sys.modules[name] = None
for module, names in (
    (os, "fork getuid killpg setpgid setsid sched_getaffinity mkfifo"),
    (signal, "SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD"),
):
    for name in names.split():
        delattr(module, name)
for package in sys.argv[1:]:
    for module in pkgutil.walk_packages([package], f"{package}."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                optional = "bpy mathutils lightning gradio fastapi uvicorn prometheus_client"
                assert error.name in optional.split(), error

from common.devices import peak_memory
from ldm.data.loader import _ignore_group_signals

peak_memory(importlib.import_module("torch").device("cpu"))
_ignore_group_signals(0)
"""


@pytest.mark.integration
def test_all_modules_work_without_the_parts_of_python_that_windows_lacks():
    packages = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    packages = [name for name in packages if name not in ("tests", "docs", "comfyui")]
    done = run("-c", WITHOUT_UNIX, *packages)
    assert done.returncode == 0, done.stderr


def test_scripts_do_nothing_when_a_spawned_process_imports_them():
    """Windows and macOS start worker processes by importing the main script again."""
    for script in ROOT.glob("*.py"):
        runpy.run_path(str(script), run_name="__mp_main__")


def test_the_lines_for_powershell_are_lines_of_our_commands():
    page = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8").replace("`\n", " ")
    lines = [line.split() for line in re.findall(r"^\.venv\\Scripts\\python (.+)$", page, re.M)]
    assert ["-m", "pip", "install", "-r", "requirements.txt"] in lines
    (demo,) = [line for line in lines if line[0] == "image_to_3d.py"]
    assert image_to_3d.build_parser().parse_args(demo[1:]).input[0].is_file()
    assert f"$(BIN)/python {' '.join(demo)}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
