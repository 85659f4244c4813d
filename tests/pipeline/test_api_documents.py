"""The Python of README.md, of docs/usage.md and of the notebook runs."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from pipeline import cli_args as flags
from pipeline.api import MultiviewImages
from tests.conftest import ROOT
from tests.pipeline.conftest import ONE_STEP, SMALL, SMALL_CFG, toy_views


@pytest.fixture
def project(tmp_path: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the model that is found by itself is the tiny one."""
    changes = OmegaConf.from_dotlist([*SMALL, *ONE_STEP])
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(SMALL_CFG), changes), tmp_path / "small.yaml")
    monkeypatch.setattr(flags, "PUBLISHED_CKPTS", (str(small_checkpoint),))
    monkeypatch.setattr(flags, "PUBLISHED_CFG", str(tmp_path / "small.yaml"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "testset", tmp_path / "testset")
    return tmp_path


def python_blocks(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    section = text.split("## Use it from Python")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.S)


@pytest.mark.integration
@pytest.mark.parametrize("page", ["README.md", "docs/usage.md"])
def test_what_a_page_shows_runs(project, quick_renderer, page: str):
    first, second = python_blocks(page)
    assert len([line for line in first.splitlines() if line and not line.startswith("#")]) == 3
    names: dict[str, object] = {}
    exec(first, names)
    views = names["views"]
    assert isinstance(views, MultiviewImages)
    assert views.images.shape == (16, 64, 64, 3)
    names["views"] = toy_views()  # the tiny model's are noise: no mesh comes out of that
    exec(second, names)
    assert (project / "output" / "locomotive" / "mesh.glb").is_file()


class Shown:
    """Stands in for what IPython shows; the notebook gives it what it would show."""

    def __init__(self, content: str = "", **_: object) -> None:
        self.content = content


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; what its last expression is, as a notebook shows it."""
    *statements, last = ast.parse(source).body
    shown = isinstance(last, ast.Expr)
    exec(compile(ast.Module([*statements, *([] if shown else [last])], []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if shown else None


@pytest.mark.integration
def test_the_notebook_runs_and_is_stripped(project, quick_renderer, monkeypatch):
    path = ROOT / "docs" / "syncdreamer.ipynb"
    assert path.stat().st_size < 200_000
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")

    display = types.ModuleType("IPython.display")
    for name in ("HTML", "SVG", "Video"):
        setattr(display, name, type(name, (Shown,), {}))
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setattr(sys.modules["IPython"], "display", display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (project / "configs").mkdir()
    (project / "docs").mkdir()
    monkeypatch.chdir(project / "docs")

    names: dict[str, Any] = {}
    shown = []
    for source in sources:
        shown.append(run_cell(source, names))
        if "views = pipeline.generate" in source:
            assert shown[-1] == ((16, 64, 64, 3), np.dtype("uint8"))
            names["views"] = toy_views()  # the tiny model's are noise: no mesh comes out of that
    assert Path.cwd() == project
    sizes = [each.size for each in shown if isinstance(each, Image.Image)]
    assert sizes == [(256, 256), (4 * 32, 4 * 32), (4 * 32, 32)]
    drawing = next(each for each in shown if type(each).__name__ == "SVG").content
    assert drawing.count("<text") == 16
    ElementTree.fromstring(drawing)
    video = next(each for each in shown if type(each).__name__ == "Video").content
    assert Path(video).is_file()
    assert len(shown[-1].content) > 1000  # the page that turns the mesh
