"""Blender and a slicer open what is exported."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from renderer.formats.convert import convert
from renderer.formats.options import FORMATS, ExportOptions
from tests.renderer.formats.toy import textured_toy

pytest.importorskip("pxr", reason="needs requirements/export.txt")
BLENDER = os.environ.get("BLENDER") or shutil.which("blender")
SLICER = shutil.which("prusa-slicer") or shutil.which("slic3r")
READER = Path(__file__).with_name("blender_reader.py")


@pytest.fixture(scope="module")
def files(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    convert(toy, {name: folder / file for name, file in FORMATS.items()}, ExportOptions())
    with zipfile.ZipFile(folder / FORMATS["obj"]) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.blender
@pytest.mark.skipif(BLENDER is None, reason="needs Blender (in $PATH or $BLENDER)")
def test_blender_opens_every_format_at_the_right_size_and_the_right_way_up(files: Path):
    names = ["mesh.glb", "mesh.obj", "mesh.ply", "mesh.stl", "mesh.usdz", "splat.ply"]
    command = [BLENDER, "--background", "--factory-startup", "--python", READER, "--"]
    done = subprocess.run(
        [*map(str, command), *(str(files / name) for name in names)], capture_output=True, text=True
    )
    line = re.search(r"^MEASURED (.*)$", done.stdout, re.M)
    assert line, done.stdout[-2000:] + done.stderr[-2000:]
    measured = {Path(path).name: found for path, found in json.loads(line[1]).items()}
    toy = textured_toy()
    longest = toy.extents.max()
    scale = dict.fromkeys(names, 1.0) | {"mesh.stl": 80 / longest, "mesh.usdz": 0.08 / longest}
    (low, high), whole = toy.bounds, toy.volume
    without = [name for name in names if measured[name] is None]
    assert without in ([], ["mesh.usdz"])  # Debian's Blender is built without USD
    for name in [name for name in names[:-1] if name not in without]:
        found, factor = measured[name], scale[name]
        moved = [*(low + high)[:2] / 2, low[2]] if name == "mesh.stl" else [0, 0, 0]
        expected = (toy.bounds - moved) * factor
        np.testing.assert_allclose(
            [found["low"], found["high"]], expected, atol=1e-3 * factor, err_msg=name
        )
        assert found["volume"] == pytest.approx(whole * factor**3, rel=0.01), name
        assert found["faces"] == len(toy.faces), name
        if name in ("mesh.glb", "mesh.obj", "mesh.usdz"):
            assert [256, 256] in found["images"] or [512, 512] in found["images"], name
            assert found["uvs"] == 3 * len(toy.faces), name
    assert measured["splat.ply"]["points"] == 100_000


@pytest.mark.skipif(SLICER is None, reason="needs a slicer (Debian: prusa-slicer)")
@pytest.mark.parametrize("name", ["stl", "3mf"])
def test_a_slicer_finds_a_solid_of_this_size(files: Path, name: str):
    done = subprocess.run(
        [SLICER, "--info", str(files / FORMATS[name])], capture_output=True, text=True
    )
    found = dict(re.findall(r"^(\w+) = (.*)$", done.stdout, re.M))
    toy = textured_toy()
    scale = 80 / toy.extents.max()
    size = [float(found[f"size_{axis}"]) for axis in "xyz"]
    np.testing.assert_allclose(size, toy.extents * scale, atol=0.01)
    assert float(found["min_z"]) == pytest.approx(0, abs=1e-3)
    assert found["manifold"] == "yes"
    assert float(found["volume"]) == pytest.approx(toy.volume * scale**3, rel=0.01)
