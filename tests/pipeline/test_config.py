"""From the flags of `image_to_3d.py` to its settings."""

from __future__ import annotations

import re

import pytest

import image_to_3d as script


def test_the_flags_come_to_the_settings(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("pipeline.view_generator.sampling_settings", lambda *_: {})
    monkeypatch.setattr("pipeline.batch.images_to_3d", lambda *given: calls.append(given))
    script.main(["a.png", "-o", "out", "--ckpt", "x.ckpt", "--device", "cpu"])
    script.main(
        ["a.png", "-o", "out", "--ckpt", "x.ckpt", "--device", "cpu", "--elevation", "-5",
         "--preset", "fast", "--set", "sampler.eta=0.5", "--set", "use_mask=false",
         "--sample_steps", "7"]
    )  # fmt: skip
    (_, _, default, *_), (_, _, asked, *_) = calls
    assert (default.elevation, default.crop_size, default.num_samples) == ("auto", "auto", 4)
    assert (default.preset, default.draft_steps, default.backend) == ("default", 8, "auto")
    assert (asked.elevation, asked.sampler.steps, asked.sampler.eta) == (-5.0, 7, 0.5)
    assert not asked.renderer.use_mask
    assert asked.renderer.grid.steps != default.renderer.grid.steps


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("modle.unet.channels=3", "beginning with model, sampler (of --cfg), or kind, "),
        ("use_mask", "--set use_mask: expected <key>=<value>"),
        ("", "expected <key>=<value>"),
        ("sampler.stepps=3", "demo.yaml with sampler.stepps=3"),
        ("grid.stepps=3", "neus.yaml with "),
    ],
)
def test_a_setting_that_no_file_has_is_an_error_of_the_file_it_is_for(wrong, message, tmp_path):
    flags = ["--set", "use_mask=false", "--set", wrong, "--cfg", "configs/demo.yaml"]
    with pytest.raises(ValueError, match=re.escape(message)):
        script.main(["a.png", "-o", str(tmp_path), "--ckpt", "x.ckpt", "--device", "cpu", *flags])
