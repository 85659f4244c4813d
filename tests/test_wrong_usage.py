"""Wrong usage of every command: exit status 2, and a message that says what is expected."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.conftest import ROOT

BASE = {
    "generate": "--input testset/locomotive.png --output x --elevation 20",
    "image_to_3d": "a.png -o out",
    "app": "",
    "train_renderer": "-i 0.png -n a",
    "train_syncdreamer": "-b configs/tiny.yaml -l logs -c models --device cpu",
    "render_batch": "--models x",
    "eval_nvs": "--gt a --pr b --name toy",
    "eval_mesh": "--pr_mesh a.ply --pr_name toy --gt_dir gt --gt_mesh b.obj --gt_name toy",
    "evaluation.benchmark.run": "--pr a --gt b --out c",
    "ldm.shards": "pack tree out",
    "demo.make_dataset": "--output x",
    "demo.toys.make_toys": "--output x",
}
"""Arguments of a good call; those of the table follow them."""
WRONG: dict[str, list[tuple[list[str], str]]] = {
    "generate": [
        (["--elevation", "91"], "-90 to 90"),
        (["--elevation", "nan"], "-90 to 90"),
        (["--elevation", "x"], "no number and not auto"),
        (["--crop_size", "257"], "from 1 to 256"),
        (["--crop_size", "0"], "from 1 to 256"),
        (["--crop_size", "large"], "no whole number and not auto"),
        (["--sample_num", "0"], "--sample_num must be from 1"),
        (["--sample_num", "999999999"], "--sample_num must be from 1"),
        (["--batch_view_num", "0"], "--batch_view_num must be from 1"),
        (["--sample_steps", "0"], "from 1 to 1000"),
        (["--sample_steps", "1001"], "from 1 to 1000"),
        (["--seed", "-1"], "--seed"),
        (["--cfg_scale", "inf"], "--cfg_scale"),
        (["--cfg_scale", "nan"], "--cfg_scale"),
        (["--eta", "-1"], "--eta"),
        (["--dtype", "int8"], "invalid choice"),
        (["--sampler", "plms"], "invalid choice"),
        (["--guidance", "strong"], "invalid choice"),
        (["--input_scale", "nan"], "--input_scale must be from"),
        (["--guidance_interval", "3"], "expected 2 arguments"),
        (["--guidance_interval", "-1", "3"], "--guidance_interval must be from 0"),
        (["--preset", "best"], "invalid choice"),
        (["--cameras", "colmap"], "--cameras is for --save_views"),
        (["--save_views", "--cameras", "bundler"], "invalid choice"),
    ],
    "image_to_3d": [
        (["--elevation=up"], "no number and not auto"),
        (["--draft_steps=0"], "--draft_steps"),
        (["--crop_size=x"], "no whole number and not auto"),
        (["--sample_num=0"], "--sample_num"),
        (["--output= "], "--output"),
        (["--export", "fbx"], "invalid choice"),
        (["--size_mm", "nan"], "--size_mm: must be a number from 1 to 10,000"),
        (["--faces", "0"], "--faces: must be a number from 100"),
    ],
    "app": [
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--max_queue", "0"], "--max_queue must be from 1"),
        (["--max_upload_mb", "0"], "--max_upload_mb must be from 1"),
        (["--draft_steps", "0"], "--draft_steps must be from 1"),
        (["--sample_steps", "0"], "--sample_steps must be from 1"),
    ],
    "train_renderer": [
        *((["-n", name], "--name must not be empty") for name in ("", "  ")),
        *((["-n", name], "not a path") for name in ("a/b", "a\\b", "/tmp/a", "a:b", "w?", "a\nb")),
        *((["-n", name], "cannot be the name of a folder") for name in ("..", ".", "NUL", "a.")),
        (["--resume", "--overwrite"], "choose one"),
        (["-i", ""], "--image_path: must not be empty"),
        (["-i", " "], "--image_path: must not be empty"),
        (["--cameras", ""], "--cameras: must not be empty"),
        (["--keep_coordinates"], "--cameras, which is not given"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--gpus", "first"], "--gpus is a list of numbers"),
        (["--gpus", ""], "--gpus is a list of numbers"),
        (["--preset", "slow"], "invalid choice"),
    ],
    "train_syncdreamer": [
        (["--gpus", "all"], "--gpus"),
        (["--gpus", ""], "--gpus"),
        (["--seed", "-1"], "--seed"),
        (["--num_nodes", "0"], "--num_nodes"),
    ],
    "render_batch": [
        (["--workers", "0"], "--workers must be at least 1"),
        (["--timeout", "0"], "--timeout must be above 0"),
        (["--timeout", "nan"], "--timeout must be above 0"),
        (["--retries", "-1"], "--retries"),
        (["--samples", "0"], "--samples"),
        (["--elevation_start", "50"], "must not be above"),
        (["--num_images", "0"], "num_images must be from 1"),
        (["--gpus", "a"], "--gpus must be"),
        (["--address", "auto"], "for --engine ray"),
        (["--engine", "ray", "--gpus", "0"], "--gpus is for --engine local"),
    ],
    "eval_nvs": [(["--name", name], "--name") for name in ("", "a\tb", "a\nb")],
    "eval_mesh": [
        (["--pr_name", "../toy", "--output"], "'../toy'"),
        *((["--gt_rotation", value], repr(value)) for value in ("nan", "inf", "x")),
    ],
    "evaluation.benchmark.run": [
        (["--workers", "0"], "--workers must be at least 1"),
        (["--name", "a\nb"], "not a name in one line"),
        *((["--objects", name], "--objects must be folder names") for name in ("../x", "..", "")),
    ],
    "ldm.shards": [(["--shard_mb", "0"], "--shard_mb")],
    "demo.make_dataset": [
        ([], "--toys"),
        (["--toys", "-1"], "--toys"),
        (["--toys", "1", "--size", "2"], "--size"),
    ],
    "demo.toys.make_toys": [
        (["--count", "0"], "--count must be at least 1, got 0"),
        (["--count", "x"], "invalid int"),
        (["--count", "1", "--first", "-1"], "--first must be from 0"),
        (["--count", "2", "--first", str(2**63 - 1)], "last seed at most"),
        (["--count", "1", "--family", "dragon"], "invalid choice: 'dragon'"),
        (["--count", "1", "--output", str(ROOT / "README.md")], "is not a folder"),
    ],
}


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [(command, *case) for command, cases in WRONG.items() for case in cases],
)
def test_wrong_usage_exits_2_and_says_what_is_expected(
    command: str, flags: list[str], message: str, tmp_path: Path, monkeypatch, capsys
):
    module = importlib.import_module(command)
    base = BASE[command].replace("configs/", f"{ROOT}/configs/").split()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        module.main([*base, *flags])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
