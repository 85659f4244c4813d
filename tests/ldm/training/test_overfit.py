"""Two objects are learned by heart, and the checkpoint makes their views (paper Sec. 3 and 4.1)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from einops import rearrange

pytest.importorskip("lightning.pytorch", reason="pip install -r requirements/train.txt")

import train_syncdreamer
from common.config import load_config
from ldm.checkpoint.load import load_model
from ldm.config import SamplerConfig
from ldm.data.samples import to_model_range
from ldm.sampler import sample
from ldm.training.config import TrainConfig
from tests.ldm.training.overfit import make_set, make_start, views_of


def psnr(images: torch.Tensor, expected: torch.Tensor) -> float:
    return -10 * math.log10(((images - expected) / 2).square().mean().item())


def pictures(number: int) -> torch.Tensor:
    views = torch.from_numpy(views_of(number)[..., :3])
    return to_model_range(rearrange(views, "n h w c -> n c h w"))


@pytest.mark.slow
def test_two_objects_are_learned_and_their_views_made_from_the_checkpoint(tmp_path: Path):
    make_set(tmp_path / "tree")
    base, start = make_start(tmp_path)
    settings = (f"data.source={tmp_path / 'tree'}", f"run.cache={tmp_path / 'cache'}")
    flags = [part for setting in settings for part in ("--set", setting)]
    train_syncdreamer.main(
        ["-b", str(base), "-l", str(tmp_path / "logs"), "-c", str(tmp_path / "models"),
         "--finetune_from", str(start), "--device", "cpu", *flags]
    )  # fmt: skip
    report = (tmp_path / "logs" / "overfit" / "steps.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in report]
    assert sum(losses[-3:]) / 3 < losses[0] / 5

    config = load_config(TrainConfig, base).model
    checkpoint = tmp_path / "models" / "overfit" / "last.ckpt"
    model = load_model(config, checkpoint, torch.device("cpu"), torch.float32)
    expected = [pictures(0), pictures(1)]
    for number, views in enumerate(expected):
        generator = torch.Generator().manual_seed(0)

        def draw(shape: tuple[int, ...], generator: torch.Generator = generator) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        with torch.inference_mode():
            features = model.encode_image(views[:1])
            sampler = SamplerConfig(steps=50, guidance_scale=1.0)
            latents = sample(model, features, math.pi / 6, sampler, draw)
            made = model.decode(latents).clamp(-1, 1)
        own = psnr(made, views)
        assert own > psnr(torch.ones_like(views), views) + 7
        assert own > psnr(made, expected[1 - number]) + 3
