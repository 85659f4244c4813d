"""Trainings that cannot begin, or must not go on, fail with one clear line."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning.pytorch", reason="pip install -r requirements/train.txt")

import train_syncdreamer
from tests.ldm.training.training_runs import SmallRun, failure, make_data

pytestmark = pytest.mark.integration


def test_a_folder_with_checkpoints_is_not_trained_into_without_resume(finished):
    message = failure(finished, flags=finished.flags())
    assert "last.ckpt" in message or "step=" in message
    assert "--resume" in message


def test_a_file_that_matches_nothing_is_not_trained_from(run: SmallRun, tmp_path: Path):
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"a.weight": torch.zeros(3)}}, other)
    assert "none of its names" in failure(run, "--finetune_from", str(other))
    assert "missing.ckpt" in failure(run, "--finetune_from", str(tmp_path / "missing.ckpt"))


@pytest.mark.parametrize("gpus", ["7,", "0,99"])
def test_a_gpu_that_does_not_exist_is_an_error(run: SmallRun, gpus: str):
    assert f"--gpus {gpus}" in failure(run, "--device", "auto", "--gpus", gpus)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("step.target_views=17", "16 views"),
        ("step.target_views=0", "positive"),
        ("optimizer.ema_decay=1.0", "ema_decay"),
        ("optimizer.learning_rate=0", "learning_rate"),
        ("run.save_every=3", "multiple"),
        ("run.precision=bf32", "precision"),
        ("run.no_such_key=1", "no_such_key"),
        ("data.batch_size=6", "5 objects"),
        ("data.source=nowhere", "nowhere"),
        ("data.validation=nowhere", "nowhere"),
        ("run.clip_from=nowhere.pt", "nowhere.pt"),
    ],
)
def test_settings_that_cannot_be_are_refused(run: SmallRun, setting: str, message: str):
    assert message in failure(run, flags=run.flags(setting))
    assert not list(run.checkpoints.glob("*.ckpt"))


def test_losses_that_are_not_numbers_end_the_training(run: SmallRun, small_model, tmp_path):
    state = {name: tensor.clone() for name, tensor in small_model.state_dict().items()}
    state["time_embed.0.weight"].fill_(float("nan"))
    path = tmp_path / "nan.ckpt"
    torch.save({"state_dict": state}, path)
    with pytest.raises(FloatingPointError, match="by step 1"):
        train_syncdreamer.main([*run.flags(), "--finetune_from", str(path)])
    assert not (run.checkpoints / "last.ckpt").exists()


def cut(run: SmallRun, last: Path) -> None:
    last.write_bytes((run.checkpoints / "last.ckpt").read_bytes()[:-1000])
    (last.parent / "step=00000004.ckpt").touch()


LAST = {
    "cut": (cut, r"half download.*; to go on from step=00000004\.ckpt, copy it to last\.ckpt;"),
    "weights": (lambda run, last: last.write_bytes(run.start.read_bytes()), "--finetune_from"),
    "page": (lambda _, last: last.write_text("<!DOCTYPE html><html>"), "is a web page"),
    "pickle": (lambda _, last: last.write_bytes(pickle.dumps({1: Path()}, 2)), "torch did not"),
    "old": (
        lambda _, last: torch.save({"state_dict": {}, "callbacks": {SmallRun: 1}}, last),
        "holds no state of a training of this project",
    ),
}


@pytest.mark.parametrize("name", LAST)
def test_what_cannot_be_resumed_is_said_with_a_way_out(finished, tmp_path: Path, name: str):
    run = SmallRun(tmp_path, finished.start, finished.data)
    run.checkpoints.mkdir(parents=True)
    make, expected = LAST[name]
    make(finished, run.checkpoints / "last.ckpt")
    message = failure(run, "--resume")
    assert re.search(rf"last\.ckpt: .*{expected}", message)
    assert "start without --resume" in message
    assert message.isprintable()


def test_damaged_data_end_the_training_with_advice(run: SmallRun, tmp_path: Path):
    data = make_data(tmp_path / "bad", objects=2)
    (data / "tree" / "target" / "object1" / "003.png").write_bytes(b"damaged")
    message = failure(run, "--set", f"data.source={data / 'tree'}")
    assert re.match(
        r"object object1: .*003\.png: is not a PNG image; .*data\.max_damaged=", message
    )
    assert "continue with --resume" in message
