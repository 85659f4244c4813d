"""Which model `generate.py` takes, and how it samples, where the flags do not say."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import generate
from common import cli
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


def test_flags_of_the_sampler_go_before_the_configuration(monkeypatch):
    samplers = []
    monkeypatch.setattr("pipeline.view_generator.sampling_settings", lambda *_: {})
    monkeypatch.setattr(
        "pipeline.generate.generate", lambda paths, degrees, o, *_: samplers.append(o.sampler)
    )
    base = [*REQUIRED, "--device", "cpu", "--ckpt", "x.ckpt"]
    generate.main(base)
    generate.main([*base, "--cfg", str(ROOT / "configs" / "demo.yaml")])
    generate.main([*base, "--cfg", str(ROOT / "configs" / "demo.yaml"), "--sample_steps", "7",
                   "--eta", "0.5"])  # fmt: skip
    published, small, asked = samplers
    assert (published.steps, published.guidance_scale, published.eta) == (50, 2.0, 1.0)
    assert small != published
    assert (asked.steps, asked.eta) == (7, 0.5)
    assert asked.guidance_scale == small.guidance_scale
