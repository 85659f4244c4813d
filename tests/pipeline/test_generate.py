from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import generate as script
from ldm.config import SamplerConfig
from multiview.images import views_to_strip
from pipeline import generate as choice
from pipeline import generate_samples as generation
from pipeline.generate_samples import GenerateOptions
from pipeline.selection.elevation import ElevationEstimate
from pipeline.selection.elevation_drafts import draft_sampler
from pipeline.selection.ranking import SampleScore
from tests.renderer.small_runs import ellipsoid


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Estimate 17.26 degrees from one draft; for which elevations drafts were made."""
    drafted = []

    def estimate(image, draft, config):
        assert draft(30.0).shape[0] == 16
        drafted.append(30.0)
        values = np.zeros(2)
        return ElevationEstimate(17.26, 3.0, values, values, values, values)

    monkeypatch.setattr("pipeline.selection.elevation_drafts.estimate_elevation", estimate)
    return drafted


def options(output: Path, **changes: object) -> GenerateOptions:
    given = GenerateOptions(
        Path("x.ckpt"), output, -1, 1, 7, SamplerConfig(eta=1.0), 8, "fp32", torch.device("cpu"),
        overwrite=False, save_views=False, preview=False,
    )  # fmt: skip
    return replace(given, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("of_a_sample", "of_a_draft"), [(50, 8), (8, 8), (3, 3)])
def test_a_draft_takes_few_steps_and_never_more_than_a_sample(of_a_sample, of_a_draft):
    sampler = SamplerConfig(steps=of_a_sample, eta=1.0, temperature=0.3)
    assert draft_sampler(sampler) == SamplerConfig(steps=of_a_draft, eta=0.0, temperature=0.3)


def test_an_estimate_takes_the_place_of_auto_and_of_nothing_else(
    photo, view_generator, estimates, tmp_path
):
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    several = options(tmp_path / "several")
    found = choice.estimate_elevations([photo, other], [5.0, "auto"], several, view_generator)
    assert found == [5.0, 17.3]
    assert view_generator.generated == [(30.0, 7)]
    single = options(tmp_path / "single")
    assert choice.estimate_elevations([photo], ["auto"], single, view_generator) == [17.3]
    left = {path.name for path in (tmp_path / "single").rglob("*")}
    assert left == {"drafts", "+30.0.png", "+30.0.json", "elevation.json", "elevation.png"}
    assert {path.name for path in (tmp_path / "several").iterdir()} == {"other"}


def test_drafts_are_kept_until_something_changes(photo, view_generator, estimates, tmp_path):
    def drawn(**changes: object) -> int:
        before = len(view_generator.generated)
        given = options(tmp_path / "out", **changes)
        assert choice.estimate_elevations([photo], ["auto"], given, view_generator) == [17.3]
        return len(view_generator.generated) - before

    assert [drawn(), drawn(), drawn(overwrite=True), drawn()] == [1, 0, 1, 0]
    more_steps = SamplerConfig(steps=70, eta=0.5)  # drafts have their own
    assert drawn(sampler=more_steps) == 0
    for change in ({"seed": 8}, {"crop_size": 100}, {"sampler": SamplerConfig(guidance_scale=3.0)}):
        with pytest.raises(FileExistsError, match="other settings"):
            drawn(**change)
    (tmp_path / "out" / "drafts" / "+30.0.png").unlink()
    assert drawn() == 1
    photo.write_bytes(photo.read_bytes() + b" ")
    with pytest.raises(FileExistsError, match="input was"):
        drawn()


@pytest.mark.parametrize("name", ["0.png", "elevation.png", "drafts/+30.0.png"])
def test_files_of_others_are_found_before_any_draft_is_drawn(
    photo, view_generator, estimates, tmp_path, name
):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=re.escape(str(path))):
        choice.estimate_elevations([photo], ["auto"], options(tmp_path / "out"), view_generator)
    assert (view_generator.generated, path.read_bytes()) == ([], b"mine")
    image = tmp_path / "elevation.png"
    image.write_bytes(photo.read_bytes())
    with pytest.raises(FileExistsError, match="is an input"):
        choice.estimate_elevations(
            [image], ["auto"], options(tmp_path, overwrite=True), view_generator
        )


def test_samples_are_drawn_for_the_estimate_with_the_model_of_the_drafts(
    photo, estimates, tiny_checkpoint, tmp_path, monkeypatch
):
    loaded = []
    load = generation.load_model
    monkeypatch.setattr(generation, "load_model", lambda *a: loaded.append(a) or load(*a))
    monkeypatch.setattr(choice, "draft_sampler", lambda _: SamplerConfig(1, 1.0, 0.0))
    flags = [
        "--input", str(photo), "--output", str(tmp_path / "out"), "--elevation", "auto",
        "--cfg", "configs/tiny.yaml", "--ckpt", str(tiny_checkpoint), "--device", "cpu",
        "--sample_num", "1", "--sample_steps", "1", "--cfg_scale", "1",
    ]  # fmt: skip
    script.main(flags)
    record = json.loads((tmp_path / "out" / "0.json").read_text())
    assert record["settings"]["elevation_deg"] == 17.3
    assert len(loaded) == 1
    script.main(flags)
    assert len(loaded) == 1, "all is there: no model is needed"


class NoisyDrawing:
    """In place of the model: samples of one object, more or less noisy; which were drawn."""

    noise = (60, 0, 90, 20, 40)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn: list[int] = []
        monkeypatch.setattr(generation, "open_model", lambda *_: self)
        monkeypatch.setattr(generation, "sampling_settings", lambda *_: {"weights": "toy"})
        monkeypatch.setattr(generation, "generate_strip", self.draw)

    def encode_image(self, image):
        return image

    def draw(self, model, features, elevation, seed, *_):
        k = seed - 6033
        self.drawn.append(k)
        strip = (views_to_strip(ellipsoid()[..., :3]) * 255).round()
        marks = (strip < 200) * np.random.default_rng(k).normal(0, self.noise[k], strip.shape)
        return (strip + marks).clip(0, 255).astype(np.uint8)


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> NoisyDrawing:
    return NoisyDrawing(monkeypatch)


@pytest.fixture
def quick_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(views, *_):
        noise = np.abs(views[..., :3] - ellipsoid()[..., :3]).mean()
        return SampleScore(score=1 / (1 + float(noise)))

    monkeypatch.setattr(choice, "score_sample", score)


def run(photo: Path, folder: Path, samples: int, *flags: str) -> set[str]:
    """Draw; return names of the pictures and folders that are there."""
    script.main(
        ["--input", str(photo), "--output", str(folder), "--elevation", "30", "--ckpt", "x.ckpt",
         "--device", "cpu", "--sample_num", str(samples), *flags]
    )  # fmt: skip
    return {path.name for path in folder.iterdir() if path.suffix != ".json"}


def ranking(folder: Path) -> list[str]:
    return [row["name"] for row in json.loads((folder / "scores.json").read_text())]


def test_all_samples_are_kept_in_order(photo, noisy, tmp_path):
    assert run(photo, tmp_path / "out", 3, "--keep", "all") == {"0.png", "1.png", "2.png"}
    assert ranking(tmp_path / "out") == ["1.png", "0.png", "2.png"]


def test_the_best_sample_is_kept_and_the_others_are_not_drawn_again(
    photo, noisy, quick_scores, tmp_path
):
    out = tmp_path / "out"
    kept = {"1", "1.gif", "1.png"}
    assert run(photo, out, 3, "--keep", "best", "--save_views", "--preview") == kept
    assert noisy.drawn == [0, 1, 2]
    scores = (out / "scores.json").read_text()
    assert run(photo, out, 3, "--keep", "best") == kept
    assert noisy.drawn == [0, 1, 2]
    assert (out / "scores.json").read_text() == scores
    assert run(photo, out, 5, "--keep", "best") == kept
    assert noisy.drawn == [0, 1, 2, 3, 4]
    assert ranking(out) == ["1.png", "3.png", "4.png", "0.png", "2.png"]


def test_samples_that_are_wanted_are_drawn_though_they_were_removed_once(
    photo, noisy, quick_scores, tmp_path
):
    out = tmp_path / "out"
    run(photo, out, 2, "--keep", "best")
    (out / "1.png").unlink()  # by hand: it was the best
    assert run(photo, out, 2, "--keep", "best") == {"1.png"}
    assert noisy.drawn[2:] == [1]
    assert run(photo, out, 1, "--keep", "best") == {"0.png", "1.png"}  # 1 is not asked for
    assert noisy.drawn[3:] == [0]
    assert run(photo, out, 2, "--keep", "best", "--overwrite") == {"1.png"}
    assert noisy.drawn[4:] == [0, 1]
    assert run(photo, out, 2) == {"0.png", "1.png"}
    assert noisy.drawn[6:] == [0]
    run(photo, out, 2, "--keep", "best")
    (out / "scores.json").unlink()
    assert run(photo, out, 2, "--keep", "best") == {"1.png"}
    assert noisy.drawn[7:] == [0]


def test_a_sample_that_is_removed_takes_no_file_of_others_with_it(
    photo, noisy, quick_scores, tmp_path
):
    mine = tmp_path / "out" / "0" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    kept = {"0", "1", "1.png"}
    assert run(photo, tmp_path / "out", 2, "--keep", "best", "--save_views") == kept
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]
