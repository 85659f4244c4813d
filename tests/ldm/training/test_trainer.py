"""Whole trainings, tiny ones: checkpoints, resuming, several processes, what is refused."""

from __future__ import annotations

import copy
import logging
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning.pytorch", reason="pip install -r requirements/train.txt")
pytest.importorskip("tensorboard", reason="pip install -r requirements/train.txt")

import lightning.pytorch as L

import train_syncdreamer
from common.config import load_config
from ldm.checkpoint.initialise import init_model
from ldm.checkpoint.load import empty_model, load_model
from ldm.config import SyncDreamerConfig
from ldm.data.loader import open_dataset
from ldm.networks.autoencoder import Autoencoder
from ldm.training.config import TrainConfig, TrainOptions
from ldm.training.lightning_module import SyncDreamerTraining
from ldm.training.optimizer import OptimizerConfig, warmup_multiplier
from ldm.training.trainer import check_same_training, init_network, train
from tests.conftest import ROOT, SHARED, needs_shared
from tests.ldm.training import training_runs
from tests.ldm.training.training_runs import SmallRun, make_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), objects=5)


@pytest.fixture(scope="module")
def start(small_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "start.ckpt"
    torch.save({"state_dict": small_model.state_dict()}, path)
    return path


@pytest.fixture
def run(tmp_path: Path, start: Path, data: Path) -> SmallRun:
    return SmallRun(tmp_path, start, data)


def contents(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_equal_checkpoints(one: Path, two: Path) -> None:
    a, b = contents(one), contents(two)
    assert a["global_step"] == b["global_step"]
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    states = [c["optimizer_states"][0]["state"] for c in (a, b)]
    for key, state in states[0].items():
        for name, value in state.items():
            assert torch.equal(value, states[1][key][name]), (key, name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, start: Path, data: Path) -> SmallRun:
    """A training of eight steps, with everything optional; others are compared with it."""
    run = SmallRun(tmp_path_factory.mktemp("finished"), start, data)
    settings = [
        "run.max_steps=8", f"data.validation={data / 'val'}", "validation.every=4",
        "validation.sampler.steps=2", "step.drop_conditions=true", "step.target_views=2",
        "optimizer.ema_decay=0.5", "optimizer.gradient_clip=1.0",
    ]  # fmt: skip
    train_syncdreamer.main(run.flags(*settings))
    run.settings = settings
    return run


def test_a_training_writes_what_the_readme_says(finished: SmallRun, small_config):
    names = sorted(path.name for path in finished.checkpoints.glob("*.ckpt"))
    assert names == ["last.ckpt", "step=00000004.ckpt", "step=00000008.ckpt"]
    assert sorted(finished.losses()) == list(range(1, 9))
    for step in (4, 8):
        with Image.open(finished.logs / "images" / "val" / f"{step}.jpg") as picture:
            assert picture.size == (17 * 64, 64)
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


@needs_shared
def test_a_full_size_training_would_save_exactly_the_published_names():
    import json

    manifest = json.loads((SHARED / "goldens" / "state_dict_manifest.json").read_text())
    entries = manifest["state_dict"] if isinstance(manifest, dict) else manifest
    expected = {name: tuple(shape) for name, shape, *_ in entries}
    model = empty_model(SyncDreamerConfig())
    module = SyncDreamerTraining(model, TrainConfig(), 0, None)
    found = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert found == expected
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    assert len(trained) == 370


def test_validation_pictures_show_the_input_and_its_views(finished: SmallRun):
    with Image.open(finished.logs / "images" / "val" / "8.jpg") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(float)
    middle = pixels[24:40, 24:40].mean(axis=(0, 1))
    assert np.abs(middle - (200, 80, 40)).max() < 12
    assert (pixels[:4, :4] > 240).all()


def test_a_resumed_training_has_the_same_numbers(finished: SmallRun, tmp_path: Path):
    run = SmallRun(tmp_path, finished.start, finished.data)
    train_syncdreamer.main(run.flags(*finished.settings, "run.max_steps=4"))
    train_syncdreamer.main([*run.flags(*finished.settings), "--resume"])
    assert run.losses() == finished.losses()
    assert_equal_checkpoints(run.checkpoints / "last.ckpt", finished.checkpoints / "last.ckpt")
    pictures = [r.logs / "images" / "val" / "8.jpg" for r in (run, finished)]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_a_killed_training_goes_on_with_the_numbers_it_would_have_had(
    finished: SmallRun, tmp_path: Path
):
    run = SmallRun(tmp_path, finished.start, finished.data)
    flags = run.flags(*finished.settings)
    process = run.start_process(*flags)
    wait_for = random.SystemRandom().randrange(2, 8)
    deadline = time.monotonic() + 300
    while max(run.losses(), default=0) < wait_for and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while not (run.checkpoints / "last.ckpt").exists():  # of step 2, which may be being written
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    assert process.wait() in (-signal.SIGKILL, 0)
    process.stdout.close()
    train_syncdreamer.main([*flags, "--resume"])
    assert run.losses() == finished.losses(), f"killed at step {wait_for}"
    assert_equal_checkpoints(run.checkpoints / "last.ckpt", finished.checkpoints / "last.ckpt")


def test_the_moving_average_is_what_is_saved(run: SmallRun):
    train_syncdreamer.main(run.flags("run.max_steps=2", "optimizer.ema_decay=0.75"))
    content = contents(run.checkpoints / "last.ckpt")
    start = contents(run.start)["state_dict"]
    name = "time_embed.0.weight"
    train_again = SmallRun(run.folder / "plain", run.start, run.data)
    train_syncdreamer.main(train_again.flags("run.max_steps=2", "run.save_every=1",
                                             "run.keep_every=1"))  # fmt: skip
    first, second = (
        contents(train_again.checkpoints / f"step={step:08d}.ckpt")["state_dict"][name]
        for step in (1, 2)
    )
    expected = 0.75 * (0.75 * start[name] + 0.25 * first) + 0.25 * second
    torch.testing.assert_close(content["state_dict"][name], expected)
    assert torch.equal(content["syncdreamer_training"]["trained"][name], second)


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


def test_computing_activations_again_changes_no_gradient(run: SmallRun, tmp_path: Path):
    train_syncdreamer.main(run.flags())
    other = SmallRun(tmp_path / "other", run.start, run.data)
    train_syncdreamer.main(other.flags("run.gradient_checkpointing=true"))
    assert list(other.losses().values()) == pytest.approx(list(run.losses().values()), rel=1e-6)


def test_bf16_has_about_the_same_losses(run: SmallRun, tmp_path: Path):
    train_syncdreamer.main(run.flags())
    other = SmallRun(tmp_path / "other", run.start, run.data)
    train_syncdreamer.main(other.flags("run.precision=bf16-mixed"))
    assert other.losses() != run.losses()
    assert list(other.losses().values()) == pytest.approx(list(run.losses().values()), rel=0.05)
    state = contents(other.checkpoints / "last.ckpt")["state_dict"]
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


@pytest.mark.slow
def test_compiled_networks_have_the_same_losses_and_names(run: SmallRun, tmp_path: Path):
    train_syncdreamer.main(run.flags("run.max_steps=2"))
    other = SmallRun(tmp_path / "other", run.start, run.data)
    train_syncdreamer.main(other.flags("run.max_steps=2", "run.compile=true"))
    assert list(other.losses().values()) == pytest.approx(list(run.losses().values()), rel=1e-3)
    names = list(contents(run.checkpoints / "last.ckpt")["state_dict"])
    assert list(contents(other.checkpoints / "last.ckpt")["state_dict"]) == names


def gradients(run: SmallRun, *settings: str) -> dict[str, torch.Tensor]:
    target = run.folder / "gradients.pt"
    flags = run.flags("run.max_steps=1", "run.save_every=1", "run.keep_every=1", *settings)
    if "run.cpu_processes=2" in settings:
        command = [sys.executable, "-m", "tests.ldm.training.training_runs", str(target), *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]
    else:
        training_runs.main([str(target), *flags])
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
    train_syncdreamer.main(run.flags())
    other = SmallRun(tmp_path / "fsdp", run.start, run.data)
    settings = ["data.batch_size=1", "run.cpu_processes=2", "run.strategy=fsdp"]
    for extra in (["--set", "run.max_steps=2"], ["--resume"]):
        process = other.start_process(*other.flags(*settings), *extra)
        output = process.communicate(timeout=400)[0]
        assert process.returncode == 0, output
    assert list(other.losses().values()) == pytest.approx(list(run.losses().values()), rel=1e-4)
    names = list(contents(run.checkpoints / "last.ckpt")["state_dict"])
    assert list(contents(other.checkpoints / "last.ckpt")["state_dict"]) == names


def test_sigterm_ends_the_training_with_a_checkpoint(run: SmallRun):
    """Also where the decoding processes get it, and batches are needed to end the step."""
    process = run.start_process(
        *run.flags("run.max_steps=500", "run.save_every=500", "run.keep_every=500",
                   "data.num_workers=1", "optimizer.accumulate=2")
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while len(run.losses()) < 1:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
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
    settings = [
        "run.max_steps=3",
        "run.keep_every=2",
        "optimizer.learning_rate=1e-5",
        "optimizer.weight_decay=0.5",
    ]
    train_syncdreamer.main([*run.flags(*settings), "--resume"])
    groups = contents(run.checkpoints / "last.ckpt")["optimizer_states"][0]["param_groups"]
    multiplier = warmup_multiplier(3, OptimizerConfig())  # of the next step
    assert [group["lr"] / multiplier for group in groups] == pytest.approx([1e-5, 1e-4])
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5]
    assert run.lines()[-1]["learning_rate"]["volumes"] == pytest.approx(
        1e-4 * warmup_multiplier(2, OptimizerConfig())
    )
    assert not left.exists()
    assert contents(kept)["global_step"] == 2


def failure(run: SmallRun, caplog, *arguments: str, flags: list[str] | None = None) -> str:
    """The one line with which the command fails."""
    with pytest.raises((ValueError, OSError)) as error:
        train_syncdreamer.main([*(flags or run.flags()), *arguments])
    return str(error.value)


def test_a_folder_with_checkpoints_is_not_trained_into_without_resume(finished, caplog):
    message = failure(finished, caplog, flags=finished.flags())
    assert "has checkpoints" in message
    assert "--resume" in message


def test_there_must_be_something_to_resume_from(run: SmallRun, caplog):
    assert "no checkpoint to resume from" in failure(run, caplog, "--resume")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--seed", "1"], "seed"),
        (["--set", "model.volume.view_channels=16"], "sizes"),
        (["--set", "optimizer.finetune_unet=true"], "optimizer.finetune_unet = False"),
        (["--set", "run.strategy=fsdp", "--set", "optimizer.ema_decay=0"], "run.strategy = ddp"),
    ],
)
def test_another_training_is_not_gone_on_with(finished, caplog, settings, message):
    flags = finished.flags(*finished.settings)
    assert message in failure(finished, caplog, "--resume", *settings, flags=flags)


def test_a_training_of_before_a_setting_was_there_goes_on_with_its_default(caplog):
    now = asdict(TrainConfig())
    then = copy.deepcopy(now)
    for name in ("prediction", "image_encoder"):
        del then["model"][name]
    for part, name in (("unet", "groups"), ("autoencoder", "groups"), ("volume", "input_view")):
        del then["model"][part][name]
    del then["optimizer"]["decay_steps"]
    check_same_training(Path("last.ckpt"), then, now)
    assert not caplog.messages
    now["model"]["volume"]["input_view"] = True
    with pytest.raises(ValueError, match="the sizes of its model"):
        check_same_training(Path("last.ckpt"), then, now)


@pytest.mark.parametrize("finetune_unet", [False, True])
def test_a_frozen_unet_of_random_weights_is_warned_of(
    small_config: SyncDreamerConfig, tmp_path: Path, caplog, finetune_unet: bool
):
    small = replace(small_config, image_encoder="none")
    state = init_model(small, seed=0).state_dict()
    own = {name: value for name, value in state.items() if name.startswith("first_stage_model.")}
    torch.save({"state_dict": own}, tmp_path / "autoencoder.ckpt")
    config = TrainConfig(model=small, optimizer=OptimizerConfig(finetune_unet=finetune_unet))
    options = TrainOptions("x", tmp_path, tmp_path, 0, tmp_path / "autoencoder.ckpt", False, (),
                           "cpu", 1)  # fmt: skip
    init_network(config, options)
    assert ("the UNet has random weights" in caplog.text) == (not finetune_unet)
    assert "the autoencoder has random weights" not in caplog.text


def test_other_settings_are_said_when_they_change_on_the_way(finished, caplog):
    with caplog.at_level(logging.WARNING):
        train_syncdreamer.main(
            [*finished.flags(*finished.settings, "run.compile=false", "data.num_workers=1"), "-r"]
        )
    assert "data.num_workers = 1, it was 0" in caplog.text


def test_a_damaged_checkpoint_is_said_to_be_one(run: SmallRun, caplog):
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / "last.ckpt").write_bytes(b"PK\x03\x04 cut off")
    assert "damaged" in failure(run, caplog, "--resume")


def test_a_file_that_matches_nothing_is_not_trained_from(run: SmallRun, caplog, tmp_path: Path):
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"a.weight": torch.zeros(3)}}, other)
    assert "none of its names" in failure(run, caplog, "--finetune_from", str(other))
    assert "no such" in failure(run, caplog, "--finetune_from", str(tmp_path / "missing.ckpt"))


@pytest.mark.parametrize("gpus", ["7,", "0,99"])
def test_a_gpu_that_does_not_exist_is_an_error(run: SmallRun, caplog, gpus: str):
    message = failure(run, caplog, "--device", "auto", "--gpus", gpus)
    assert f"--gpus {gpus}" in message


@pytest.mark.parametrize(
    "arguments", [["--gpus", "all"], ["--seed", "-1"], ["--num_nodes", "0"], ["--gpus", ""]]
)
def test_wrong_usage_exits_with_2(run: SmallRun, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        train_syncdreamer.main([*run.flags(), *arguments])
    assert error.value.code == 2


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
def test_settings_that_cannot_be_are_refused(run: SmallRun, caplog, setting: str, message: str):
    assert message in failure(run, caplog, flags=run.flags(setting))
    assert not list(run.checkpoints.glob("*.ckpt"))


def test_losses_that_are_not_numbers_end_the_training(run: SmallRun, small_model, tmp_path):
    state = {name: tensor.clone() for name, tensor in small_model.state_dict().items()}
    state["time_embed.0.weight"].fill_(float("nan"))
    path = tmp_path / "nan.ckpt"
    torch.save({"state_dict": state}, path)
    with pytest.raises(FloatingPointError, match="broke down"):
        train_syncdreamer.main([*run.flags(), "--finetune_from", str(path)])
    assert not (run.checkpoints / "last.ckpt").exists()


def test_a_missing_view_is_named(run: SmallRun, tmp_path: Path, caplog):
    folder = make_data(tmp_path / "broken", objects=2)
    (folder / "tree" / "target" / "object1" / "007.png").unlink()
    message = failure(run, caplog, flags=run.flags(f"data.source={folder / 'tree'}"))
    assert "object1" in message
    assert "007.png" in message
    assert len(open_dataset(str(folder / "tree")).uids) == 2
