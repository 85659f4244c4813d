"""From an image to a mesh: steps, resuming, replacing, failures.

A reconstruction is done for real once; elsewhere a stand-in writes its files. One file, because the
tests share that run, which is slow to make.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import image_to_3d as script
from common.files import sha256
from common.records import ReplaceError, RunDirectory, Step
from ldm.config import SamplerConfig
from multiview.segmentation import segment_white
from pipeline import image_to_3d as module
from pipeline.batch import images_to_3d
from pipeline.image_to_3d import StepError, image_to_3d
from pipeline.paths import EXPORTED
from pipeline.selection import ranking
from pipeline.selection.elevation import ElevationConfig
from renderer import trainer as training
from tests.pipeline.conftest import FileReads, changed

STEPS = [
    "segment", "frame", "draft-+0.0", "draft-+30.0", "elevation",
    "sample-0", "sample-1", "sample-2", "rank", "reconstruct", "export", "report",
]  # fmt: skip


class Killed(BaseException):
    pass


def checksums(folder: Path) -> dict[str, str]:
    """Of all results but those that hold times."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0] != "steps"
        and path.name not in ("report.html", "metrics.json", "last.ckpt", "log.txt")
        and not path.name.startswith(".")
    }


@pytest.mark.integration
def test_a_photo_becomes_a_mesh_and_a_kill_while_it_is_trained_does_no_harm(
    photo, config, context, view_generator, tmp_path, monkeypatch
):
    train_step = training.Training.train_step

    def killed_after_the_third(self):
        if self.step == 3:
            raise Killed
        return train_step(self)

    whole, folder = tmp_path / "whole", tmp_path / "out"
    assert image_to_3d(photo, whole, config, context).done == STEPS
    generated = len(view_generator.generated)
    frequent = changed(config, renderer=changed(config.renderer, save_every=1e-9))
    monkeypatch.setattr(training.Training, "train_step", killed_after_the_third)
    with pytest.raises(Killed):
        image_to_3d(photo, folder, frequent, context)
    monkeypatch.setattr(training.Training, "train_step", train_step)
    steps = []
    monkeypatch.setattr(
        training.Training, "train_step", lambda self: steps.append(self.step) or train_step(self)
    )
    assert image_to_3d(photo, folder, config, context).done == STEPS[-3:]
    assert steps == [3, 4, 5]
    assert len(view_generator.generated) == 2 * generated
    assert checksums(folder) == checksums(whole)
    for name in EXPORTED:
        assert sha256(folder / name) == sha256(folder / "reconstruction" / name)

    assert image_to_3d(photo, folder, config, context).done == []
    page = (folder / "report.html").read_text()
    check_page(page)
    assert page.count("data:video/mp4;base64,") == 1
    assert page.count("opacity and normals after") >= 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_training_ends_a_batch_and_is_no_failure_of_the_picture(
    number, photo, config, context, tmp_path, monkeypatch
):
    train_step = training.Training.train_step

    def interrupted(self):
        os.kill(os.getpid(), number)
        return train_step(self)

    given, output = changed(config, elevation=20.0, num_samples=1), tmp_path / "out"
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "score_sample", lambda *_: module_score())
        patch.setattr(training.Training, "train_step", interrupted)
        with pytest.raises(SystemExit) as end:
            images_to_3d([photo, other], output, given, context)
    assert end.value.code == 128 + number
    assert [path.name for path in output.iterdir()] == ["photo"]  # no second one, no failures.csv
    left = {path.name for path in (output / "photo" / "reconstruction").iterdir()}
    assert "ckpt" in left
    assert not left & {*EXPORTED, "metrics.json"}


def check_page(page: str) -> None:
    """It needs no other file and shows all steps."""
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    text = re.sub(r'"data:[^"]*"| data-page="[^"]*"|url\(data:[^)]*\)', "", page)
    assert not re.findall(r"https?://|<link|url\(", text)
    for name in STEPS[:-1]:
        assert f"<td>{name}</td>" in text, name
    for word in ("photo.png", "mask, found", "framed, crop size", "degrees, estimated", "best",
                 "0.png", "1.png", "2.png", *EXPORTED, "guidance_scale"):  # fmt: skip
        assert word in text, word


class Interruptions:
    """Raise at one of the places where files are written: before it appears, or after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.at, self.before = 0, -1, False
        for name in ("pipeline.image_to_3d", "common.records", "common.files", "pipeline.report",
                     "pipeline.selection.elevation_drafts", "multiview.matting"):  # fmt: skip
            self.wrap(monkeypatch, name)

    def wrap(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        import importlib

        original = importlib.import_module(name).atomic_write

        @contextmanager
        def write(path: Path):
            here = self.count == self.at
            self.count += 1
            with original(path) as temporary:
                yield temporary
                if here and self.before:
                    raise Killed
            if here:
                raise Killed

        monkeypatch.setattr(f"{name}.atomic_write", write)


@pytest.mark.integration
def test_a_run_killed_at_any_file_goes_on_to_what_an_uninterrupted_one_gives(
    photo, config, context, tmp_path, monkeypatch, stand_in
):
    fast = changed(config, num_samples=1)
    monkeypatch.setattr(ranking, "score_sample", lambda *_: module_score())
    monkeypatch.setattr("pipeline.selection.elevation_drafts.estimate_elevation", quick_estimate)
    interruptions = Interruptions(monkeypatch)
    image_to_3d(photo, tmp_path / "whole", fast, context)
    expected, places = checksums(tmp_path / "whole"), interruptions.count
    assert places >= 20
    for at in range(places):
        folder = tmp_path / str(at)
        interruptions.count, interruptions.at, interruptions.before = 0, at, at % 2 == 0
        with pytest.raises(Killed):
            image_to_3d(photo, folder, fast, context)
        interruptions.at = -1
        directory = image_to_3d(photo, folder, fast, context)
        assert checksums(folder) == expected, at
        assert len(directory.done) < len(directory.names) or at == 0


def module_score():
    from pipeline.selection.ranking import SampleScore

    return SampleScore(score=0.5)


def quick_estimate(image, draft, config: ElevationConfig):
    from pipeline.selection.elevation import ElevationEstimate

    values = config.candidates()
    for degrees in config.drafts_at:
        assert draft(degrees).shape[0] == 16
    return ElevationEstimate(12.34, 2.0, values, values, values, values)


@pytest.mark.parametrize(
    ("changes", "redone"),
    [
        ({"crop_size": 150}, STEPS[1:]),
        ({"elevation": 12.0}, STEPS[4:]),
        ({"draft_steps": 3}, ["draft-+0.0", "draft-+30.0", "report"]),
        ({"num_samples": 2}, ["rank", "report"]),
        ({"num_samples": 4}, ["sample-3", "rank", "report"]),
        ({"preset": "best"}, ["reconstruct", "export", "report"]),
        ({"seed": 2}, STEPS[2:]),
        ({"sampler": SamplerConfig(steps=4)}, ["sample-0", "sample-1", "sample-2", "report"]),
        ({"backend": "auto"}, ["segment", "report"]),
        ({"overwrite": True}, STEPS),
    ],
)
def test_a_changed_setting_redoes_what_depends_on_it(
    changes, redone, photo, config, context, tmp_path, monkeypatch, stand_in
):
    monkeypatch.setattr(ranking, "score_sample", lambda *_: module_score())
    monkeypatch.setattr(module, "open_segmenter", lambda *_: segment_white)
    monkeypatch.setattr("pipeline.selection.elevation_drafts.estimate_elevation", quick_estimate)
    image_to_3d(photo, tmp_path / "out", config, context)
    directory = image_to_3d(photo, tmp_path / "out", changed(config, **changes), context)
    assert directory.done == redone
    asked = changed(config, **changes)
    image_to_3d(photo, tmp_path / "whole", asked, context)
    kept = {name: sha for name, sha in checksums(tmp_path / "out").items() if "draft" not in name}
    others = checksums(tmp_path / "whole")
    assert kept == {name: sha for name, sha in others.items() if "draft" not in name}
    if "elevation" in changes:
        assert "12 degrees, as given" in (tmp_path / "out" / "report.html").read_text()


def test_a_damaged_result_is_made_again(photo, config, context, tmp_path, monkeypatch, stand_in):
    monkeypatch.setattr(ranking, "score_sample", lambda *_: module_score())
    monkeypatch.setattr("pipeline.selection.elevation_drafts.estimate_elevation", quick_estimate)
    folder = tmp_path / "out"
    image_to_3d(photo, folder, config, context)
    expected = checksums(folder)
    (folder / "samples" / "1.png").write_bytes(b"cut off")
    (folder / "steps" / "frame.json").write_text("{")
    assert image_to_3d(photo, folder, config, context).done[:2] == ["frame", "sample-1"]
    assert checksums(folder) == expected


def test_a_picture_with_alpha_keeps_its_mask_and_needs_no_segmenter(
    photo, config, context, tmp_path, monkeypatch, stand_in
):
    monkeypatch.setattr(module, "open_segmenter", None)
    pixels = np.asarray(Image.open(photo).convert("RGBA")).copy()
    pixels[..., 3] = 0
    pixels[20:70, 30:60, 3] = 255
    image = tmp_path / "cut.png"
    Image.fromarray(pixels).save(image)
    given = changed(config, elevation=20.0, num_samples=1)
    directory = image_to_3d(image, tmp_path / "out", given, context)
    record = directory.record("segment").read()
    assert record is not None
    assert record["facts"]["mask"] == "given"
    np.testing.assert_array_equal(Image.open(tmp_path / "out" / "object.png"), pixels)


def test_a_failure_names_the_picture_and_the_step(photo, config, context, tmp_path):
    def no_object(image, draft, config):
        raise ValueError("there is no object in view 3")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.selection.elevation_drafts.estimate_elevation", no_object)
        with pytest.raises(StepError, match=r"photo.png: elevation: .*view 3\)"):
            image_to_3d(photo, tmp_path / "out", config, context)


def test_files_of_others_are_not_replaced(photo, config, context, tmp_path, stand_in):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mesh.glb").write_text("mine")
    with pytest.raises(ReplaceError, match="out: holds files"):
        image_to_3d(photo, tmp_path / "out", config, context)
    with pytest.raises(FileExistsError, match="in the folder of the results"):
        image_to_3d(photo, tmp_path, changed(config, overwrite=True), context)
    assert (tmp_path / "out" / "mesh.glb").read_text() == "mine"


def test_results_of_another_picture_are_not_replaced(photo, config, context, tmp_path, stand_in):
    given = changed(config, elevation=20.0, num_samples=1)
    folder, other = tmp_path / "out", tmp_path / "other.png"
    assert "segment" in image_to_3d(photo, folder, given, context).done
    renamed = tmp_path / "renamed.png"
    renamed.write_bytes(photo.read_bytes())
    assert image_to_3d(renamed, folder, given, context).done == ["segment", "report"]
    Image.open(photo).rotate(90).save(other)
    before = checksums(folder)
    with pytest.raises(ReplaceError, match=r"another image \(renamed.png\)"):
        image_to_3d(other, folder, given, context)
    assert checksums(folder) == before
    Image.open(photo).rotate(90).save(renamed)  # of the same name: it was edited
    assert "sample-0" in image_to_3d(renamed, folder, given, context).done
    assert image_to_3d(photo, folder, changed(given, overwrite=True), context).done


def test_a_report_never_tells_of_results_that_are_no_longer_there(
    photo, config, context, tmp_path, monkeypatch, stand_in
):
    given, folder = changed(config, elevation=20.0, num_samples=1), tmp_path / "out"
    image_to_3d(photo, folder, given, context)
    assert (folder / "report.html").exists()

    def fail(*_):
        raise ValueError("no")

    monkeypatch.setattr(module, "reconstruct", fail)
    with pytest.raises(StepError):
        image_to_3d(photo, folder, changed(given, preset="best"), context)
    assert not (folder / "report.html").exists()


def test_a_folder_that_takes_no_files_is_named(photo, config, context, tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("common.records.tempfile.TemporaryFile", full)
    with pytest.raises(OSError, match=r"out: cannot be written to \(No space left on device\)"):
        image_to_3d(photo, tmp_path / "out", config, context)


def test_a_picture_that_is_all_transparent_is_said_to_be(photo, config, context, tmp_path):
    picture = Image.open(photo).convert("RGBA")
    picture.putalpha(100)
    picture.save(photo)
    with pytest.raises(StepError, match=r"segment: .*transparent everywhere"):
        image_to_3d(photo, tmp_path / "out", config, context)


def test_a_reconstruction_of_other_settings_is_not_gone_on_with(tmp_path):
    directory, source = RunDirectory(tmp_path / "out"), tmp_path / "x"
    source.write_text("x")
    with directory.open():
        first, other = (Step("s", {"a": a}, [source], []) for a in (1, 2))
        assert not directory.has_marker(first)
        directory.mark_started(first)
        assert directory.has_marker(first)
        assert not directory.has_marker(other)
        source.write_text("y")
        assert not directory.has_marker(first)


def test_steps_of_a_version_with_more_settings_are_kept(tmp_path):
    directory, result = RunDirectory(tmp_path / "out"), tmp_path / "out" / "r"

    with directory.open():
        result.write_text("r")
        first = directory.do(Step("s", {"a": {"b": 1, "old": 2}}, [], [result]), dict)
        kept = directory.do(Step("s", {"a": {"b": 1}}, [], [result]), lambda: {"again": 1})
        changed = directory.do(Step("s", {"a": {"b": 3}}, [], [result]), lambda: {"again": 1})
    assert first == kept == {}
    assert changed == {"again": 1}


@pytest.mark.integration
def test_the_models_own_drafts_and_samples_are_generated(tiny_checkpoint, photo, tmp_path):
    with pytest.raises(StepError, match=r"photo\.png: "):  # of noise no mesh can be made
        script.main(
            [str(photo), "-o", str(tmp_path / "out"), "--cfg", "configs/tiny.yaml",
             "--ckpt", str(tiny_checkpoint), "--device", "cpu", "--sample_num", "1",
             "--sample_steps", "1", "--elevation", "20", "--backend", "white"]
        )  # fmt: skip
    assert Image.open(tmp_path / "out" / "samples" / "0.png").size == (2048, 128)
    assert Image.open(tmp_path / "out" / "best.png").size == (2048, 128)
    with Image.open(tmp_path / "out" / "best.gif") as turning:
        assert (turning.size, turning.n_frames) == ((128, 128), 16)


def test_the_input_image_is_read_once(photo, config, context, tmp_path, stand_in):
    given = changed(config, elevation=20.0, num_samples=1)
    for _ in range(2):  # the second run finds all results
        with FileReads([photo]) as reads:
            image_to_3d(photo, tmp_path / "out", given, context)
        assert (reads.opened[photo], reads.decoded[photo], reads.hashed[photo]) == (1, 1, 1)
