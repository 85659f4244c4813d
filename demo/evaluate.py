"""How good a small model's views and meshes are, on objects that it was not trained on.

    python -m demo.evaluate --ckpt ckpt/syncdreamer-demo.safetensors \
        --data output/demo-model/held-out --train output/demo-model/train \
        --output output/demo-model/evaluation

prints, for toys and for real objects, the mean PSNR of the 16 views beside what must be beaten: the
input repeated in all views, the mean of the training images, a white image; and the same model
with its spatial volume switched off. With --meshes the views are reconstructed too, and the volume
IoU with the true shapes is printed, beside what the same reconstruction makes of the true views: a
shape of open or doubled surfaces has hardly a volume to compare with. With --elevations the inputs'
elevations are estimated from drafts, and how far off they are is printed. Every number is in
scores.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import run_script
from common.config import load_config
from common.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

    from ldm.config import SamplerConfig
    from ldm.data.samples import ObjectDataset, TrainingItem
    from ldm.model import SyncDreamer

log = logging.getLogger(__name__)

KINDS = {"toy": "generated", "": "real"}
"""First part of an object's name -> what it is; the first that fits counts."""
MEAN_OF = 500
"""Training objects whose images are averaged."""
DEGREES_A_VIEW = 22.5
MESH = "mesh.ply"
TRUE_VIEWS = "-true"
"""What is added to an object's name for what is made of its true views."""
BOUND = "iou of true views"
OFF = "elevation off by, degrees"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cfg", type=Path, default=Path("configs/demo.yaml"), help="sizes of the model")
    add("--ckpt", type=Path, required=True, help="the weights")
    add("--data", type=Path, required=True, help="held-out objects, of demo.make_dataset")
    add("--train", type=Path, required=True, help="training set, for the mean image")
    add("--output", type=Path, required=True, help="folder of strips, meshes and scores.json")
    add("--real", type=int, default=16, help="real objects that are evaluated")
    add("--set", action="append", default=[], metavar="KEY=VALUE",
        help="override the --cfg file, e.g. sampler.steps=20")  # fmt: skip
    add("--seed", type=int, default=6033, help="of the noise")
    add("--meshes", action="store_true", help="reconstruct and compare meshes too (slow)")
    add("--elevations", action="store_true", help="estimate the inputs' elevations too (slow)")
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def input_view(uid: str, num_views: int) -> int:
    """Which of an object's views is the input."""
    from ldm.data.samples import pick_input_view

    return pick_input_view(0, 0, uid, num_views)


def items(source: ObjectDataset, num_views: int, size: int) -> Iterator[TrainingItem]:
    """Read the objects, each as seen from its input view."""
    from ldm.data.samples import decode_item

    for index, name in enumerate(source.uids):
        view = input_view(name.decode(), num_views)
        yield decode_item(source.read(index, view, num_views), view, size)


def mean_image(folder: Path, num_views: int, size: int) -> np.ndarray:
    """Mean of training images, RGB in [0, 1], (H, W, 3)."""
    import itertools

    import numpy as np

    from ldm.data.loader import open_dataset

    source = open_dataset(str(folder))
    means = [
        item.target_images.float().mean(dim=0).numpy() / 255
        for item in itertools.islice(items(source, num_views, size), MEAN_OF)
    ]
    return np.mean(means, axis=0).transpose(1, 2, 0)


@contextmanager
def volume_off(model: SyncDreamer) -> Iterator[None]:
    """Let every frustum volume be zeros meanwhile."""
    network = model.spatial_volume
    look = network.view_frustums
    network.view_frustums = lambda *a: [0 * f for f in look(*a)]  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network.view_frustums


def make_strip(
    model: SyncDreamer,
    item: TrainingItem,
    sampler: SamplerConfig,
    seed: int,
    elevation_deg: float | None = None,
) -> np.ndarray:
    """Generate the views of an item's input, uint8 (H, N H, 3); its own elevation by default."""
    import torch

    from ldm.data.samples import to_model_range
    from ldm.generate_views import generate_strip

    with torch.inference_mode():
        features = model.encode_image(to_model_range(item.input_image[None]))
    if elevation_deg is None:
        elevation_deg = math.degrees(item.input_elevation)
    return generate_strip(model, features, elevation_deg, seed, sampler, 16)


def elevation_error(
    model: SyncDreamer, item: TrainingItem, sampler: SamplerConfig, seed: int
) -> float:
    """Degrees between an input's elevation and what `--elevation auto` takes it for."""
    from multiview.images import strip_to_views
    from pipeline.selection.elevation import estimate_elevation
    from pipeline.selection.elevation_drafts import draft_sampler

    def draft(assumed_deg: float) -> np.ndarray:
        return strip_to_views(make_strip(model, item, draft_sampler(sampler), seed, assumed_deg))

    found = estimate_elevation(item.input_image.numpy().transpose(1, 2, 0), draft)
    return abs(found.elevation_deg - math.degrees(item.input_elevation))


def keep_strip(strip: np.ndarray, path: Path, mesh: Path) -> None:
    """Write a strip; a mesh that was made of another one is removed."""
    import numpy as np
    from PIL import Image

    if path.exists():
        with Image.open(path) as former:
            if np.array_equal(np.asarray(former), strip):
                return
    mesh.unlink(missing_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(strip).save(temporary)


def score(
    model: SyncDreamer,
    item: TrainingItem,
    mean: np.ndarray,
    sampler: SamplerConfig,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Generate an object's views, and compare them and the baselines with the true ones."""
    import numpy as np
    from PIL import Image

    from evaluation.image_metrics import psnr
    from multiview.images import strip_to_views, views_to_strip

    true = item.target_images.numpy().transpose(0, 2, 3, 1) / 255
    seen = item.input_image.numpy().transpose(1, 2, 0) / 255

    def value(views: np.ndarray) -> float:
        return float(psnr(true, np.broadcast_to(views, true.shape)).mean())

    strip = make_strip(model, item, sampler, args.seed)
    with volume_off(model):
        without = make_strip(model, item, sampler, args.seed)
    folder = args.output / "strips"
    folder.mkdir(parents=True, exist_ok=True)
    keep_strip(strip, folder / f"{item.uid}.png", args.output / "meshes" / item.uid / MESH)
    truth = views_to_strip(item.target_images.numpy().transpose(0, 2, 3, 1))
    both = np.concatenate([truth, strip, without], axis=0)
    Image.fromarray(both).save(folder / f"{item.uid}-compared.png")
    of_truth = item.uid + TRUE_VIEWS
    keep_strip(truth, folder / f"{of_truth}.png", args.output / "meshes" / of_truth / MESH)
    return {
        "uid": item.uid,
        "psnr": value(strip_to_views(strip) / 255),
        "volume off": value(strip_to_views(without) / 255),
        "input repeated": value(seen),
        "mean image": value(mean),
        "white": value(np.ones(3)),
    }


def mesh_iou(item: TrainingItem, args: argparse.Namespace, strip: str) -> float:
    """Reconstruct views; volume IoU with the true shape, 0 where there is no mesh.

    Args:
        item: the object.
        args: of the command line.
        strip: name of the views' file, without its suffix.
    """
    import torch

    from evaluation.mesh_metrics import volume_iou
    from evaluation.meshes import read_mesh, to_render_frame
    from renderer.config import load_renderer_config
    from renderer.reconstruction import ReconstructionOptions, reconstruct

    folder = args.output / "meshes" / strip
    mesh = folder / MESH
    if not mesh.exists():
        config = load_renderer_config(Path("configs/neus.yaml"), "fast")
        options = ReconstructionOptions(args.seed, torch.device("cpu"), "fast", overwrite=True)
        try:
            views = args.output / "strips" / f"{strip}.png"
            outcome = reconstruct(views, folder, config, options)
        except ValueError as error:
            log.warning("%s: %s", strip, error)
            return 0.0
        if outcome.stopped_by is not None:  # what a signal ended early is no result
            mesh.unlink()
            sys.exit(128 + outcome.stopped_by)
    view = input_view(item.uid, len(item.target_images))
    true = to_render_frame(read_mesh(args.data / "mesh" / f"{item.uid}.ply"), DEGREES_A_VIEW * view)
    return volume_iou(read_mesh(mesh), true)


def summarise(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table: means; medians of the IoU and of the elevations' errors."""
    import numpy as np

    for kind in KINDS.values():
        own = [row for row in rows if row["kind"] == kind]
        if not own:
            continue
        columns = [name for name in own[0] if name not in ("uid", "kind", "iou", BOUND, OFF)]
        means = [f"{name} {np.mean([row[name] for row in own]):.2f}" for name in columns]
        yield f"{len(own)} {kind} objects, mean dB: {', '.join(means)}"
        if "iou" in own[0]:
            values = [row["iou"] for row in own]
            bound = np.median([row[BOUND] for row in own])
            yield (
                f"  volume IoU: median {np.median(values):.3f}, mean {np.mean(values):.3f}; "
                f"of the true views: median {bound:.3f}"
            )
        if OFF in own[0]:
            off = np.array([row[OFF] for row in own])
            yield (
                f"  estimated elevation: off by {np.median(off):.1f} degrees (median), "
                f"by less than 10 in {(off < 10).sum()} of {len(off)}"
            )


def main(argv: list[str] | None = None) -> None:
    """Evaluate as the command line asks for."""
    args = build_parser().parse_args(argv)
    import torch
    from tqdm import tqdm

    from ldm.checkpoint.load import load_model
    from ldm.config import GenerateConfig
    from ldm.data.loader import open_dataset

    settings = load_config(GenerateConfig, args.cfg, args.set)
    config = settings.model
    model = load_model(config, args.ckpt, torch.device("cpu"), torch.float32)
    num_views, size = config.cameras.num_views, config.cameras.image_size
    mean = mean_image(args.train, num_views, size)
    rows: list[dict[str, Any]] = []
    source = open_dataset(str(args.data))
    left = {"real": args.real}
    for item in tqdm(items(source, num_views, size), total=len(source.uids), disable=None):
        kind = next(text for prefix, text in KINDS.items() if item.uid.startswith(prefix))
        left[kind] = left.get(kind, len(source.uids)) - 1
        if left[kind] < 0:
            continue
        row = {**score(model, item, mean, settings.sampler, args), "kind": kind}
        if args.meshes:
            row["iou"] = mesh_iou(item, args, item.uid)
            row[BOUND] = mesh_iou(item, args, item.uid + TRUE_VIEWS)
        if args.elevations:
            row[OFF] = elevation_error(model, item, settings.sampler, args.seed)
        rows.append(row)
    with atomic_write(args.output / "scores.json") as path:
        path.write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(summarise(rows)))


if __name__ == "__main__":
    run_script(main)
