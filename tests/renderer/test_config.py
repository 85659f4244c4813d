from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from renderer.config import Preset, RendererConfig, load_renderer_config
from renderer.methods.neus_mlp import MLPNeuSConfig
from tests.conftest import ROOT
from tests.renderer.small_runs import TINY


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("ne*.yaml")), ids=lambda p: p.name)
@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_file_is_read_with_every_preset(path: Path, preset: Preset):
    expected = {"neus": "grid", "neus-mlp": "mlp", "nerf": "nerf"}[path.stem]
    assert load_renderer_config(path, preset).kind == expected


def test_the_published_file_holds_the_published_values():
    assert load_renderer_config(ROOT / "configs" / "neus-mlp.yaml") == RendererConfig(kind="mlp")


def test_overrides_go_before_presets_and_those_before_the_file(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text("kind: mlp\nmlp: {steps: 7, rays: 8, anneal_steps: 9}\n")
    assert load_renderer_config(path).mlp == MLPNeuSConfig(steps=7, rays=8, anneal_steps=9)
    fast = load_renderer_config(path, "fast", ["mlp.rays=5"]).mlp
    assert (fast.steps, fast.rays, fast.anneal_steps) == (1000, 5, 9)
    chosen = load_renderer_config(path, "fast", ["kind=nerf"])
    assert (chosen.kind, chosen.nerf.steps, chosen.mlp.steps) == ("nerf", 800, 7)


def test_half_precision_is_turned_on_for_the_kind(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("kind: mlp\n")
    assert load_renderer_config(tmp_path / "a.yaml", half=True).section.half
    assert not load_renderer_config(tmp_path / "a.yaml").section.half


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("knd=mlp", "knd"),
        ("kind=voxels", "grid"),
        ("segmenter=magic", "white"),
        ("mlp.rays=0", "MLPNeuSConfig.rays must be positive"),
        ("mlp.rays=many", "mlp.rays"),
        ("mlp.networks.sdf.widht=3", "widht"),
        ("log_every=0", "RendererConfig.log_every must be positive"),
        ("save_every=0", "RendererConfig.save_every must be positive"),
        ("save_every=-5", "RendererConfig.save_every must be positive"),
        ("save_every=nan", "RendererConfig.save_every must be positive"),
        ("texture_size=10", "texture_size must be from 64 to 8192 pixels, got 10"),
        ("film_size=4000", "film_size must be from 16 to 2160 pixels, got 4000"),
        ("use_mask=perhaps", "use_mask"),
        ("mlp.resolution=15", "resolution must be at least 16"),
        ("mlp.sampling.importance=10", "multiple of rounds"),
        ("mlp.networks.sdf.skip=8", "skip"),
        ("mlp.networks.sdf.width=39", "width"),
        ("mlp.networks.sdf.depth=0", "depth"),
        ("nerf.steps=0", "steps"),
        ("nerf.length=0.0", "length"),
        ("nerf.mesh_resolution=1", "mesh_resolution"),
        ("nerf.network.grid.levels=0", "levels"),
        ("nerf.network.grid.levels=1", "one level"),
        ("nerf.network.grid.max_resolution=8", "max_resolution"),
        ("nerf.network.grid.log2_table=31", "log2_table"),
        ("nerf.occupancy.resolution=0", "resolution"),
        ("nerf.occupancy.decay=1.0", "decay"),
        ("grid.rays=0", "rays must be positive"),
        ("grid.resolution=7", "resolution must be at least 8"),
        ("grid.smoothness=nan", "smoothness must be 0 or more"),
    ],
)
def test_values_that_make_no_sense_are_named(override: str, message: str):
    with pytest.raises(ValueError, match=f"neus-mlp.yaml with {re.escape(override)}: .*{message}"):
        load_renderer_config(ROOT / "configs" / "neus-mlp.yaml", overrides=[override])


def test_settings_are_what_the_result_depends_on():
    settings = TINY.settings()
    assert settings["mlp"]["sampling"]["coarse"] == 16
    assert {"kind", "use_mask", "segmenter", "mlp"} <= set(settings)
    assert not {"nerf", "grid", "log_every", "save_every"} & set(settings)
    assert set(settings) - set(TINY.training_settings()) == {"texture_size", "film_size", "faces"}
