"""Kill commands that can be continued at random moments, run them again, and compare the results.

    python -m tests.fuzz.kills --rounds 10
    python -m tests.fuzz.kills --rounds 0 --pairs

In each round a command is killed (SIGKILL) three times, then runs to its end in the same folder.
Its results must be those of a run that was not interrupted, byte for byte, and nothing unfinished
may be left. With `--pairs`, two of a command also run at once on the same output, where the second
may refuse to, and on two outputs in one folder. The exit status is 1 if a round fails.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.cli import HelpFormatter, run_script
from common.files import sha256
from ldm.checkpoint.files import read_state_dict
from tests.ldm.training.training_tree import make_tree

ROOT = Path(__file__).parents[2]
KILLS = 3


@dataclass(frozen=True)
class Command:
    """A command line for an output folder, and the patterns of its results in it.

    `again` is a file and the flag with which the command continues once it exists.
    """

    arguments: Callable[[Path], list[object]]
    results: tuple[str, ...]
    again: tuple[str, str] | None = None

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        line = [sys.executable, *map(str, self.arguments(out))]
        if self.again and (out / self.again[0]).is_file():
            line.append(self.again[1])
        notes = out.parent / "notes"  # of the program that stands in for Blender
        notes.mkdir(exist_ok=True)
        variables = {**os.environ, "STAND_IN_NOTES": str(notes), "PYTHONPATH": str(ROOT)}
        with (out.parent / f"{out.name}.log").open("ab") as log:
            return subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=log, env=variables)

    def sums(self, out: Path) -> dict[str, str]:
        """Checksums of the results, and of what is left unfinished."""
        found = [path for pattern in (*self.results, "**/.*.tmp*") for path in out.glob(pattern)]
        return {str(path.relative_to(out)): _checksum(path) for path in found}


def _checksum(path: Path) -> str:
    """Of the tensors of a checkpoint, whose file also has times; else of the whole file."""
    if path.suffix != ".ckpt":
        return sha256(path)
    digest = hashlib.sha256()
    for name, tensor in sorted(read_state_dict(path).items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def commands(folder: Path) -> dict[str, Command]:
    """The commands by their names; a training set is made in `folder`."""
    tree, toy = folder / "tree", ROOT / "testset" / "cactus.png"
    if not tree.exists():
        make_tree(tree, [f"object{k}" for k in range(40)], size=96)
    example = ROOT / "eval_examples"
    sample = ["generate.py", "--input", toy, "--elevation", 10, "--sample_num", 4]
    mesh = ["train_renderer.py", "-i", example / "locomotive-pr", "-n", "a", "--preset", "fast"]
    mesh += ["--texture_size", 512, "--film_size", 512, "--set", "grid.steps=30"]
    models, blender = folder / "models", folder / "blender"
    models.mkdir(exist_ok=True)
    for k in range(12):
        (models / f"{k}.glb").write_text(str(k))
    stand_in = ROOT / "tests" / "blender" / "stand_in.py"
    blender.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} "$@"\n')
    blender.chmod(0o755)
    render = ["render_batch.py", "--models", models, "--blender", blender, "--resolution", 64]
    train = ["train_syncdreamer.py", "-b", ROOT / "configs" / "tiny.yaml", "--device", "cpu"]
    settings = (f"data.source={tree}", 'data.validation=""', "run.clip_from=random",
                "data.batch_size=2", "data.num_workers=0", "run.max_steps=6", "run.save_every=1",
                "run.keep_every=6", "model.cameras.image_size=64", "model.volume.voxels=8",
                "model.volume.depth_planes=8")  # fmt: skip
    train += [part for setting in settings for part in ("--set", setting)]
    score = ["-m", "evaluation.benchmark", "--pr", example, "--gt", example, "--workers", 1]
    return {
        "generate": Command(lambda out: [*sample, "--output", out], ("*/*.png", "*.png")),
        "image_to_3d": Command(
            lambda out: ["image_to_3d.py", toy, "-o", out, "--preset", "fast"],
            ("*.png", "samples/*.png", "mesh.*", "reconstruction/mesh.*"),
        ),
        "train_renderer": Command(
            lambda out: [*mesh, "-l", out, "--set", "save_every=2"],
            ("a/mesh.*", "a/*.png"),
            ("a/ckpt/last.ckpt", "--resume"),
        ),
        "render_batch": Command(
            lambda out: [*render, "--out", out, "--workers", 2, "--retries", 0],
            ("*/*/*.png", "*/*/meta.pkl", "uid_set.pkl"),
        ),
        "train": Command(
            lambda out: [*train, "-l", out / "logs", "-c", out / "models"],
            ("models/tiny/*.ckpt",),
            ("models/tiny/last.ckpt", "--resume"),
        ),
        "pack": Command(
            lambda out: ["-m", "ldm.shards", "pack", tree, out, "--shard_mb", 1],
            ("*.tar", "index.json"),
        ),
        "benchmark": Command(
            lambda out: [*score, "--out", out],
            ("results.csv", "table.*", "objects/*/*.jpg"),
        ),
    }


def run_round(command: Command, out: Path, seconds: float, draw: random.Random) -> None:
    """Kill a command `KILLS` times, within the seconds that it takes, then let it end."""
    for _ in range(KILLS):
        running = command.start(out)
        try:
            if running.wait(draw.uniform(0, seconds)) == 0:
                return
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
    if status := command.start(out).wait():
        raise ValueError(f"{out}: the command ended with {status}, see {out.name}.log")


def run_pairs(command: Command, out: Path, expected: dict[str, str]) -> list[str]:
    """Run two at once on one output and on two; return what is wrong."""
    wrong = []
    for names in (("same", "same"), ("one", "other")):
        folders = [out.with_name(f"{out.name}-{name}") for name in names]
        statuses = [running.wait() for running in [command.start(folder) for folder in folders]]
        worst = 1 if names[0] == names[1] else 0
        if min(statuses) != 0 or max(statuses) > worst:
            wrong.append(f"{names}: exit statuses {statuses}")
        for folder in folders:
            if command.sums(folder) != expected:
                wrong.append(f"{folder.name}: other results")
            if b"Traceback" in (folder.parent / f"{folder.name}.log").read_bytes():
                wrong.append(f"{folder.name}: a traceback")
    return wrong


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.fuzz.kills", None, __doc__)
    parser.formatter_class = HelpFormatter
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="of each command")
    add("--pairs", action="store_true", help="also run two at once")
    add("--commands", nargs="+", help="only these (default: all)")
    add("--seed", type=int, default=0, help="of the moments")
    add("--output", type=Path, default=Path("output/kills"), help="a new folder")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    folder = args.output.absolute()
    folder.mkdir(parents=True)
    known, failures = commands(folder), 0
    for name in args.commands or known:
        start, reference = time.monotonic(), folder / f"{name}-reference"
        status = known[name].start(reference).wait()
        seconds, expected = time.monotonic() - start, known[name].sums(reference)
        if status or not expected:
            raise ValueError(f"{name}: the command failed, see {reference}.log")
        bad = []
        for number in range(args.rounds):
            out = folder / f"{name}-{number}"
            run_round(known[name], out, seconds, random.Random(f"{args.seed} {name} {number}"))
            if known[name].sums(out) != expected:
                bad.append(number)
        count = f"{args.rounds * KILLS} kills within {seconds:.1f} s, {len(expected)} files"
        print(f"{name}: {count}, rounds with other results: {bad or 'none'}", flush=True)
        failures += len(bad)
        if args.pairs:
            wrong = run_pairs(known[name], folder / f"{name}-pair", expected)
            print(f"{name}: two at once: {'; '.join(wrong) or 'as alone'}", flush=True)
            failures += len(wrong)
    sys.exit(failures > 0)


if __name__ == "__main__":
    run_script(main)
