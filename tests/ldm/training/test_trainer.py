"""Small trainings: files, weights, precision, several processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning.pytorch", reason="pip install -r requirements/train.txt")

import train_syncdreamer
from common.config import load_config
from demo.model import SmallSyncDreamer
from ldm.checkpoint.initialise import init_model
from ldm.checkpoint.load import empty_model, load_model
from ldm.config import SyncDreamerConfig
from ldm.training.config import TrainConfig, TrainOptions
from ldm.training.lightning_module import SyncDreamerTraining
from ldm.training.optimizer import OptimizerConfig
from ldm.training.trainer import init_network
from tests.ldm.training import training_runs
from tests.ldm.training.training_runs import SmallRun, contents

pytestmark = pytest.mark.integration


def test_a_training_writes_what_the_readme_says(finished: SmallRun, small_config):
    names = sorted(path.name for path in finished.checkpoints.glob("*.ckpt"))
    assert names == ["last.ckpt", "step=00000004.ckpt", "step=00000008.ckpt"]
    assert sorted(finished.losses()) == list(range(1, 9))
    assert all(finished.validation_image(step).shape == (64, 17 * 64, 3) for step in (4, 8))
    pixels = finished.validation_image(8)  # the input and its views
    assert np.abs(pixels[24:40, 24:40].mean(axis=(0, 1)) - (200, 80, 40)).max() < 12
    assert (pixels[:4, :4] > 240).all()
    assert any((finished.logs / "tensorboard").iterdir())
    config = load_config(TrainConfig, finished.logs / "config.yaml")
    assert config.model == small_config
    assert config.optimizer.ema_decay == 0.5
    for line in finished.lines():
        assert len(line["loss_by_noise_level"]) == 10
        assert line["samples"] == 2 * line["step"]
        parts = line["seconds_per_step"]
        assert {"data", "volume", "unet", "optimizer"} <= set(parts)
        assert all(seconds >= 0 for seconds in parts.values())
        assert parts["unet"] > 0
        assert parts["volume"] > 0
        assert line["memory_gib"] > 0
        seen = [loss for loss in line["loss_by_noise_level"] if loss is not None]
        assert min(seen) <= line["loss"] <= max(seen)
    rates = [line["learning_rate"] for line in finished.lines()]
    assert rates[0]["depth attention"] == pytest.approx(0.02 * 1e-3)
    assert rates[1]["volumes"] == pytest.approx(10 * 0.0298 * 1e-3)


def test_the_checkpoint_has_the_published_layout_and_generate_loads_it(
    finished: SmallRun, small_config
):
    path = finished.checkpoints / "last.ckpt"
    state = contents(path)["state_dict"]
    assert list(state) == list(empty_model(small_config).state_dict())
    model = load_model(small_config, path, torch.device("cpu"), torch.float32)
    start = contents(finished.start)["state_dict"]
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, start[n])}
    parts = ("time_embed.", "spatial_volume.", "model.diffusion_model.middle_conditions.",
             "model.diffusion_model.output_conditions.")  # fmt: skip
    assert changed == {name for name in state if name.startswith(parts)}


def test_a_full_size_training_would_save_exactly_the_model_s_names():
    model = empty_model(SyncDreamerConfig())
    module = SyncDreamerTraining(model, TrainConfig(), 0, None)
    assert list(module.state_dict()) == list(model.state_dict())


def test_the_moving_average_is_what_is_saved(run: SmallRun):
    train_syncdreamer.main(run.flags("run.max_steps=2", "optimizer.ema_decay=0.75"))
    content = contents(run.checkpoints / "last.ckpt")
    start = contents(run.start)["state_dict"]
    name = "time_embed.0.weight"
    again = SmallRun(run.folder / "plain", run.start, run.data)
    train_syncdreamer.main(again.flags("run.max_steps=2", "run.save_every=1", "run.keep_every=1"))
    kept = (again.checkpoints / f"step={step:08d}.ckpt" for step in (1, 2))
    first, second = (contents(path)["state_dict"][name] for path in kept)
    expected = 0.75 * (0.75 * start[name] + 0.25 * first) + 0.25 * second
    torch.testing.assert_close(content["state_dict"][name], expected)
    assert torch.equal(content["syncdreamer_training"]["trained"][name], second)


@pytest.mark.parametrize(
    ("setting", "tolerance"),
    [
        ("run.gradient_checkpointing=true", 1e-6),
        ("run.precision=bf16-mixed", 0.05),
        pytest.param("run.compile=true", 1e-3, marks=pytest.mark.slow),
    ],
)
def test_less_memory_or_time_changes_losses_by_rounding_and_no_name_or_type(
    run: SmallRun, tmp_path: Path, setting: str, tolerance: float
):
    train_syncdreamer.main(run.flags("run.max_steps=2"))
    other = SmallRun(tmp_path / "other", run.start, run.data)
    train_syncdreamer.main(other.flags("run.max_steps=2", setting))
    assert "bf16" not in setting or other.losses() != run.losses()
    assert other.losses() == pytest.approx(run.losses(), rel=tolerance)
    alone, state = (contents(r.checkpoints / "last.ckpt")["state_dict"] for r in (run, other))
    assert list(state) == list(alone)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def gradients(run: SmallRun, *settings: str) -> dict[str, torch.Tensor]:
    target = run.folder / "gradients.pt"
    flags = run.flags("run.max_steps=1", "run.save_every=1", "run.keep_every=1", *settings)
    training_runs.start(target, flags, "run.cpu_processes=2" in settings)
    return torch.load(target, weights_only=True)


def test_two_processes_and_accumulation_have_the_gradients_of_one(run: SmallRun, tmp_path: Path):
    alone = gradients(run, "data.batch_size=4")
    for name, settings in {
        "two processes": ["data.batch_size=2", "run.cpu_processes=2"],
        "two batches": ["data.batch_size=2", "optimizer.accumulate=2"],
    }.items():
        other = SmallRun(tmp_path / name, run.start, run.data)
        found = gradients(other, *settings)
        assert set(found) == set(alone)
        # a bias in front of a norm has no gradient but rounding
        largest = max(gradient.norm() for gradient in alone.values())
        for key, gradient in alone.items():
            difference = (found[key] - gradient).norm()
            assert difference < 1e-4 * gradient.norm() + 1e-6 * largest, key


@pytest.mark.slow
def test_fsdp_has_the_losses_of_one_process_and_resumes(run: SmallRun, tmp_path: Path):
    validation = [f"data.validation={run.data / 'val'}", "validation.sampler.steps=2"]
    train_syncdreamer.main(run.flags(*validation))
    other = SmallRun(tmp_path / "fsdp", run.start, run.data)
    settings = ["data.batch_size=1", "run.cpu_processes=2", "run.strategy=fsdp", *validation]
    for extra in (["--set", "run.max_steps=2"], ["--resume"]):
        process = other.start_process(*other.flags(*settings), *extra)
        output = process.communicate(timeout=400)[0]
        assert process.returncode == 0, output
    assert other.losses() == pytest.approx(run.losses(), rel=1e-4)
    names = list(contents(run.checkpoints / "last.ckpt")["state_dict"])
    assert list(contents(other.checkpoints / "last.ckpt")["state_dict"]) == names
    alone, shared = run.validation_image(4), other.validation_image(4)
    assert alone.shape == shared.shape
    assert np.abs(alone - shared).mean() < 1


@pytest.mark.parametrize("finetune_unet", [False, True])
def test_a_frozen_unet_of_random_weights_is_warned_of(
    small_config: SyncDreamerConfig, tmp_path: Path, caplog, finetune_unet: bool
):
    small = replace(small_config, image_encoder="none")
    state = init_model(small, 0, SmallSyncDreamer).state_dict()
    own = {name: value for name, value in state.items() if name.startswith("first_stage_model.")}
    torch.save({"state_dict": own}, tmp_path / "autoencoder.ckpt")
    config = TrainConfig(model=small, optimizer=OptimizerConfig(finetune_unet=finetune_unet))
    options = TrainOptions("x", tmp_path, tmp_path, 0, tmp_path / "autoencoder.ckpt", False, (),
                           "cpu", 1)  # fmt: skip
    init_network(config, options, SmallSyncDreamer)
    assert ("the UNet has random weights" in caplog.text) == (not finetune_unet)
    assert "the autoencoder has random weights" not in caplog.text
