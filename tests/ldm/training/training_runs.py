"""Small trainings for the tests: a training set, a configuration, the command.

    python -m tests.ldm.training.training_runs <file> <flags of train_syncdreamer.py>

trains as the command does, and writes the gradients of the first step into a file, and the seeds of
the validation images that each rank generates into `<file>.<rank>`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train_syncdreamer
from tests.conftest import ROOT
from tests.ldm.training.training_tree import make_tree

SIZES = ("model.cameras.image_size=64", "model.volume.voxels=8", "model.volume.depth_planes=8")


class SmallRun:
    """Flags of a small training, in a folder of its own."""

    def __init__(self, folder: Path, start: Path, data: Path) -> None:
        self.folder, self.start, self.data = folder, start, data
        folder.mkdir(parents=True, exist_ok=True)
        self.base = folder / "small.yaml"
        self.base.write_text((ROOT / "configs" / "tiny.yaml").read_text())
        self.logs = folder / "logs" / "small"
        self.checkpoints = folder / "models" / "small"

    def flags(self, *settings: str) -> list[str]:
        values = [
            *SIZES, f"data.source={self.data / 'tree'}", 'data.validation=""', "data.batch_size=2",
            "data.num_workers=0", "run.report_every=1", "run.save_every=2", "run.keep_every=4",
            "run.max_steps=4", "optimizer.learning_rate=1e-3", *settings,
        ]  # fmt: skip
        flags = ["-b", str(self.base), "-l", str(self.folder / "logs")]
        flags += ["-c", str(self.folder / "models"), "--device", "cpu"]
        flags += ["--finetune_from", str(self.start)]
        return flags + [part for value in values for part in ("--set", value)]

    def start_process(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "train_syncdreamer.py"), *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def lines(self) -> list[dict]:
        path = self.logs / "steps.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def losses(self) -> dict[int, float]:
        return {line["step"]: line["loss"] for line in self.lines()}

    def validation_image(self, step: int) -> np.ndarray:
        return np.asarray(Image.open(self.logs / "images" / "val" / f"{step}.jpg")).astype(int)


def contents(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def failure(run: SmallRun, *arguments: str, flags: list[str] | None = None) -> str:
    """The one line with which the command fails."""
    with pytest.raises((ValueError, OSError)) as error:
        train_syncdreamer.main([*(flags or run.flags()), *arguments])
    return str(error.value)


def make_data(folder: Path, objects: int) -> Path:
    """A training set, and a folder of one validation image."""
    make_tree(folder / "tree", [f"object{n}" for n in range(objects)], size=64)
    (folder / "val").mkdir()
    picture = Image.new("RGBA", (64, 64))
    picture.paste((200, 80, 40, 255), (16, 16, 48, 48))
    picture.save(folder / "val" / "box-20.png")
    return folder


def start(target: Path, flags: list[str], as_command: bool) -> None:
    """Run `main`, as a command where the training starts processes."""
    if not as_command:
        main([str(target), *flags])
        return
    command = [sys.executable, "-m", "tests.ldm.training.training_runs", str(target), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]


def main(argv: list[str]) -> None:
    import lightning.pytorch as L

    import ldm.training.callbacks
    import ldm.training.trainer

    class Dump(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            if trainer.global_step == 0 and trainer.is_global_zero:
                named = pl_module.named_parameters()
                gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}
                torch.save(gradients, argv[0])

        def on_train_end(self, trainer, pl_module) -> None:
            Path(f"{argv[0]}.{trainer.global_rank}").write_text(json.dumps(seeds))

    seeds: list[int] = []
    train = ldm.training.trainer.train
    generate_row = ldm.training.callbacks.generate_validation_row

    def count_row(network, image, config, seed):
        seeds.append(seed)
        return generate_row(network, image, config, seed)

    def train_and_dump(*options, **more):
        return train(*options, [Dump()], **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ldm.training.trainer, "train", train_and_dump)
        patch.setattr(ldm.training.callbacks, "generate_validation_row", count_row)
        train_syncdreamer.main(argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
