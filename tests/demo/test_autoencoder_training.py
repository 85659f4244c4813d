from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch

import train_autoencoder
from common.config import load_config
from demo.autoencoder_training import (
    AutoencoderStepConfig,
    AutoencoderTrainConfig,
    AutoencoderTraining,
    learning_rate,
    normalise_latents,
    pca_init,
    reconstruction_and_kl,
    sample_images,
)
from demo.model import choose_model_class
from ldm.checkpoint.initialise import init_model, load_pretrained
from ldm.config import GenerateConfig
from ldm.data.samples import TrainingBatch
from ldm.networks.autoencoder import Autoencoder, AutoencoderConfig, DiagonalGaussian
from ldm.training.config import TrainConfig
from tests.conftest import ROOT
from tests.ldm.training.training_tree import make_tree

SMALL = AutoencoderConfig(channels=16, channel_mult=(1, 2), res_blocks=1, groups=8, scale=1.0)


def test_the_configurations_of_the_small_model_agree():
    demo = load_config(GenerateConfig, ROOT / "configs" / "demo.yaml")
    trained = load_config(TrainConfig, ROOT / "configs" / "demo-train.yaml")
    autoencoder = load_config(AutoencoderTrainConfig, ROOT / "configs" / "demo-autoencoder.yaml")
    assert trained.model == demo.model
    assert trained.validation.sampler == demo.sampler
    assert autoencoder.model == demo.model.autoencoder
    assert autoencoder.image_size == demo.model.cameras.image_size


def test_the_divergence_is_of_two_normal_distributions_and_the_rate_falls_along_a_cosine():
    """KL(N(m, s^2) | N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2."""
    posterior = DiagonalGaussian(torch.full((1, 4, 2, 2), 2.0), torch.full((1, 4, 2, 2), 0.5))
    images, decoded = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), -0.25)
    error, divergence = reconstruction_and_kl(posterior, images, decoded)
    assert error == 0.5 * 0.25 + 2 * 0.25**2
    assert divergence.item() == pytest.approx((4 + 0.25 - 1 - math.log(0.25)) / 2)
    config = AutoencoderStepConfig(max_steps=1000, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(500, config) == pytest.approx(0.5)
    assert learning_rate(999, config) < 1e-5


def test_normalised_latents_have_mean_0_and_variance_1_and_decode_to_the_same():
    torch.manual_seed(1)
    autoencoder, images = Autoencoder(SMALL), torch.rand(32, 3, 16, 16) * 2 - 1
    before = autoencoder.encode(images)
    noise = torch.randn_like(before.mean)
    decoded = autoencoder.decode(before.sample(noise))
    normalise_latents(autoencoder, images)
    after = autoencoder.encode(images)
    torch.testing.assert_close(autoencoder.decode(after.sample(noise)), decoded, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.mean.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    variance = after.mean.var(dim=(0, 2, 3)) + after.std.square().mean(dim=(0, 2, 3))
    torch.testing.assert_close(variance, torch.ones(4), atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_first_autoencoder_is_the_best_linear_one():
    """Blocks that are made of 4 patterns and a mean colour come back exactly; the fifth is lost."""
    torch.manual_seed(2)
    autoencoder = Autoencoder(dataclasses.replace(SMALL, shortcut=True))
    patterns = torch.linalg.qr(torch.randn(12, 5)).Q.T.reshape(5, 3, 2, 2)
    patterns = patterns - patterns.mean(dim=(2, 3), keepdim=True)  # the mean colour is fixed
    amounts = torch.randn(4, 5, 8, 8) * torch.tensor([1.0, 0.8, 0.6, 0.4, 0.05])[:, None, None]

    def images(count: int) -> torch.Tensor:
        blocks = torch.einsum("bkhw,kcij->bchiwj", amounts[:, :count], patterns[:count])
        colour = torch.tensor([0.3, -0.2, 0.5])[None, :, None, None]
        return blocks.reshape(4, 3, 16, 16) + colour

    pca_init(autoencoder, images(4))
    posterior = autoencoder.encode(images(4))
    torch.testing.assert_close(autoencoder.decode(posterior.mean), images(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(posterior.mean.square().mean(), torch.tensor(1.0), atol=0.05, rtol=0)
    assert posterior.std.max() == pytest.approx(math.exp(-3), rel=1e-4)
    pca_init(autoencoder, images(5))
    lost = autoencoder.decode(autoencoder.encode(images(5)).mean) - images(5)
    assert 0 < lost.std() < 0.02


def test_the_views_of_a_step_follow_from_seed_and_step_and_are_of_all_objects():
    batch = TrainingBatch.empty(["a", "b"], 16, 4)
    for number in range(2):
        batch.target_images[number] = 100 * number + torch.arange(16)[:, None, None, None]
        batch.input_images[number] = 100 * number + 16
    picked = sample_images(batch, 3, seed=5, step=9)
    assert picked.shape == (6, 3, 4, 4)
    levels = ((picked[:, 0, 0, 0] + 1) * 127.5).round()
    assert levels[:3].max() <= 16
    assert levels[3:].min() >= 100
    assert len(set(levels.tolist())) == 6
    torch.testing.assert_close(sample_images(batch, 3, seed=5, step=9), picked)
    assert not torch.equal(sample_images(batch, 3, seed=5, step=10), picked)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("data") / "tree", ["a", "b", "c"])


def flags(folder: Path, data: Path, *settings: str) -> list[str]:
    values = [
        "model.channel_mult=[1,2]", "model.shortcut=false", "image_size=16",
        f"data.source={data}", "data.batch_size=2",
        "step.max_steps=12", "step.save_every=4", "step.report_every=1", *settings,
    ]  # fmt: skip
    base = ["-b", str(ROOT / "configs" / "demo-autoencoder.yaml"), "-o", str(folder)]
    return [*base, "--device", "cpu", *(part for v in values for part in ("--set", v))]


def errors(folder: Path) -> list[float]:
    lines = (folder / "steps.jsonl").read_text().splitlines()
    return [json.loads(line)["error"] for line in lines]


@pytest.mark.integration
def test_a_training_ends_with_an_autoencoder_that_the_model_starts_from(tmp_path, data):
    train_autoencoder.main(flags(tmp_path, data, "step.max_steps=60"))
    found = errors(tmp_path)
    assert sum(found[-5:]) < 0.8 * sum(found[:5])
    small = ["model.autoencoder.channel_mult=[1,2]", "model.autoencoder.shortcut=false"]
    small += ["model.cameras.image_size=16"]
    config = load_config(GenerateConfig, ROOT / "configs" / "demo.yaml", small).model
    model = init_model(config, 0, choose_model_class(config))
    report = load_pretrained(model, tmp_path / "autoencoder.ckpt", "auto")
    own = {name for name in model.state_dict() if name.startswith("first_stage_model.")}
    assert set(report.loaded) == own
    assert report.clip == "none, the model has no CLIP"
    images = torch.rand(8, 3, 16, 16) * 2 - 1
    assert 0.2 < model.first_stage_model.encode(images).mean.std() < 5


@pytest.mark.integration
@pytest.mark.parametrize(("stopped_by", "saved"), [(KeyboardInterrupt, 8), (SystemExit, 11)])
def test_a_resumed_training_has_the_same_numbers(tmp_path, data, stopped_by, saved):
    """Killed, it goes on from the last checkpoint; a signal ends it with one."""
    step, parts = AutoencoderTraining.step, tmp_path / "parts"

    def stop(self: AutoencoderTraining, batch: TrainingBatch) -> dict[str, float]:
        if self.steps_done == 10:
            if stopped_by is KeyboardInterrupt:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    train_autoencoder.main(flags(tmp_path / "whole", data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderTraining, "step", stop)
        with pytest.raises(stopped_by):
            train_autoencoder.main(flags(parts, data))
    assert torch.load(parts / "last.ckpt", weights_only=True)["step"] == saved
    train_autoencoder.main([*flags(parts, data), "--resume"])
    assert errors(parts) == errors(tmp_path / "whole")
    whole = torch.load(tmp_path / "whole" / "autoencoder.ckpt", weights_only=True)
    resumed = torch.load(parts / "autoencoder.ckpt", weights_only=True)
    torch.testing.assert_close(resumed, whole)


def test_what_is_there_is_not_overwritten_and_other_sizes_not_resumed(tmp_path, data):
    train_autoencoder.main(flags(tmp_path, data))
    with pytest.raises(FileExistsError, match="--resume"):
        train_autoencoder.main(flags(tmp_path, data))
    with pytest.raises(ValueError, match="of other sizes"):
        train_autoencoder.main([*flags(tmp_path, data, "model.res_blocks=2"), "--resume"])
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.save({"seed": state["seed"], "model": state["model"]}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt: .*damaged"):
        train_autoencoder.main([*flags(tmp_path, data), "--resume"])


def test_sizes_that_cannot_be_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="image_size must be a multiple of 2"):
        train_autoencoder.main(flags(tmp_path, data, "image_size=15"))
    for wrong in ("learning_rate=-1", "learning_rate=.nan", "kl_weight=-1"):
        with pytest.raises(ValueError, match=wrong.partition("=")[0]):
            train_autoencoder.main(flags(tmp_path, data, f"step.{wrong}"))
    with pytest.raises(ValueError, match=r"step\.views is 18"):
        train_autoencoder.main(flags(tmp_path, data, "step.views=18"))
