"""Two objects and a model so small that it learns them by heart within a minute.

The autoencoder's weights are worked out by hand: latents are the pixels.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from common.config import load_config
from ldm.checkpoint.initialise import init_model
from ldm.networks.autoencoder import Autoencoder
from ldm.training.config import TrainConfig

SIZE = 16
SETTINGS = """
model:
  cameras: {image_size: 16}
  autoencoder: {channels: 128, channel_mult: [1], res_blocks: 1}
  clip:
    image_size: 28
    width: 32
    layers: 1
    heads: 2
    embed_dim: 32
    text_width: 8
    vocabulary: 8
  unet:
    channels: 64
    channel_mult: [1, 1, 1, 1]
    res_blocks: 1
    attention_levels: [0]
    heads: 4
    context_dim: 32
  volume:
    voxels: 8
    view_channels: 8
    channels: [16, 16, 32, 32]
    depth_planes: 8
    frustum_channels: [16, 16, 32, 32]
    time_dim: 32
data: {validation: "", batch_size: 2, num_workers: 0}
step: {target_views: 4}
optimizer:
  learning_rate: 0.002
  ema_decay: 0.98
  volume_factor: 1.0
  finetune_unet: true
  finetune_projection: true
  gradient_clip: 1.0
run: {max_steps: 400, save_every: 400, keep_every: 400, report_every: 20}
"""
LARGE = 100.0
GAIN = 16.0


@torch.no_grad()
def make_transparent(autoencoder: Autoencoder) -> None:
    """Let latents be `GAIN` times the pixels less their mean, the fourth channel 0, no variance.

    Residual branches give nothing. In a norm's group of four channels, two are +-LARGE: so the
    norm divides by a constant, and takes off the same from the third, a pixel, and the fourth, 0.
    A large bias keeps the activation linear; the difference of the two is the pixel.
    """
    for module in autoencoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    mean = np.mean([views_of(0), views_of(1)], axis=(0, 1, 2, 3)) / 127.5 - 1
    for part, scale, gain in ((autoencoder.encoder, 1, GAIN), (autoencoder.decoder, 1 / GAIN, 1)):
        shift = -GAIN if part is autoencoder.encoder else 1
        for j in range(3):
            part.conv_in.weight[4 * j, j, 1, 1] = scale
            part.conv_in.bias[4 * j + 1], part.conv_in.bias[4 * j + 2] = LARGE, -LARGE
            part.conv_out.weight[j, 4 * j, 1, 1] = gain
            part.conv_out.weight[j, 4 * j + 3, 1, 1] = -gain
            part.conv_out.bias[j] = shift * mean[j]
        nn.init.constant_(part.norm_out.weight, LARGE / math.sqrt(2))
        nn.init.constant_(part.norm_out.bias, 20.0)
    autoencoder.encoder.conv_out.bias[4:] = -30.0
    for layer in (autoencoder.quant_conv, autoencoder.post_quant_conv):
        layer.weight[:, :, 0, 0] = torch.eye(layer.weight.shape[0])


def views_of(number: int) -> np.ndarray:
    """16 views of an object, uint8 (16, S, S, 4): two blocks and a label that goes around.

    Both objects have the same mean colour: a trace of the mean is left in the noise at the last
    time step, and a network learns to read it there, where a sampler has nothing to be read.
    """
    views = np.full((16, SIZE, SIZE, 4), 255, np.uint8)
    colours = ((220, 40, 40), (30, 60, 200))
    for n, view in enumerate(views):
        view[2:8, 3:13, :3] = colours[number]
        view[8:14, 3:13, :3] = colours[1 - number]
        if n < 8:
            view[6:10, 1 + n : 5 + n, :3] = (40, 160, 60)
    return views


def make_set(root: Path) -> Path:
    """Write both objects as a training set; the inputs are the targets."""
    for number in range(2):
        for kind in ("target", "input"):
            folder = root / kind / f"object{number}"
            folder.mkdir(parents=True)
            for n, view in enumerate(views_of(number)):
                Image.fromarray(view).save(folder / f"{n:03d}.png")
        parts = [np.eye(3), np.zeros(16), np.full(16, math.pi / 6), np.full(16, 1.5)]
        meta = pickle.dumps([*parts, np.zeros((16, 3, 4))])
        (root / "input" / f"object{number}" / "meta.pkl").write_bytes(meta)
    (root / "uid_set.pkl").write_bytes(pickle.dumps(["object0", "object1"]))
    return root


def make_start(folder: Path) -> tuple[Path, Path]:
    """Write the configuration, and a checkpoint to start from."""
    base = folder / "overfit.yaml"
    base.write_text(SETTINGS)
    model = init_model(load_config(TrainConfig, base).model, seed=0)
    make_transparent(model.first_stage_model)
    start = folder / "start.ckpt"
    torch.save({"state_dict": model.state_dict()}, start)
    return base, start
