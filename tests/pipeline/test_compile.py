"""`--compile`: the networks are compiled once, and give what they gave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.config import SamplerConfig
from ldm.depth_attention import CONDITIONAL, UNCONDITIONAL
from pipeline.view_generator import SyncDreamerGenerator
from tests.conftest import ROOT, relative_error, run, seeded_model


@pytest.mark.slow
def test_the_networks_are_traced_as_a_whole_and_once(small_config):
    """Without code generation, which takes minutes on a CPU."""
    unet = replace(small_config.unet, res_blocks=1, attention_levels=(2,))
    model, shape = seeded_model(replace(small_config, unet=unet)), small_config.latent_shape
    image = torch.rand(1, 3, 64, 64) * 2 - 1

    def evaluate(timestep: int) -> torch.Tensor:
        branches = (CONDITIONAL, UNCONDITIONAL)
        return model(latents, timestep, conditioning, cache, branches, 8)

    with torch.inference_mode():
        cache, latents = model.sampling_cache(), torch.randn(1, *shape)
        features, elevation = model.encode_image(image), torch.zeros(1)
        conditioning = model.make_conditioning(features, elevation, torch.randn(1, *shape[1:]))
        expected = [evaluate(t) for t in (501, 1)]
        torch.compiler.reset()
        networks = (model.unet, *model.spatial_volume.children())
        for network in networks:
            network.compile(dynamic=False, fullgraph=True, backend="eager")
        with torch._dynamo.config.patch(error_on_recompile=True):
            found = [evaluate(t) for t in (501, 1)]
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other.numpy()) < 1e-6
    torch.compiler.reset()


@pytest.mark.integration
def test_without_a_compiler_there_is_one_clear_line(tmp_path: Path, tiny_checkpoint):
    input_image = ("--input", ROOT / "testset" / "locomotive.png", "--elevation", "20")
    model = ("--ckpt", tiny_checkpoint, "--cfg", ROOT / "configs" / "tiny.yaml")
    env = {"CXX": "/no/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    flags = ("--compile", "--device", "cpu")
    done = run("generate.py", *input_image, "--output", tmp_path / "out", *model, *flags, env=env)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert "compiling needs a C++ compiler" in line
    assert "/no/compiler" in line
    assert not list(tmp_path.glob("out/*.png"))


@pytest.mark.slow
def test_compiled_views_are_those_of_before(small_config, tmp_path: Path):
    checkpoint = tmp_path / "small.ckpt"
    torch.save({"state_dict": seeded_model(small_config).state_dict()}, checkpoint)
    pixels = np.zeros((3, 64, 64), np.float32)
    plain, compiled = (
        SyncDreamerGenerator(
            small_config, checkpoint, torch.device("cpu"), "fp32", 8, compile_networks
        ).generate(pixels, 20.0, 1, SamplerConfig(steps=2))
        for compile_networks in (False, True)
    )
    assert np.abs(plain.astype(int) - compiled.astype(int)).max() <= 1
