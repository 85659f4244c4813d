"""Measure how many training samples a second are read and decoded, beside a plain implementation.

A sample has 17 RGBA images of 256 pixels. The objects are copies of the bundled example's views.

python -m benchmarks.training_data
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common.cli import run_script

EXAMPLE = Path("eval_examples/locomotive-gt")


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--objects", type=int, default=48, help="number of objects")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--num_workers", type=int, default=2, help="decoding processes")
    parser.add_argument("--repeat", type=int, default=3, help="epochs; the median is printed")
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    return parser


def make_set(root: Path, count: int) -> None:
    """Write a training set of `count` copies of the example."""
    import numpy as np

    from multiview.images import view_names

    uids = [f"object-{number:04d}" for number in range(count)]
    parts = [np.eye(3), np.zeros(16), np.zeros(16), np.full(16, 1.5), np.zeros((16, 3, 4))]
    for uid in uids:
        for kind in ("target", "input"):
            (root / kind / uid).mkdir(parents=True)
            for name in view_names():
                shutil.copy(EXAMPLE / name, root / kind / uid / name)
        (root / "input" / uid / "meta.pkl").write_bytes(pickle.dumps(parts))
    (root / "uid_set.pkl").write_bytes(pickle.dumps(uids))


def plain_items(root: Path) -> Iterator[object]:
    """Decode samples with the published formula, image by image in float32."""
    import numpy as np
    import torch
    from PIL import Image

    from multiview.images import view_names

    for folder in sorted((root / "target").iterdir()):
        views = []
        for path in [*(folder / name for name in view_names()), folder / "000.png"]:
            pixels = np.asarray(Image.open(path)).astype(np.float32) / 255
            alpha = pixels[:, :, 3:]
            white = ((pixels[:, :, :3] * alpha + 1 - alpha) * 255).astype(np.uint8)
            resized = Image.fromarray(white).resize((256, 256), Image.Resampling.BICUBIC)
            views.append(np.asarray(resized).astype(np.float32) / 255 * 2 - 1)
        yield torch.from_numpy(np.stack(views))


def main(argv: list[str] | None = None) -> None:
    """Print a table of samples a second."""
    args = build_parser().parse_args(argv)

    import torch

    from ldm.data.loader import DataConfig, make_loader, open_dataset
    from ldm.shards import pack

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        tree, shards = Path(temporary) / "tree", Path(temporary) / "shards"
        make_set(tree, args.objects)
        pack(tree, shards, shard_bytes=16 * 2**20)

        def epochs(location: Path, workers: int) -> Callable[[], int]:
            config = DataConfig(batch_size=args.batch_size, num_workers=workers)
            loader = make_loader(open_dataset(str(location)), config, 16, 256)
            return lambda: sum(len(batch) for batch in loader)

        ways = {
            "plain formula, one thread": lambda: sum(1 for _ in plain_items(tree)),
            "folder tree, one thread": epochs(tree, 0),
            "shards, one thread": epochs(shards, 0),
            f"folder tree, {args.num_workers} workers": epochs(tree, args.num_workers),
            f"shards, {args.num_workers} workers": epochs(shards, args.num_workers),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for epoch in range(args.repeat + 1):  # alternating; the first epoch is a warm-up
            for name, work in ways.items():
                start, cpu_start = time.perf_counter(), time.process_time()
                items = work()
                if epoch:
                    rates[name].append(items / (time.perf_counter() - start))
                    cpu[name].append((time.process_time() - cpu_start) / items)
    first = rates[next(iter(rates))]
    for name, of in rates.items():
        ratio = statistics.median(a / b for a, b in zip(of, first, strict=True))
        rate = statistics.median(of)
        busy = f"{1000 * min(cpu[name]):5.1f} ms CPU/item" if "thread" in name else ""
        print(f"{name:28s} {rate:6.1f} items/s {17 * rate:6.0f} images/s {ratio:5.2f} x  {busy}")


if __name__ == "__main__":
    run_script(main)
