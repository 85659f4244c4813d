"""Tables of a reproduction: statistics over samples, bands, published rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluation.benchmark.tables import to_markdown
from evaluation.published_results import TARGETS
from evaluation.results import Result
from ldm.config import SamplerConfig
from pipeline.reproduction.tables import Run, conclusion, make_tables, verdict
from tests.conftest import ROOT


def run_of(psnr: float, num_objects: int = 30) -> Run:
    """Four samples of each object whose PSNR have this mean and the variance 5/3 * 0.145."""
    offsets = [0.145**0.5 * k for k in (-1.5, -0.5, 0.5, 1.5)]
    samples = [
        Result("x", psnr=psnr + offset, ssim=0.813 + offset / 100, lpips=0.148 - offset / 100)
        for offset in offsets
    ]
    names = [f"object {k}" for k in range(num_objects)]
    results = {name: [*samples[k % 4 :], *samples[: k % 4]] for k, name in enumerate(names)}
    return Run(results, dict.fromkeys(names, 0), False, 256, SamplerConfig())


def test_statistics_over_samples_and_objects():
    run = run_of(20.0)
    assert run.mean().psnr == pytest.approx(20)
    assert run.best().psnr == pytest.approx(20 + 1.5 * 0.145**0.5)
    assert run.best().lpips == pytest.approx(0.148 - 0.015 * 0.145**0.5)  # of the same sample
    assert run.variance() == pytest.approx(0.145 * 5 / 3)
    two = Run(
        {"a": [Result("a", psnr=10.0), Result("a", psnr=14.0)], "b": [Result("b", psnr=20.0)] * 2},
        {"a": 1, "b": 0}, True, 64, SamplerConfig(),
    )  # fmt: skip
    assert (two.mean().psnr, two.best().psnr, two.of_chosen().psnr) == (16, 17, 17)
    assert two.variance() == pytest.approx(4)
    assert replace(two, results={"a": [Result("a", psnr=10.0)]}).variance() is None


def test_numbers_inside_their_bands_reproduce_the_method():
    run = run_of(19.74 + 0.14)
    verdicts = {(t.statistic, t.metric): verdict(run, t) for t in run.targets()}
    assert verdicts["mean", "psnr"] == verdicts["variance", "psnr"] == "within"
    assert verdicts["mean", "ssim"] == verdicts["mean", "lpips"] == "within"
    high = run_of(19.74 + 0.16)
    assert verdict(high, TARGETS[0]) == "outside"
    assert "outside their bands" in conclusion(high)
    # the best of 4 is 0.45 dB above the mean in the source, here 0.57
    good = run_of(19.74 - 0.05)
    assert conclusion(good).endswith("within their bands: the method is reproduced.")
    without_lpips = {
        name: [replace(each, lpips=None) for each in samples]
        for name, samples in good.results.items()
    }
    assert "All 5 measured numbers" in conclusion(replace(good, results=without_lpips))


def test_a_run_of_another_protocol_is_not_judged():
    good = run_of(19.74)
    sampler = replace(good.sampler, steps=2, eta=0.0)
    cases = {
        "2 of 30 objects": run_of(19.74, 2),
        "views of 64 pixels, not 256": replace(good, size=64),
        "2 denoising steps, not 50 or 200; eta 0, not 1": replace(good, sampler=sampler),
        "guidance 3, not 2, 1.5 or 1": replace(
            good, sampler=replace(good.sampler, guidance_scale=3.0)
        ),
    }
    for reason, run in cases.items():
        assert conclusion(run).endswith(f"{reason}.")
        assert {row[-1] for table in make_tables(run)[2:] for row in table.rows} <= {
            "not comparable"
        }
    of_15 = replace(good, sampler=replace(good.sampler, guidance_scale=1.5))
    assert [t.value for t in of_15.targets()] == [20.55, 0.822, 0.137]


def test_the_table_has_every_published_row_and_this_runs():
    same, other, bands = make_tables(replace(run_of(19.74), ranked=True))
    assert "nothing is aligned" in same.caption
    ours = [row for row in same.rows if row[0] == "this run"]
    assert [row[-2].split(";")[0] for row in ours] == [
        "mean of 4 samples",
        "best of 4 samples by the truth",
        "the sample that the ranking chose, without the truth",
    ]
    with_mesh = {
        name: [replace(samples[0], chamfer=0.02, iou=0.7), *samples[1:]]
        for name, samples in run_of(19.74).results.items()
    }
    rows = make_tables(replace(run_of(19.74), results=with_mesh))[0].rows
    assert [row[5:7] for row in rows if row[0] == "this run"] == [
        ("-", "-"), ("-", "-"), ("0.0200", "0.7000"),
    ]  # fmt: skip
    assert rows[-1][7].startswith("sample 0; 30 objects")
    assert ours[0][1:4] == ("19.74", "0.813", "0.148")
    assert "Wonder3D" in [row[0] for row in other.rows]
    assert ("2.0", "PSNR, mean of 4 samples", "19.74 ± 0.15", "19.74", "within") in bands.rows


def test_the_page_of_the_documentation_has_every_published_row_and_band():
    page = (ROOT / "docs" / "published_results.md").read_text(encoding="utf-8")
    expected = to_markdown(make_tables(None), []).strip()
    assert expected in page, f"docs/published_results.md must hold:\n{expected}"
