"""Work on objects in one process for each device."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from evaluation.benchmark.dataset import ObjectFiles
from pipeline.reproduction.devices import Tick, Work, all_devices, run_on_devices
from pipeline.view_generator import ModelError


def objects(*names: str) -> list[ObjectFiles]:
    return [ObjectFiles(name, *[None] * 5) for name in names]


def make_notes(folder: Path, device: str) -> Work:
    """Write the device into a file for each object, in two units; some names fail."""
    if device == "no model":
        raise ValueError("weights.ckpt: is damaged")

    def work(files: ObjectFiles, tick: Tick) -> None:
        if files.name == "fails":
            raise MemoryError("too little memory")
        if files.name == "dies":
            os._exit(3)
        if files.name != "kept":
            tick()
            tick()
        (folder / files.name).write_text(device)

    return work


@pytest.mark.integration
def test_objects_are_shared_out_and_failures_named(tmp_path: Path, caplog):
    caplog.set_level("INFO")
    names = ("a", "fails", "kept", "dies", "c", "lost")
    failures = run_on_devices(
        make_notes, tmp_path, objects(*names), ["first", "second"], "notes", 2
    )
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "a": "first", "kept": "first", "c": "first",
    }  # fmt: skip
    crash = "the process on second ended by exit status 3"
    assert failures["fails"].startswith("too little memory; use a smaller --batch_view_num")
    assert (failures["dies"], failures["lost"]) == (crash, crash)
    assert "notes: 4 of 6 objects" in caplog.text
    assert "left" in caplog.text
    assert not multiprocessing.active_children()


@pytest.mark.integration
def test_a_model_that_cannot_be_loaded_ends_the_work(tmp_path: Path):
    with pytest.raises(ModelError, match=r"weights\.ckpt: is damaged"):
        run_on_devices(make_notes, tmp_path, objects("a"), ["no model"], "notes", 2)


def test_without_a_gpu_there_is_one_device():
    assert all_devices("cpu") == ["cpu"]
