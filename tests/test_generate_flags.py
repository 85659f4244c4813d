"""Which model `generate.py` takes, and how it samples, where the flags do not say."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

import generate
from common import cli
from ldm.sampling.config import GuidanceConfig, GuidanceKind, SamplerConfig, Solver
from ldm.sampling.solvers import SOLVERS
from pipeline import cli_args
from tests.conftest import ROOT

REQUIRED = ["--input", "x.png", "--output", "out", "--elevation", "20"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the layout of the project, and no weights."""
    (tmp_path / "ckpt").mkdir()
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "common" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chosen(*given: str) -> tuple[str, str]:
    args = generate.parse([*REQUIRED, *given])
    return args.cfg.name, args.ckpt.name


DEMO = ("demo.yaml", "syncdreamer-demo.safetensors")
PUBLISHED = ("syncdreamer.yaml", "syncdreamer-pretrain.ckpt")


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ("syncdreamer-demo.safetensors", DEMO),
        ("nothing", PUBLISHED),  # is missed, by name
        ("syncdreamer-pretrain.ckpt", PUBLISHED),
        ("syncdreamer-pretrain.safetensors", (PUBLISHED[0], "syncdreamer-pretrain.safetensors")),
    ],
)
def test_published_weights_come_before_the_small_model_which_is_said(
    project, caplog, there, expected
):
    caplog.set_level(logging.INFO)
    (project / "ckpt" / there).touch()
    assert chosen() == expected
    said = [message for message in caplog.messages if "small model" in message]
    assert caplog.messages == said
    assert len(said) == (expected == DEMO)


def test_a_flag_for_one_of_the_two_decides_the_other(project, caplog):
    (project / "ckpt" / "syncdreamer-pretrain.ckpt").touch()
    assert chosen("--cfg", "configs/demo.yaml")[1] == "syncdreamer-demo.safetensors"
    assert chosen("--ckpt", "ckpt/syncdreamer-demo.safetensors")[0] == "demo.yaml"
    assert chosen("--ckpt", "mine.ckpt") == ("syncdreamer.yaml", "mine.ckpt")
    assert chosen("--cfg", "mine.yaml")[1] == "syncdreamer-pretrain.ckpt"
    assert not caplog.messages


def test_files_of_the_project_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = generate.parse([*REQUIRED, "--cfg", "configs/syncdreamer.yaml", "--ckpt", "x.ckpt"])
    assert args.cfg == ROOT / "configs" / "syncdreamer.yaml"
    args = generate.parse([*REQUIRED, "--cfg", "configs/mine.yaml", "--ckpt", "x.ckpt"])
    assert args.cfg == Path("configs/mine.yaml")  # the message names it as it was given
    args = generate.parse([*REQUIRED, "--ckpt", "x.ckpt"])
    assert args.cfg == ROOT / "configs" / "syncdreamer.yaml"


@pytest.fixture
def sampler(monkeypatch):
    """Of a call with flags, for the published model; with `small`, for the small one."""
    made = []
    monkeypatch.setattr("pipeline.view_generator.sampling_settings", lambda *_: {})
    monkeypatch.setattr(
        "pipeline.generate.generate", lambda paths, degrees, o, *_: made.append(o.sampler)
    )

    def run(*flags: str, small: bool = False) -> SamplerConfig:
        cfg = ROOT / "configs" / ("demo.yaml" if small else "syncdreamer.yaml")
        generate.main([*REQUIRED, "--device", "cpu", "--ckpt", "x.ckpt", "--cfg", str(cfg), *flags])
        return made.pop()

    return run


def test_flags_of_the_sampler_go_before_the_configuration(sampler):
    assert sampler() == SamplerConfig(steps=50, guidance_scale=2.0)
    small = sampler(small=True)
    assert small != sampler()
    asked = sampler("--sample_steps", "7", "--eta", "0.5", small=True)
    assert asked == replace(small, steps=7, eta=0.5)
    flags = "--guidance harmony --input_scale 3 --volume_scale 0.5 --guidance_interval 0.3 5"
    guidance = GuidanceConfig("harmony", 3.0, 0.5, (0.3, 5.0))
    made = sampler(*flags.split(), "--sampler", "unipc", small=True)
    assert made == replace(small, solver="unipc", guidance=guidance)


def test_presets_are_those_of_the_model_and_the_published_one_is_the_default(sampler):
    assert sampler("--preset", "published") == sampler()
    assert sampler().settings()["eta"] == 1.0
    for small in (False, True):
        made = [sampler("--preset", name, small=small) for name in ("fast", "default")]
        assert made[0].steps < made[1].steps < 50
        assert made[1] == sampler("--preset", "fast", "--sample_steps", str(made[1].steps),
                                  small=small)  # fmt: skip


WRONG = {
    "--sampler dpm++ --eta 0.5": "eta is a setting of the solver ddim, dpm++ has none",
    "--set sampler.solver=unipc --set sampler.eta=0.5": "eta is a setting of the solver ddim",
    "--sampler unipc --set sampler.eta=0.5": "eta is a setting of the solver ddim, unipc has none",
    "--sampler unipc --sample_steps 1": "order 2 and needs at least 2 steps, got 1",
    "--guidance none --guidance_interval 0.3 5": "no effect with guidance none",
    "--guidance_interval 5 0.3": "0 <= low < high, got 5 0.3",
    "--cfg_scale 1 --guidance_interval 0.3 5": "no effect with these guidance scales",
    "--guidance harmony --cfg_scale 2": "of guidance classifier_free, but the guidance is harmony",
    "--guidance none --cfg_scale 2": "but the guidance is none: leave it out",
    "--input_scale 2": "input_scale: of guidance harmony, but the guidance is classifier_free",
    "--preset fast --eta 1": "eta is a setting of the solver ddim",
}


@pytest.mark.parametrize("flags", WRONG)
def test_settings_that_do_not_go_together_get_one_clear_line(sampler, flags: str):
    with pytest.raises(ValueError, match=re.escape(WRONG[flags])) as error:
        sampler(*flags.split())
    assert "\n" not in str(error.value)


def test_the_flags_have_the_solvers_and_the_guidance_that_there_are():
    assert cli_args.SAMPLERS == get_args(Solver) == tuple(SOLVERS)
    assert get_args(GuidanceKind) == cli_args.GUIDANCE
