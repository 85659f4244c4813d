from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import generate as script
from ldm import generation
from ldm.sampler import SamplerConfig
from multiview.elevation import ElevationEstimate
from pipeline import choice
from tests.renderer.small_runs import write_strip


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Estimate 17.26 degrees from one draft; for which elevations drafts were made."""
    drafted = []

    def estimate(image, draft, config):
        assert draft(30.0).shape[0] == 16
        drafted.append(30.0)
        values = np.zeros(2)
        return ElevationEstimate(17.26, 3.0, values, values, values, values)

    monkeypatch.setattr("pipeline.drafts.estimate_elevation", estimate)
    return drafted


def test_an_estimate_takes_the_place_of_auto_and_of_nothing_else(
    photo, drawer, estimates, tmp_path
):
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    found = choice.estimate_elevations(
        [photo, other], [5.0, "auto"], -1, 7, SamplerConfig(eta=1.0), drawer
    )
    assert found == [5.0, 17.3]
    assert drawer.drawn == [(30.0, 7)]
    assert choice.estimate_elevations([photo], ["auto"], -1, 7, SamplerConfig(), drawer) == [17.3]


def test_samples_are_drawn_for_the_estimate_with_the_model_of_the_drafts(
    photo, estimates, tiny_checkpoint, tmp_path, monkeypatch
):
    loaded = []
    load = generation.load_model
    monkeypatch.setattr(generation, "load_model", lambda *a: loaded.append(a) or load(*a))
    monkeypatch.setattr(choice, "draft_sampler", lambda _: SamplerConfig(1, 1.0, 0.0))
    script.main(
        ["--input", str(photo), "--output", str(tmp_path / "out"), "--elevation", "auto",
         "--cfg", "configs/tiny.yaml", "--ckpt", str(tiny_checkpoint), "--device", "cpu",
         "--sample_num", "1", "--sample_steps", "1", "--cfg_scale", "1"]
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / "0.json").read_text())
    assert record["settings"]["elevation_deg"] == 17.3
    assert len(loaded) == 1


@pytest.mark.parametrize("keep", ["all", "best"])
def test_the_best_sample_is_kept_and_the_others_if_that_is_asked_for(
    photo, tmp_path, monkeypatch, keep
):
    def generate(config, paths, elevations, options, model):
        assert elevations == [30.0]
        options.output.mkdir()
        rng = np.random.default_rng(0)
        for k, noise in enumerate((60, 0, 90)):
            strip = np.asarray(Image.open(write_strip(tmp_path / "strip.png"))).astype(float)
            marks = (strip < 200) * rng.normal(0, noise, strip.shape)
            path = options.output / f"{k}.png"
            Image.fromarray((strip + marks).clip(0, 255).astype(np.uint8)).save(path)
            path.with_suffix(".json").write_text("{}")
        return [options.output / f"{k}.png" for k in range(3)]

    monkeypatch.setattr(generation, "generate", generate)
    script.main(
        ["--input", str(photo), "--output", str(tmp_path / "out"), "--elevation", "30",
         "--ckpt", "x.ckpt", "--device", "cpu", "--keep", keep]
    )  # fmt: skip
    rows = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert rows[0]["name"] == "1.png"
    left = {path.name for path in Path(tmp_path / "out").glob("[0-9].*")}
    everything = {f"{k}.{kind}" for k in range(3) for kind in ("png", "json")}
    assert left == (everything if keep == "all" else {"1.png", "1.json"})
