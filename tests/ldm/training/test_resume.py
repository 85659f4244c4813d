"""Resumed trainings continue bit-identically, or are refused."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning.pytorch", reason="pip install -r requirements/train.txt")

import lightning.pytorch as L

import train_syncdreamer
from common.config import load_config
from ldm.training.config import TrainConfig, TrainOptions
from ldm.training.optimizer import OptimizerConfig, warmup_multiplier
from ldm.training.trainer import ResumeError, check_same_training, train
from tests.ldm.training.training_runs import SmallRun, contents, failure

pytestmark = pytest.mark.integration


def assert_equal_checkpoints(one: Path, two: Path) -> None:
    a, b = contents(one), contents(two)
    assert a["global_step"] == b["global_step"]
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    states = [c["optimizer_states"][0]["state"] for c in (a, b)]
    for key, state in states[0].items():
        for name, value in state.items():
            assert torch.equal(value, states[1][key][name]), (key, name)


def wait_until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_resumed_training_has_the_same_numbers(finished: SmallRun, tmp_path: Path):
    run = SmallRun(tmp_path, finished.start, finished.data)
    train_syncdreamer.main(run.flags(*finished.settings, "run.max_steps=4"))
    train_syncdreamer.main([*run.flags(*finished.settings), "--resume"])
    assert run.losses() == finished.losses()
    assert_equal_checkpoints(run.checkpoints / "last.ckpt", finished.checkpoints / "last.ckpt")
    images = [r.logs / "images" / "val" / "8.jpg" for r in (run, finished)]
    assert images[0].read_bytes() == images[1].read_bytes()


@pytest.mark.parametrize(
    "killed_after",
    [5, pytest.param(2, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow)],
)
def test_a_killed_training_goes_on_with_the_numbers_it_would_have_had(
    finished: SmallRun, tmp_path: Path, killed_after: int
):
    run = SmallRun(tmp_path, finished.start, finished.data)
    flags = run.flags(*finished.settings)
    process, last = run.start_process(*flags), run.checkpoints / "last.ckpt"
    wait_until(lambda: max(run.losses(), default=0) >= killed_after or process.poll() is not None)
    wait_until(last.exists)  # of step 2, which may be being written
    process.kill()
    assert process.wait() in (-signal.SIGKILL, 0)
    process.stdout.close()
    train_syncdreamer.main([*flags, "--resume"])
    assert run.losses() == finished.losses()
    assert_equal_checkpoints(run.checkpoints / "last.ckpt", finished.checkpoints / "last.ckpt")


def test_sigterm_ends_the_training_with_a_checkpoint(run: SmallRun):
    """Also where the decoding processes get it, and batches are needed to end the step."""
    process = run.start_process(
        *run.flags("run.max_steps=500", "run.save_every=500", "run.keep_every=500",
                   "data.num_workers=1", "optimizer.accumulate=2")
    )  # fmt: skip
    wait_until(lambda: run.losses() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    content = contents(run.checkpoints / "last.ckpt")
    assert content["global_step"] == max(run.losses())


def test_a_second_ctrl_c_is_not_taken_for_a_failure(run: SmallRun):
    class Interrupt(L.Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            raise KeyboardInterrupt

    flags = train_syncdreamer.parse(run.flags())
    config = load_config(TrainConfig, flags.base, flags.set)
    options = TrainOptions("small", flags.logdir, flags.ckptdir, 0, run.start, False, (), "cpu", 1)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config, options, [Interrupt()])
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_resumed_training_takes_new_rates_and_clears_away(run: SmallRun):
    train_syncdreamer.main(run.flags("run.max_steps=2", "run.keep_every=2"))
    kept = run.checkpoints / "step=00000002.ckpt"
    kept.unlink()  # as if killed between the two files
    left = run.checkpoints / ".last.123.tmp.ckpt"
    left.write_bytes(b"of a process that was killed")
    rates = ("optimizer.learning_rate=1e-5", "optimizer.weight_decay=0.5")
    train_syncdreamer.main([*run.flags("run.max_steps=3", "run.keep_every=2", *rates), "--resume"])
    groups = contents(run.checkpoints / "last.ckpt")["optimizer_states"][0]["param_groups"]
    multiplier = warmup_multiplier(3, OptimizerConfig())  # of the next step
    assert [group["lr"] / multiplier for group in groups] == pytest.approx([1e-5, 1e-4])
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5]
    assert run.lines()[-1]["learning_rate"]["volumes"] == pytest.approx(
        1e-4 * warmup_multiplier(2, OptimizerConfig())
    )
    assert not left.exists()
    assert contents(kept)["global_step"] == 2


def test_there_must_be_something_to_resume_from(run: SmallRun):
    message = failure(run, "--resume")
    assert str(run.checkpoints / "last.ckpt") in message
    assert "without --resume" in message
    (run.checkpoints / "last.ckpt").write_bytes(b"PK\x03\x04 cut off")
    assert "damaged" in failure(run, "--resume")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--seed", "1"], "seed"),
        (["--set", "model.volume.view_channels=16"], "sizes"),
        (["--set", "optimizer.finetune_unet=true"], "optimizer.finetune_unet = False"),
        (["--set", "run.strategy=fsdp", "--set", "optimizer.ema_decay=0"], "run.strategy = ddp"),
    ],
)
def test_another_training_is_not_gone_on_with(finished, settings, message):
    flags = finished.flags(*finished.settings)
    assert message in failure(finished, "--resume", *settings, flags=flags)


def test_a_training_of_before_a_setting_was_there_goes_on_with_its_default(caplog):
    now = asdict(TrainConfig())
    then = copy.deepcopy(now)
    for name in ("prediction", "image_encoder"):
        del then["model"][name]
    for part, name in (("unet", "groups"), ("autoencoder", "groups"), ("volume", "input_view")):
        del then["model"][part][name]
    del then["optimizer"]["decay_steps"]
    then["model"]["volume"]["now_a_constant"] = then["optimizer"]["now_a_constant"] = 1
    check_same_training(Path("last.ckpt"), then, now)
    assert not caplog.messages
    now["model"]["volume"]["input_view"] = True
    with pytest.raises(ResumeError, match=r"last\.ckpt: .*sizes"):
        check_same_training(Path("last.ckpt"), then, now)


def test_other_settings_are_said_when_they_change_on_the_way(finished, caplog):
    train_syncdreamer.main([*finished.flags(*finished.settings, "data.num_workers=1"), "-r"])
    assert "data.num_workers = 1, it was 0" in caplog.text
