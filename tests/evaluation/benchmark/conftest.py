"""A benchmark of good and broken objects, and its report."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluation.benchmark.dataset import ObjectFiles
from evaluation.benchmark.evaluate import ObjectRecord
from evaluation.benchmark.report import ReportRow
from evaluation.results import Result
from tests.evaluation.conftest import EXAMPLES, ring_of_views, save_views


def run(out: Path, root: Path, *flags: str) -> int:
    """Run the command; return its exit status."""
    from evaluation.benchmark import run as benchmark

    try:
        benchmark.main([
            "--pr", str(root / "pr"), "--gt", str(root / "gt"), "--out", str(out),
            "--mode", "sparse", "--device", "cpu", *flags,
        ])  # fmt: skip
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def rows(out: Path) -> dict[str, dict[str, str]]:
    """Rows of results.csv by the name of the object."""
    with (out / "results.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good objects (the bundled one with a mesh) and two broken ones."""
    root = tmp_path_factory.mktemp("objects")
    views = ring_of_views()
    noisy = np.clip(views + np.random.default_rng(0).normal(0, 0.05, views.shape), 0, 1)
    for name, predicted in (("equal & <same>", views), ("noisy", noisy), ("broken", views)):
        save_views(root / "gt" / name, views)
        save_views(root / "pr" / name, predicted)
    (root / "pr" / "broken" / "004.png").write_bytes(b"not an image")
    save_views(root / "gt" / "unpredicted", views)
    for part in ("gt", "mesh"):
        folder = f"locomotive-{part}"
        shutil.copytree(EXAMPLES / folder, root / "gt" / folder)
    shutil.copytree(EXAMPLES / "locomotive-pr", root / "pr" / "locomotive-pr")
    (root / "pr" / "locomotive-pr" / "rendering.mp4").write_bytes(b"stands for a video")
    return root


@pytest.fixture(scope="session")
def report(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    assert run(out, objects, "--name", "a_run") == 1  # two objects are broken
    return out


def report_row(name: str, psnr: float | None = None, chamfer: float | None = None) -> ReportRow:
    """A row of an object without views."""
    files = ObjectFiles(name, *[None] * 5)
    record = ObjectRecord("", Result(name, psnr=psnr, chamfer=chamfer), errors={"views": "none"})
    return ReportRow(files, record, Path())
