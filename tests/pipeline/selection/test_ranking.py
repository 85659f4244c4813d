from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("embreex")
pytest.importorskip("manifold3d")

from multiview.images import views_to_strip
from multiview.views import read_views
from pipeline.selection import ranking
from pipeline.selection.ranking import SampleScore, score_sample
from pipeline.selection.similarity import CROP_SIDE, crop_object
from tests.conftest import SHARED
from tests.toy_views import CORRUPTIONS, corrupt, toy_views

SCANS = SHARED / "data" / "gso"
GENERATED = SHARED / "data" / "generated"
FAILURES = ("frog", "halloween", "paperbin")
CONSISTENT = ("aircraft-2", "flower2", "forklift", "giraffe", "grandfather", "sofa", "steak")


@pytest.fixture(scope="module")
def clean() -> SampleScore:
    toy = toy_views(4)
    return score_sample(toy.views, crop_object(toy.image, CROP_SIDE), toy.elevation_deg)


def share_first(objects: list[tuple[np.ndarray, ...]]) -> float:
    """In how many of all cases the views as they are come before the spoiled ones."""
    won = []
    for index, (views, *given) in enumerate(objects):
        clean = score_sample(views, *given).score
        other = objects[(index + 1) % len(objects)][0]
        won += [
            clean > score_sample(corrupt(views, kind, other, index), *given).score
            for kind in CORRUPTIONS
        ]
    return float(np.mean(won))


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["neighbours", "flipped", "noisy", "blurred", "other", "reversed"])
def test_true_views_come_before_spoiled_ones(kind: str, clean: SampleScore):
    toy = toy_views(4)
    spoiled = corrupt(toy.views, kind, toy_views(3).views, 2)
    spoiled = score_sample(spoiled, crop_object(toy.image, CROP_SIDE), toy.elevation_deg)
    assert spoiled.score < clean.score
    assert spoiled.halves_pattern < clean.halves_pattern


def test_the_view_that_fits_worst_is_named():
    views = toy_views(4).views.copy()
    views[6] = toy_views(3).views[6]
    assert score_sample(views).worst_view == 6


@pytest.mark.integration
def test_an_input_that_fits_raises_the_score_and_another_one_lowers_it(clean: SampleScore):
    toy, other = toy_views(4), toy_views(3)
    false = score_sample(toy.views, crop_object(other.image, CROP_SIDE), other.elevation_deg)
    assert clean.halves_pattern == false.halves_pattern
    assert clean.input_silhouette > false.input_silhouette + 0.1
    assert clean.input_psnr > false.input_psnr + 3
    assert clean.input_pattern > false.input_pattern
    assert clean.score > false.score


def test_bytes_and_large_views_give_about_the_same_score(clean: SampleScore):
    large = toy_views(4).views.repeat(2, axis=1).repeat(2, axis=2)
    score = score_sample((large * 255).round().astype(np.uint8))
    assert score.input_psnr is None
    assert score.halves_pattern == pytest.approx(clean.halves_pattern, abs=0.06)
    assert score.halves_volume == pytest.approx(clean.halves_volume, abs=0.03)


def test_a_view_without_an_object_is_a_problem_of_the_sample_and_no_error():
    views = toy_views(4).views.copy()
    views[3] = 1.0
    score = score_sample(views)
    assert score.score == 0
    assert "no object in the views 3" in score.problem


@pytest.mark.integration
def test_the_command_orders_strips(tmp_path: Path, capsys):
    toy = toy_views(4)
    spoiled = corrupt(toy.views, "swapped", toy.views, 1)
    for name, views in (("0.png", spoiled), ("1.png", toy.views)):
        Image.fromarray((views_to_strip(views) * 255).astype(np.uint8)).save(tmp_path / name)
    Image.fromarray(toy.image).save(tmp_path / "input.png")
    strips = [str(tmp_path / name) for name in ("0.png", "1.png")]
    ranking.main([*strips, "--input", str(tmp_path / "input.png"), "--elevation", "10"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(strips[1])
    assert second.startswith(strips[0])
    rows = json.loads((tmp_path / "scores.json").read_text())
    assert [(row["name"], row["rank"]) for row in rows] == [(strips[1], 1), (strips[0], 2)]
    with pytest.raises(SystemExit):
        ranking.main([*strips, "--elevation", "10"])


@pytest.mark.slow
def test_true_views_of_toys_come_first_in_nearly_all_cases():
    toys = [toy_views(number) for number in range(100, 112)]
    given = [(toy.views, crop_object(toy.image, CROP_SIDE), toy.elevation_deg) for toy in toys]
    assert share_first(given) >= 0.95
    assert share_first([(toy.views,) for toy in toys]) >= 0.95


@pytest.mark.slow
@pytest.mark.skipif(not SCANS.is_dir(), reason="the scanned objects are not beside the project")
def test_true_views_of_scanned_objects_come_first_in_nearly_all_cases():
    scans = [(read_views(folder),) for folder in sorted(SCANS.iterdir())]
    assert share_first(scans) >= 0.95


@pytest.mark.integration
@pytest.mark.parametrize("name", FAILURES + CONSISTENT)
@pytest.mark.skipif(not GENERATED.is_dir(), reason="generated views are not beside the project")
def test_generated_views_that_do_not_fit_together_are_said(name: str):
    warning = score_sample(read_views(GENERATED / f"{name}.png", 16)).warning
    assert (ranking.MISFIT in warning) == (name in FAILURES)


@pytest.mark.parametrize("folder", sorted(SCANS.glob("*")), ids=lambda folder: folder.name)
def test_true_views_of_scanned_objects_fit_together(folder: Path):
    assert not score_sample(read_views(folder, 16)).warning
