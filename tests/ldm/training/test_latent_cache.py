"""Cached latents are those of the encoders."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning.pytorch", reason="pip install -r requirements/train.txt")

import train_syncdreamer
from ldm.model import SyncDreamer
from ldm.networks.autoencoder import Autoencoder
from ldm.training.latent_cache import LatentCache
from ldm.training.loss import encode_batch
from tests.ldm.training.training_runs import SmallRun
from tests.ldm.training.training_tree import random_batch


def test_latents_are_those_of_the_encoders_and_then_found_by_the_keys_alone(
    small_model: SyncDreamer, tmp_path: Path
):
    """Once an object is known its images are not even read, which would wait for the GPU."""
    batch = random_batch(small_model.config, 2)
    expected = encode_batch(small_model, batch)
    get = attrgetter("targets.mean", "targets.std", "input.posterior.mean", "input.embedding")
    targets, inputs = batch.target_images, batch.input_images
    black = replace(batch, target_images=targets * 0, input_images=inputs * 0)
    for images in (batch, black, batch):
        found = LatentCache(tmp_path, small_model).encode(small_model, images)
        torch.testing.assert_close(get(found), get(expected), rtol=1e-4, atol=1e-4)
        if images is black:
            next(tmp_path.glob("*/object0.pt")).write_bytes(b"damaged")  # and computed again


@pytest.mark.integration
def test_cached_outputs_of_the_frozen_encoders_change_no_number(
    run: SmallRun, tmp_path: Path, monkeypatch
):
    encoded, encode = [], Autoencoder.encode

    def count(self: Autoencoder, images: torch.Tensor):
        encoded.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Autoencoder, "encode", count)
    settings = ["run.max_steps=4", "run.save_every=4", "run.keep_every=4", "data.batch_size=5"]
    train_syncdreamer.main(run.flags(*settings))
    assert sum(encoded) == 4 * 5 * 17
    for name in ("filling", "filled"):
        encoded.clear()
        other = SmallRun(tmp_path / name, run.start, run.data)
        train_syncdreamer.main(other.flags(*settings, f"run.cache={tmp_path / 'cache'}"))
        assert other.losses() == pytest.approx(run.losses(), rel=1e-6)
        # the targets once, and the input views that come
        assert sum(encoded) == 0 if name == "filled" else 5 * 17 <= sum(encoded) <= 5 * (16 + 4)
    more = [*settings, f"run.cache={tmp_path / 'cache'}", "run.max_steps=5"]
    train_syncdreamer.main([*other.flags(*more), "--resume"])
    assert sum(encoded) <= 5
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the encoders are the same
    assert len(list((tmp_path / "cache").glob("*/*.pt"))) == 5
