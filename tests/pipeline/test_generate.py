"""Elevations that are estimated, samples that are ranked, and how often inputs are read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import generate as script
from common.records import ReplaceError
from ldm.config import SamplerConfig
from multiview.images import views_to_strip
from pipeline.generate import GenerateOptions, estimate_elevations, generate
from pipeline.inputs import prepare_inputs
from pipeline.selection.elevation_drafts import ElevationError, draft_sampler
from pipeline.selection.ranking import SampleScore
from tests.conftest import ROOT
from tests.fakes import FakeGenerator
from tests.pipeline.conftest import SMALL, SMALL_CFG, FileReads
from tests.renderer.small_runs import ellipsoid


def options(output: Path, **changes: object) -> GenerateOptions:
    given = GenerateOptions(output, -1, 1, 7, SamplerConfig(eta=1.0), torch.device("cpu"))
    return replace(given, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def one_draft(estimate) -> None:
    estimate(17.26, [30.0])


def estimated(paths, elevations, given, view_generator) -> list[float]:
    inputs = prepare_inputs(
        paths, elevations, given.output, given.crop_size, view_generator.size, compare=False
    )
    found = estimate_elevations(inputs, given, view_generator)
    return [source.elevation_deg for source in found]


@pytest.mark.parametrize(("of_a_sample", "of_a_draft"), [(50, 8), (8, 8), (3, 3)])
def test_a_draft_takes_few_steps_and_never_more_than_a_sample(of_a_sample, of_a_draft):
    sampler = SamplerConfig(steps=of_a_sample, eta=1.0, temperature=0.3)
    assert draft_sampler(sampler) == SamplerConfig(steps=of_a_draft, eta=0.0, temperature=0.3)


def test_an_estimate_takes_the_place_of_auto_and_of_nothing_else(photo, view_generator, tmp_path):
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    several = options(tmp_path / "several")
    assert estimated([photo, other], [5.0, "auto"], several, view_generator) == [5.0, 17.3]
    assert view_generator.generated == [(30.0, 7)]
    assert estimated([photo], ["auto"], options(tmp_path / "single"), view_generator) == [17.3]
    left = {path.name for path in (tmp_path / "single").rglob("*")}
    assert left == {"drafts", "+30.0.png", "+30.0.json", "elevation.json", "elevation.png"}
    assert {path.name for path in (tmp_path / "several").iterdir()} == {"other"}


def test_drafts_are_kept_until_something_changes(photo, view_generator, tmp_path):
    with Image.open(photo) as image:  # with alpha, for crop sizes
        image.convert("RGBA").save(photo)

    def count(**changes: object) -> int:
        before = len(view_generator.generated)
        given = options(tmp_path / "out", **changes)
        assert estimated([photo], ["auto"], given, view_generator) == [17.3]
        return len(view_generator.generated) - before

    assert [count(), count(), count(overwrite=True), count()] == [1, 0, 1, 0]
    more_steps = SamplerConfig(steps=70, eta=0.5)  # drafts have their own
    assert count(sampler=more_steps) == 0
    for change in ({"seed": 8}, {"crop_size": 100}, {"sampler": SamplerConfig(guidance_scale=3.0)}):
        with pytest.raises(ReplaceError, match="other settings"):
            count(**change)
    (tmp_path / "out" / "drafts" / "+30.0.png").unlink()
    assert count() == 1
    photo.write_bytes(photo.read_bytes() + b" ")
    with pytest.raises(ReplaceError, match="input was"):
        count()


@pytest.mark.parametrize("name", ["0.png", "elevation.png", "drafts/+30.0.png"])
def test_files_of_others_are_found_before_any_draft_is_generated(
    photo, view_generator, tmp_path, name
):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(ReplaceError, match=re.escape(str(path))):
        estimated([photo], ["auto"], options(tmp_path / "out"), view_generator)
    assert (view_generator.generated, path.read_bytes()) == ([], b"mine")
    image = tmp_path / "elevation.png"
    image.write_bytes(photo.read_bytes())
    with pytest.raises(FileExistsError, match="is an input"):
        estimated([image], ["auto"], options(tmp_path, overwrite=True), view_generator)


def test_samples_are_generated_for_the_estimate(photo, view_generator, tmp_path):
    given = options(tmp_path / "out", num_samples=2)
    generate([photo], ["auto"], given, view_generator)
    record = json.loads((tmp_path / "out" / "0.json").read_text())
    assert record["settings"]["elevation_deg"] == 17.3
    assert view_generator.generated == [(30.0, 7), (17.3, 7), (17.3, 8)]
    generate([photo], ["auto"], given, view_generator)
    assert len(view_generator.generated) == 3, "all files exist: nothing is generated"


def test_a_failed_estimate_names_the_image(photo, view_generator, tmp_path, no_estimate):
    with pytest.raises(ElevationError, match=r"photo\.png: .*view 3"):
        generate([photo], ["auto"], options(tmp_path / "out"), view_generator)


@pytest.mark.integration
@pytest.mark.parametrize("count", [1, 2])
def test_the_command_reads_every_input_once(count, small_checkpoint, tmp_path, estimate):
    """Each is opened, hashed and decoded once, though drafts, samples and ranking need it."""
    names = ["cup", "robot"][:count]
    inputs = [tmp_path / f"{name}.png" for name in names]
    for path in inputs:
        path.write_bytes((ROOT / "testset" / path.name).read_bytes())
    flags = [
        "--input", *map(str, inputs), "--output", str(tmp_path / "out"), "--elevation", "auto",
        "--keep", "best", "--crop_size", "auto", "--cfg", str(SMALL_CFG), "--ckpt",
        str(small_checkpoint), *(f"--set={text}" for text in SMALL), "--device", "cpu",
        "--sample_num", "2", "--sample_steps", "1", "--cfg_scale", "1",
    ]  # fmt: skip
    estimate(17.26)
    for _ in range(2):  # the second run finds all results
        with FileReads(inputs) as reads:
            script.main(flags)
        for counted in (reads.opened, reads.decoded, reads.hashed):
            assert [counted[path] for path in inputs] == [1] * count


def test_an_existing_strip_is_read_once_to_check_it_and_once_to_rank_it(
    photo, view_generator, tmp_path
):
    given = options(tmp_path / "out", keep="all")
    strips = generate([photo], [30.0], given, view_generator)
    with FileReads(strips) as reads:
        generate([photo], [30.0], given, view_generator)
    assert reads.opened[strips[0]] == 2
    assert len(view_generator.generated) == 1


class NoisyGenerator(FakeGenerator):
    """Samples of one object, more or less noisy."""

    noise = (60, 0, 90, 20, 40)

    def generate(self, pixels, elevation_deg, seed, sampler, on_step=None):
        k = seed - 7
        self.generated.append(k)
        strip = (views_to_strip(ellipsoid()[..., :3]) * 255).round()
        marks = (strip < 200) * np.random.default_rng(k).normal(0, self.noise[k], strip.shape)
        return (strip + marks).clip(0, 255).astype(np.uint8)


@pytest.fixture
def noisy() -> NoisyGenerator:
    return NoisyGenerator()


@pytest.fixture
def quick_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(views, *_):
        noise = np.abs(views[..., :3] - ellipsoid()[..., :3]).mean()
        return SampleScore(score=1 / (1 + float(noise)))

    monkeypatch.setattr("pipeline.selection.ranking.score_sample", score)


def run(photo: Path, folder: Path, view_generator, samples: int, **changes: object) -> set[str]:
    """Generate; return names of the existing images and folders."""
    given = options(folder, num_samples=samples, **changes)
    strips = generate([photo], [30.0], given, view_generator)
    assert all(strip.exists() for strip in strips)
    return {path.name for path in folder.iterdir() if path.suffix != ".json"}


def ranking(folder: Path) -> list[str]:
    return [row["name"] for row in json.loads((folder / "scores.json").read_text())]


def test_all_samples_are_kept_in_order(photo, noisy, tmp_path):
    kept = run(photo, tmp_path / "out", noisy, 3, keep="all")
    assert kept == {"0.png", "1.png", "2.png"}
    assert ranking(tmp_path / "out") == ["1.png", "0.png", "2.png"]


def test_the_best_sample_is_kept_and_the_others_are_not_generated_again(
    photo, noisy, quick_scores, tmp_path
):
    out = tmp_path / "out"
    kept = {"1", "1.gif", "1.png"}
    assert run(photo, out, noisy, 3, keep="best", save_views=True, preview=True) == kept
    assert noisy.generated == [0, 1, 2]
    scores = (out / "scores.json").read_text()
    assert run(photo, out, noisy, 3, keep="best") == kept
    assert noisy.generated == [0, 1, 2]
    assert (out / "scores.json").read_text() == scores
    assert run(photo, out, noisy, 5, keep="best") == kept
    assert noisy.generated == [0, 1, 2, 3, 4]
    assert ranking(out) == ["1.png", "3.png", "4.png", "0.png", "2.png"]


def test_samples_that_are_wanted_are_generated_though_they_were_removed_once(
    photo, noisy, quick_scores, tmp_path
):
    out = tmp_path / "out"
    run(photo, out, noisy, 2, keep="best")
    (out / "1.png").unlink()  # by hand: it was the best
    assert run(photo, out, noisy, 2, keep="best") == {"1.png"}
    assert noisy.generated[2:] == [1]
    assert run(photo, out, noisy, 1, keep="best") == {"0.png", "1.png"}  # 1 is not asked for
    assert noisy.generated[3:] == [0]
    assert run(photo, out, noisy, 2, keep="best", overwrite=True) == {"1.png"}
    assert noisy.generated[4:] == [0, 1]
    assert run(photo, out, noisy, 2) == {"0.png", "1.png"}
    assert noisy.generated[6:] == [0]
    run(photo, out, noisy, 2, keep="best")
    (out / "scores.json").unlink()
    assert run(photo, out, noisy, 2, keep="best") == {"1.png"}
    assert noisy.generated[7:] == [0]


def test_a_sample_that_is_removed_takes_no_file_of_others_with_it(
    photo, noisy, quick_scores, tmp_path
):
    mine = tmp_path / "out" / "0" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    kept = {"0", "1", "1.png"}
    assert run(photo, tmp_path / "out", noisy, 2, keep="best", save_views=True) == kept
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]


def test_a_missing_outline_is_named_with_the_flag_that_helps(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.view_generator.sampling_settings", lambda *_: {})
    flags = ["--input", str(photo), "--output", str(tmp_path / "out"), "--elevation", "20",
             "--ckpt", "x.ckpt", "--device", "cpu", "--crop_size"]  # fmt: skip
    for crop_size in ("auto", "200"):
        with pytest.raises(ValueError, match=r"photo\.png.* --crop_size -1"):
            script.main([*flags, crop_size])
    assert not (tmp_path / "out").exists()


def test_the_command_hands_on_its_flags(monkeypatch, tmp_path):
    """Also which flag helps against an error."""
    calls = []

    def fail(*given):
        calls.append(given)
        raise ReplaceError("0.png: was made with other settings")

    monkeypatch.setattr("pipeline.generate.generate", fail)
    monkeypatch.setattr("pipeline.view_generator.sampling_settings", lambda *_: {})
    with pytest.raises(ReplaceError, match=r"0\.png.*--output.*--overwrite"):
        script.main(
            ["--input", "a.png", "--output", "out", "--elevation", "auto", "--ckpt", "x.ckpt",
             "--device", "cpu", "--keep", "best", "--sample_num", "3", "--batch_view_num", "2",
             "--preview"]
        )  # fmt: skip
    ((paths, elevations, given, view_generator),) = calls
    assert (paths, elevations) == ([Path("a.png")], ["auto"])
    assert (given.keep, given.num_samples, given.preview) == ("best", 3, True)
    assert view_generator.views_at_once == 2
