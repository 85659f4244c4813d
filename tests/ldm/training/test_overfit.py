"""Two objects are learned by heart, and the checkpoint makes their views (paper Sec. 3 and 4.1)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

pytest.importorskip("lightning.pytorch", reason="pip install -r requirements/train.txt")

import train_syncdreamer
from common.config import load_config
from ldm.checkpoint.initialise import init_model
from ldm.checkpoint.load import load_model
from ldm.config import SamplerConfig
from ldm.data.samples import to_model_range
from ldm.networks.autoencoder import Autoencoder
from ldm.sampling.sampler import sample
from ldm.training.config import TrainConfig
from tests.ldm.training.training_tree import encode_png, make_tree

SIZE = 16
SETTINGS = """
model:
  cameras: {image_size: 16}
  autoencoder: {channels: 32, channel_mult: [1], res_blocks: 1, shortcut: true}
  clip:
    {image_size: 28, width: 32, layers: 1, heads: 2, embed_dim: 32, text_width: 8, vocabulary: 8}
  unet:
    {channels: 64, channel_mult: [1, 1, 1, 1], res_blocks: 1, attention_levels: [0], heads: 4,
     context_dim: 32}
  volume:
    {voxels: 8, view_channels: 8, channels: [16, 16, 32, 32], depth_planes: 8,
     frustum_channels: [16, 16, 32, 32], time_dim: 32}
data: {validation: "", batch_size: 2, num_workers: 0}
step: {target_views: 4}
optimizer:
  {learning_rate: 0.002, ema_decay: 0.98, volume_factor: 1.0, finetune_unet: true,
   finetune_projection: true, gradient_clip: 1.0}
run: {max_steps: 400, save_every: 400, keep_every: 400, report_every: 20}
"""
GAIN = 16.0


@torch.no_grad()
def make_transparent(autoencoder: Autoencoder) -> None:
    """Let latents be `GAIN` times the pixels less their mean, the fourth channel 0, no variance."""
    encode, decode = autoencoder.encoder_shortcut, autoencoder.decoder_shortcut
    convolutions = (autoencoder.quant_conv, autoencoder.post_quant_conv)
    lasts = (autoencoder.encoder.conv_out, autoencoder.decoder.conv_out)
    for layer in (encode, decode, *convolutions, *lasts):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    for layer in convolutions:
        layer.weight[:, :, 0, 0] = torch.eye(layer.weight.shape[0])
    mean = torch.cat([pictures(0), pictures(1)]).mean(dim=(0, 2, 3))
    encode.weight[:3, :, 0, 0], decode.weight[:3, :, 0, 0] = (
        GAIN * torch.eye(3),
        torch.eye(3) / GAIN,
    )
    encode.bias[:3], encode.bias[4:], decode.bias[:] = -GAIN * mean, -30.0, mean


def views_of(number: int) -> np.ndarray:
    """16 views of an object, uint8 (16, S, S, 4): two blocks and a label that goes around."""
    # Both have the same mean colour, which the noise at the last time step has a trace of.
    views = np.full((16, SIZE, SIZE, 4), 255, np.uint8)
    colours = ((220, 40, 40), (30, 60, 200))
    for n, view in enumerate(views):
        view[2:8, 3:13, :3] = colours[number]
        view[8:14, 3:13, :3] = colours[1 - number]
        if n < 8:
            view[6:10, 1 + n : 5 + n, :3] = (40, 160, 60)
    return views


def pictures(number: int) -> torch.Tensor:
    return to_model_range(
        rearrange(torch.from_numpy(views_of(number)[..., :3]), "n h w c -> n c h w")
    )


def psnr(images: torch.Tensor, expected: torch.Tensor) -> float:
    return -10 * math.log10(((images - expected) / 2).square().mean().item())


@pytest.mark.slow
def test_two_objects_are_learned_and_their_views_made_from_the_checkpoint(tmp_path: Path):
    make_tree(
        tmp_path / "tree", ["object0", "object1"],
        picture=lambda number, kind, view: encode_png(views_of(number)[view]),
        angles=lambda number, num_views: np.full(num_views, math.pi / 6),
    )  # fmt: skip
    base, start = tmp_path / "overfit.yaml", tmp_path / "start.ckpt"
    base.write_text(SETTINGS)
    config = load_config(TrainConfig, base).model
    initial = init_model(config, seed=0)
    make_transparent(initial.first_stage_model)
    torch.save({"state_dict": initial.state_dict()}, start)
    settings = (f"data.source={tmp_path / 'tree'}", f"run.cache={tmp_path / 'cache'}")
    flags = [part for setting in settings for part in ("--set", setting)]
    train_syncdreamer.main(
        ["-b", str(base), "-l", str(tmp_path / "logs"), "-c", str(tmp_path / "models"),
         "--finetune_from", str(start), "--device", "cpu", *flags]
    )  # fmt: skip
    report = (tmp_path / "logs" / "overfit" / "steps.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in report]
    assert sum(losses[-3:]) / 3 < losses[0] / 5

    checkpoint = tmp_path / "models" / "overfit" / "last.ckpt"
    model = load_model(config, checkpoint, torch.device("cpu"), torch.float32)
    expected = [pictures(0), pictures(1)]
    for number, views in enumerate(expected):
        torch.manual_seed(0)
        with torch.inference_mode():
            features = model.encode_image(views[:1])
            sampler = SamplerConfig(steps=50, guidance_scale=1.0)
            made = model.decode(sample(model, features, math.pi / 6, sampler, torch.randn))
        own = psnr(made.clamp(-1, 1), views)
        assert own > psnr(torch.ones_like(views), views) + 7
        assert own > psnr(made.clamp(-1, 1), expected[1 - number]) + 3
