"""From an image, or several, to a mesh: steps, resuming, replacing, failures, flags."""

from __future__ import annotations

import csv
import importlib
import logging
import os
import re
import signal
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import image_to_3d as script
from common.files import sha256
from common.records import ReplaceError, RunDirectory, Step
from common.workers.work import Worker, run_here
from ldm.config import SamplerConfig
from multiview.segmentation import segment_white
from pipeline import image_to_3d as module
from pipeline.batch import process_images
from pipeline.config import Context, PipelineConfig
from pipeline.image_to_3d import StepError, image_to_3d
from pipeline.paths import EXPORTED
from pipeline.selection import ranking
from pipeline.view_generator import ModelError
from renderer.formats.options import ExportOptions
from renderer.trainer import Training
from tests.fakes import FakeGenerator
from tests.pipeline.conftest import file_reads

STEPS = [
    "segment", "frame", "draft-+0.0", "draft-+30.0", "elevation",
    "sample-0", "sample-1", "sample-2", "rank", "reconstruct", "export", "report",
]  # fmt: skip


class Killed(BaseException):
    pass


def images_to_3d(paths: list[Path], out: Path, config: PipelineConfig, context: Context):
    def make_work(_: None, worker: Worker):
        return lambda task: image_to_3d(task.path, task.folder, config, context)

    return process_images(paths, out, ["auto"], make_work, None, partial(run_here, "cpu"))


Convert = Callable[..., RunDirectory]


@pytest.fixture
def convert(photo: Path, context: Context, out: Path) -> Convert:
    """Reconstruct the photo, or another image, in the folder `out`, or another one."""

    def run(config: PipelineConfig, folder: Path = out, image: Path = photo, **changes: object):
        return image_to_3d(image, folder, replace(config, **changes), context)

    return run


def checksums(folder: Path) -> dict[str, str]:
    """Of all results but those that hold times."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    timed = re.compile(r"report\.html|metrics\.json|last\.ckpt|log\.txt|\..*")
    return {
        name.as_posix(): sha256(path)
        for name, path in files.items()
        if name.parts[0] != "steps" and not timed.fullmatch(path.name)
    }


@pytest.mark.integration
def test_a_photo_becomes_a_mesh_and_a_kill_while_it_is_trained_does_no_harm(
    convert, config, view_generator, tmp_path, out, monkeypatch
):
    train_step, steps = Training.train_step, []

    def killed_after_the_third(self):
        if self.step == 3:
            raise Killed
        return train_step(self)

    def watched(self):
        steps.append(self.step)
        return train_step(self)

    assert convert(config, tmp_path / "whole").done == STEPS
    generated = len(view_generator.generated)
    monkeypatch.setattr(Training, "train_step", killed_after_the_third)
    with pytest.raises(Killed):
        convert(config, renderer=replace(config.renderer, save_every=1e-9))
    monkeypatch.setattr(Training, "train_step", watched)
    assert convert(config).done == STEPS[-3:]
    assert steps == [3, 4, 5]
    assert len(view_generator.generated) == 2 * generated
    assert checksums(out) == checksums(tmp_path / "whole")
    for name in EXPORTED:
        assert sha256(out / name) == sha256(out / "reconstruction" / name)

    assert convert(config).done == []
    page = (out / "report.html").read_text()
    check_page(page)
    assert page.count("data:video/mp4;base64,") == 1
    assert page.count("opacity and normals after") >= 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_training_ends_a_batch_and_is_no_failure_of_the_picture(
    number, photo, single, context, tmp_path, out, monkeypatch
):
    train_step = Training.train_step

    def interrupted(self):
        os.kill(os.getpid(), number)
        return train_step(self)

    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    monkeypatch.setattr(ranking, "score_sample", lambda *_: ranking.SampleScore(score=0.5))
    monkeypatch.setattr(Training, "train_step", interrupted)
    with pytest.raises(SystemExit) as end:
        images_to_3d([photo, other], out, single, context)
    assert end.value.code == 128 + number
    assert [path.name for path in out.iterdir()] == ["photo"]  # no second one, no failures.csv
    left = {path.name for path in (out / "photo" / "reconstruction").iterdir()}
    assert "ckpt" in left
    assert not left & {*EXPORTED, "metrics.json"}


def check_page(page: str) -> None:
    """It needs no other file and shows all steps."""
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    text = re.sub(r'"data:[^"]*"| data-page="[^"]*"|url\(data:[^)]*\)', "", page)
    assert not re.findall(r"https?://|<link|url\(", text)
    for word in (*(f"<td>{name}</td>" for name in STEPS[:-1]), "photo.png", "mask, found",
                 "framed, crop size", "degrees, estimated", "best", "0.png", "1.png", "2.png",
                 *EXPORTED, "guidance_scale"):  # fmt: skip
        assert word in text, word


class Interruptions:
    """Raise at one of the places where files are written: before it appears, or after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.at, self.before = 0, -1, False
        for name in ("pipeline.image_to_3d", "common.records", "common.files", "pipeline.report",
                     "pipeline.selection.elevation_drafts", "multiview.matting"):  # fmt: skip
            original = importlib.import_module(name).atomic_write
            monkeypatch.setattr(f"{name}.atomic_write", self.wrap(original))

    def wrap(self, original):
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

        return write


@pytest.mark.integration
def test_a_run_killed_at_any_file_goes_on_to_what_an_uninterrupted_one_gives(
    convert, config, tmp_path, monkeypatch, stand_in
):
    config = replace(config, num_samples=1)
    interruptions = Interruptions(monkeypatch)
    convert(config, tmp_path / "whole")
    expected, places = checksums(tmp_path / "whole"), interruptions.count
    assert places >= 20
    for at in range(places):
        interruptions.count, interruptions.at, interruptions.before = 0, at, at % 2 == 0
        with pytest.raises(Killed):
            convert(config, tmp_path / str(at))
        interruptions.at = -1
        directory = convert(config, tmp_path / str(at))
        assert checksums(directory.folder) == expected, at
        assert len(directory.done) < len(directory.names) or at == 0


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
    changes, redone, convert, config, tmp_path, out, monkeypatch, stand_in
):
    monkeypatch.setattr(module, "open_segmenter", lambda *_: segment_white)
    convert(config)
    assert convert(config, **changes).done == redone
    convert(config, tmp_path / "whole", **changes)
    kept, whole = (
        {name: sha for name, sha in checksums(folder).items() if "draft" not in name}
        for folder in (out, tmp_path / "whole")
    )
    assert kept == whole
    if "elevation" in changes:
        assert "12 degrees, as given" in (out / "report.html").read_text()


def test_other_formats_come_and_go_without_another_step(convert, single, out, stand_in):
    convert(single)
    files = {"mesh-obj.zip", "mesh.stl", "mesh.print.json"}
    more = ExportOptions(("glb", "obj", "stl"), size_mm=50)
    assert convert(single, export=more).done == ["formats", "report"]
    assert {path.name for path in out.iterdir()} >= files
    assert all(f"{name} (" in (out / "report.html").read_text() for name in files)
    assert convert(single, export=more).done == []
    assert convert(single, export=replace(more, size_mm=60)).done == ["formats", "report"]
    assert convert(single).done == ["report"]
    assert not {path.name for path in out.iterdir()} & files


def test_a_damaged_result_is_made_again(convert, config, out, stand_in):
    convert(config)
    expected = checksums(out)
    (out / "samples" / "1.png").write_bytes(b"cut off")
    (out / "steps" / "frame.json").write_text("{")
    assert convert(config).done[:2] == ["frame", "sample-1"]
    assert checksums(out) == expected


def test_a_picture_with_alpha_keeps_its_mask_and_needs_no_segmenter(
    photo, convert, single, out, monkeypatch, stand_in
):
    monkeypatch.setattr(module, "open_segmenter", None)
    pixels = np.asarray(Image.open(photo).convert("RGBA")).copy()
    pixels[..., 3] = 0
    pixels[20:70, 30:60, 3] = 255
    Image.fromarray(pixels).save(photo)
    record = convert(single).record("segment").read()
    assert record is not None
    assert record["facts"]["mask"] == "given"
    np.testing.assert_array_equal(Image.open(out / "object.png"), pixels)


def test_a_failure_names_the_picture_and_the_step(convert, config, no_estimate):
    with pytest.raises(StepError, match=r"photo.png: elevation: .*view 3\)"):
        convert(config)


def test_files_of_others_are_not_replaced(convert, config, tmp_path, out, stand_in):
    out.mkdir()
    (out / "mesh.glb").write_text("mine")
    with pytest.raises(ReplaceError, match="out: holds files"):
        convert(config)
    with pytest.raises(FileExistsError, match="in the folder of the results"):
        convert(config, tmp_path, overwrite=True)
    assert (out / "mesh.glb").read_text() == "mine"


def test_results_of_another_picture_are_not_replaced(
    photo, convert, single, tmp_path, out, stand_in
):
    assert "segment" in convert(single).done
    renamed, other = tmp_path / "renamed.png", tmp_path / "other.png"
    renamed.write_bytes(photo.read_bytes())
    assert convert(single, image=renamed).done == ["segment", "report"]
    Image.open(photo).rotate(90).save(other)
    before = checksums(out)
    with pytest.raises(ReplaceError, match=r"another image \(renamed.png\)"):
        convert(single, image=other)
    assert checksums(out) == before
    Image.open(photo).rotate(90).save(renamed)  # of the same name: it was edited
    assert "sample-0" in convert(single, image=renamed).done
    assert convert(single, overwrite=True).done


def test_a_report_never_tells_of_results_that_are_no_longer_there(
    convert, single, out, monkeypatch, stand_in
):
    convert(single)
    assert (out / "report.html").exists()
    monkeypatch.setattr(module, "reconstruct", None)
    with pytest.raises(StepError):
        convert(single, preset="best")
    assert not (out / "report.html").exists()


def test_a_picture_that_is_all_transparent_is_said_to_be(photo, convert, config):
    picture = Image.open(photo).convert("RGBA")
    picture.putalpha(100)
    picture.save(photo)
    with pytest.raises(StepError, match=r"segment: .*transparent everywhere"):
        convert(config)


def test_a_reconstruction_of_other_settings_is_not_gone_on_with(out, tmp_path):
    directory, source = RunDirectory(out), tmp_path / "x"
    source.write_text("x")
    with directory.open():
        first, other = (Step("s", {"a": a}, [source], []) for a in (1, 2))
        assert not directory.has_marker(first)
        directory.mark_started(first)
        assert directory.has_marker(first)
        assert not directory.has_marker(other)
        source.write_text("y")
        assert not directory.has_marker(first)


def test_steps_of_a_version_with_more_settings_are_kept(out):
    directory, result = RunDirectory(out), out / "r"
    with directory.open():
        result.write_text("r")
        first = directory.do(Step("s", {"a": {"b": 1, "old": 2}}, [], [result]), dict)
        kept = directory.do(Step("s", {"a": {"b": 1}}, [], [result]), lambda: {"again": 1})
        changed = directory.do(Step("s", {"a": {"b": 3}}, [], [result]), lambda: {"again": 1})
    assert first == kept == {}
    assert changed == {"again": 1}


@pytest.mark.integration
def test_the_models_own_drafts_and_samples_are_generated(tiny_checkpoint, photo, out):
    with pytest.raises(ValueError, match=r"photo\.png: "):  # of noise no mesh can be made
        script.main(
            [str(photo), "-o", str(out), "--cfg", "configs/tiny.yaml",
             "--ckpt", str(tiny_checkpoint), "--device", "cpu", "--sample_num", "1",
             "--sample_steps", "1", "--elevation", "20", "--backend", "white"]
        )  # fmt: skip
    assert Image.open(out / "samples" / "0.png").size == (2048, 128)
    assert Image.open(out / "best.png").size == (2048, 128)
    with Image.open(out / "best.gif") as turning:
        assert (turning.size, turning.n_frames) == ((128, 128), 16)


def test_the_input_image_is_read_once(photo, convert, single, stand_in):
    for _ in range(2):  # the second run finds all results
        with file_reads([photo]) as reads:
            convert(single)
        assert reads == {str(photo): 1}


def test_one_bad_picture_of_a_batch_is_reported_and_the_others_are_done(
    photo, single, context, tmp_path, out, stand_in, caplog
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "d"):
        (folder / f"{name}.png").write_bytes(photo.read_bytes())
    (folder / "b.png").write_bytes(photo.read_bytes()[:300])
    Image.new("RGB", (64, 64), "white").save(folder / "c.png")
    assert images_to_3d([folder], out, single, context) == [folder / "b.png", folder / "c.png"]
    assert (out / "a" / "mesh.glb").exists()
    assert (out / "d" / "report.html").exists()
    with (out / "failures.csv").open(newline="") as file:
        (first, second) = csv.DictReader(file)
    assert first["input"] == str(folder / "b.png")
    assert "damaged or cut off" in first["error"]
    assert "c.png: segment: no object was found" in second["error"]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all("\n" not in record.getMessage() for record in errors)

    for name in ("b", "c"):
        (folder / f"{name}.png").unlink()
    assert images_to_3d([folder], out, single, context) == []
    assert not (out / "failures.csv").exists()


def test_a_model_that_cannot_be_loaded_ends_a_batch(
    photo, config, context, tmp_path, out, monkeypatch
):
    def draw(*_):
        raise ModelError("no such weights")

    monkeypatch.setattr(FakeGenerator, "generate", draw)
    (tmp_path / "b.png").write_bytes(photo.read_bytes())
    with pytest.raises(ModelError, match="no such weights"):
        images_to_3d([tmp_path], out, config, context)


def test_names_that_are_no_text_or_look_like_tags_do_no_harm(
    photo, single, context, tmp_path, out, stand_in, caplog
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    tag = "<img src=x onerror=alert(1)>\n&quot;"
    for name in (tag.encode(), b"\xff"):
        (folder / os.fsdecode(name + b".png")).write_bytes(photo.read_bytes())
    (folder / os.fsdecode(b"\xfe.png")).write_text("no picture")
    assert len(images_to_3d([folder], out, single, context)) == 1
    with (out / "failures.csv").open(newline="", encoding="utf-8") as file:
        (failed,) = csv.DictReader(file)
    assert failed["input"].endswith("\\udcfe.png")
    assert (out / os.fsdecode(b"\xff") / "report.html").read_text(encoding="utf-8")
    page = (out / tag / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_a_batch_says_at_once_what_is_wrong_with_its_folder(photo, config, context, tmp_path, out):
    other = tmp_path / "failures.csv.png"
    for path in (other, tmp_path / "b.png"):
        path.write_bytes(photo.read_bytes())
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        images_to_3d([photo, tmp_path / "b.png"], file, config, context)
    with pytest.raises(ValueError, match=r"cannot be called failures\.csv"):
        images_to_3d([photo, other], out, config, context)
    assert not out.exists()


def test_the_flags_come_to_the_settings(monkeypatch, photo):
    calls = []
    monkeypatch.setattr("pipeline.view_generator.sampling_settings", lambda *_: {})
    monkeypatch.setattr(
        "pipeline.image_to_3d.image_to_3d", lambda *given: calls.append(given) or made
    )
    made = RunDirectory(Path("out"))
    base = [str(photo), "-o", "out", "--ckpt", "x.ckpt", "--device", "cpu"]
    script.main(base)
    script.main([*base, "--elevation", "-5", "--preset", "fast", "--set", "sampler.eta=0.5",
                 "--set", "use_mask=false", "--sample_steps", "7",
                 "--export", "usdz", "--size_mm", "50", "--faces", "500"])  # fmt: skip
    (_, _, default, *_), (_, _, asked, *_) = calls
    assert (default.elevation, default.crop_size, default.num_samples) == ("auto", "auto", 4)
    assert (default.preset, default.draft_steps, default.backend) == ("default", 8, "auto")
    assert (asked.elevation, asked.sampler.steps, asked.sampler.eta) == (-5.0, 7, 0.5)
    assert not asked.renderer.use_mask
    assert (default.export, asked.export) == (ExportOptions(), ExportOptions(("usdz",), 50.0))
    assert (default.renderer.faces, asked.renderer.faces) == (30_000, 500)
    assert asked.renderer.grid.steps != default.renderer.grid.steps


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("modle.unet.channels=3", "beginning with model, sampler, presets (of --cfg), or kind, "),
        ("use_mask", "--set use_mask: expected <key>=<value>"),
        ("", "expected <key>=<value>"),
        ("sampler.stepps=3", "demo.yaml with sampler.stepps=3"),
        ("grid.stepps=3", "neus.yaml with "),
    ],
)
def test_a_setting_that_no_file_has_is_an_error_of_the_file_it_is_for(wrong, message, photo):
    flags = ["--set", "use_mask=false", "--set", wrong, "--cfg", "configs/demo.yaml"]
    with pytest.raises(ValueError, match=re.escape(message)):
        script.main([str(photo), "-o", "out", "--ckpt", "x.ckpt", "--device", "cpu", *flags])
