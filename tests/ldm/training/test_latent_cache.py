"""Cached latents are those of the encoders."""

from __future__ import annotations

from dataclasses import replace
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
    black = replace(
        batch,
        target_images=torch.zeros_like(batch.target_images),
        input_images=torch.zeros_like(batch.input_images),
    )
    for images in (batch, black):
        found = LatentCache(tmp_path, small_model).encode(small_model, images)
        for ours, theirs in (
            (found.targets.mean, expected.targets.mean),
            (found.targets.std, expected.targets.std),
            (found.input.posterior.mean, expected.input.posterior.mean),
            (found.input.embedding, expected.input.embedding),
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_damaged_file_is_computed_again(small_model: SyncDreamer, tmp_path: Path):
    batch = random_batch(small_model.config, 1)
    first = LatentCache(tmp_path, small_model).encode(small_model, batch)
    (file,) = tmp_path.glob("*/object0.pt")
    file.write_bytes(b"damaged")
    again = LatentCache(tmp_path, small_model).encode(small_model, batch)
    assert torch.equal(first.targets.mean, again.targets.mean)


@pytest.mark.integration
def test_cached_outputs_of_the_frozen_encoders_change_no_number(
    run: SmallRun, tmp_path: Path, monkeypatch
):
    encoded = []
    encode = Autoencoder.encode

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
        assert list(other.losses().values()) == pytest.approx(list(run.losses().values()), rel=1e-6)
        # the targets once, and the input views that come
        assert sum(encoded) == 0 if name == "filled" else 5 * 17 <= sum(encoded) <= 5 * (16 + 4)
    more = [*settings, f"run.cache={tmp_path / 'cache'}", "run.max_steps=5"]
    train_syncdreamer.main([*other.flags(*more), "--resume"])
    assert sum(encoded) <= 5
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the encoders are the same
    assert len(list((tmp_path / "cache").glob("*/*.pt"))) == 5
