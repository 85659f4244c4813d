"""The comparison of solvers, `benchmarks.samplers`, with a few steps of the small model."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import samplers
from demo import make_dataset


@pytest.mark.integration
def test_the_comparison_prints_a_table_and_resumes(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(
        samplers, "SAMPLERS",
        [replace(samplers.ODE, steps=2), replace(samplers.ODE, steps=3, solver="dpm++sde")],
    )  # fmt: skip
    data = str(tmp_path / "held-out")
    make_dataset.main(["--output", data, "--toys", "1", "--held_out", "--workers", "1"])
    command = ["--data", data, "--output", str(tmp_path / "out"), "--reference_steps", "4"]
    if find_spec("matplotlib") is not None:
        command += ["--plot", str(tmp_path / "plot.png")]
    samplers.main(command)
    first = capsys.readouterr().out
    rows = [line for line in first.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:2] for row in rows[1:]] == [
        ["| ddim log_snr", "2"], ["| dpm++sde log_snr", "3"]
    ]  # fmt: skip
    assert " | random | " in rows[2]
    monkeypatch.setattr("ldm.sampling.sampler.sample", None)  # what is finished is kept
    samplers.main(command)
    assert capsys.readouterr().out == first
    with pytest.raises(ValueError, match="has 1 objects, asked for 5 on"):
        samplers.main([*command, "--first", "5"])
