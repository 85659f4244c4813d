from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from multiview.runtime import atomic_write
from pipeline import image_to_3d as module
from pipeline.batch import images_to_3d
from pipeline.files import EXPORTED
from pipeline.image_to_3d import Settings, StepError, Tools, image_to_3d
from pipeline.records import Step, Workplace, checksum
from tests.pipeline.conftest import ToyDrawer, changed

STEPS = [
    "segment", "frame", "draft-+0.0", "draft-+30.0", "elevation",
    "sample-0", "sample-1", "sample-2", "rank", "reconstruct", "export", "report",
]  # fmt: skip
AS_UNINTERRUPTED = (
    "object.png", "framed.png", "elevation.json", "elevation.png", "drafts/+0.0.png",
    "drafts/+30.0.png", "samples/0.png", "samples/1.png", "samples/2.png", "scores.json",
    "best.png", "mesh.ply", "mesh.glb",
)  # fmt: skip


class Killed(BaseException):
    pass


@pytest.fixture(scope="session")
def whole(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder


def test_try(photo, settings, tools, tmp_path, caplog):
    caplog.set_level("INFO")
    place = image_to_3d(photo, tmp_path / "out", settings, tools)
    for n in place.names: print(n, place.read(n)["seconds"])
    print(place.read("elevation"), (tmp_path/"out"/"scores.json").read_text())
    assert place.done == STEPS
    print(sorted(str(p.relative_to(tmp_path)) for p in (tmp_path/"out").rglob("*")))
    import shutil; shutil.copytree(tmp_path/"out", "/tmp/w_i23d_out", dirs_exist_ok=True)
