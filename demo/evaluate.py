"""Evaluate a small model's views and meshes on held-out objects.

    python -m demo.evaluate --ckpt ckpt/syncdreamer-demo.safetensors \
        --data output/demo-model/held-out --train output/demo-model/train \
        --output output/demo-model/evaluation

prints, for toys and for real objects, the mean PSNR of the 16 views beside baselines (the input
repeated in all views, the mean training image, white) and beside the same model with its spatial
volume switched off. --meshes reconstructs the views too, and prints the volume IoU with the true
shapes beside the IoU of a reconstruction from the true views, an upper bound: open or doubled
surfaces hardly enclose a volume. --elevations estimates the inputs' elevations from drafts and
prints the errors. All numbers are in scores.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import SEED, run_script
from common.config import load_config
from common.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

    from ldm.config import SamplerConfig
    from ldm.data.samples import ObjectDataset, TrainingItem
    from ldm.model import SyncDreamer

log = logging.getLogger(__name__)

KINDS = {"toy": "generated", "": "real"}
"""Prefix of an object's name -> its kind; the first prefix that matches counts."""
NUM_MEAN_OBJECTS = 500
"""Training objects that the mean image is computed from."""
DEGREES_PER_VIEW = 22.5
MESH = "mesh.ply"
TRUE_VIEWS = "-true"
"""Suffix of an object's name for the strip of its true views and their reconstruction."""
IOU_OF_TRUE_VIEWS = "iou of true views"
ELEVATION_ERROR = "elevation off by, degrees"


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--cfg", type=Path, default=Path("configs/demo.yaml"), help="configuration of the model")
    add("--ckpt", type=Path, required=True, help="weights")
    add("--data", type=Path, required=True, help="held-out set by demo.make_dataset")
    add("--train", type=Path, required=True, help="training set, for the mean image")
    add("--output", type=Path, required=True, help="folder of strips, meshes and scores.json")
    add("--real", type=int, default=16, help="number of real objects to evaluate")
    add("--set", action="append", default=[], metavar="KEY=VALUE",
        help="override the --cfg file, e.g. sampler.steps=20")  # fmt: skip
    add("--seed", type=int, default=SEED, help="seed of the noise")
    add("--meshes", action="store_true", help="reconstruct and compare meshes too (slow)")
    add("--elevations", action="store_true", help="estimate the inputs' elevations too (slow)")
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def read_items(source: ObjectDataset, num_views: int, size: int) -> Iterator[TrainingItem]:
    """Yield the objects of a set, each with its input view."""
    from ldm.data.samples import decode_item, pick_input_view

    for index, name in enumerate(source.uids):
        view = pick_input_view(0, 0, name.decode(), num_views)
        yield decode_item(source.read(index, view, num_views), view, size)


def mean_image(folder: Path, num_views: int, size: int) -> np.ndarray:
    """Return the mean of training images, RGB in [0, 1], (H, W, 3)."""
    import numpy as np

    from ldm.data.loader import open_dataset

    items = islice(read_items(open_dataset(str(folder)), num_views, size), NUM_MEAN_OBJECTS)
    means = [item.target_images.float().mean(dim=0).numpy() / 255 for item in items]
    return np.mean(means, axis=0).transpose(1, 2, 0)


@contextmanager
def volume_off(model: SyncDreamer) -> Iterator[None]:
    """Replace all frustum volumes by zeros within the context."""
    network = model.spatial_volume
    view_frustums = network.view_frustums
    network.view_frustums = lambda *a: [0 * f for f in view_frustums(*a)]  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network.view_frustums


def generate_item_strip(
    model: SyncDreamer, item: TrainingItem, sampler: SamplerConfig, seed: int, elevation_deg: float
) -> np.ndarray:
    """Generate views from an item's input at an assumed elevation, uint8 (H, N H, 3)."""
    import torch

    from ldm.data.samples import to_model_range
    from ldm.generate_views import generate_strip

    with torch.inference_mode():
        features = model.encode_image(to_model_range(item.input_image[None]))
    return generate_strip(model, features, elevation_deg, seed, sampler, 16)


def elevation_error(
    model: SyncDreamer, item: TrainingItem, sampler: SamplerConfig, seed: int
) -> float:
    """Return the error of the estimated elevation of an item's input, in degrees."""
    from multiview.images import strip_to_views
    from pipeline.selection.elevation import ElevationConfig, estimate_elevation
    from pipeline.selection.elevation_drafts import draft_sampler
    from pipeline.selection.similarity import crop_object

    def draft(assumed_deg: float) -> np.ndarray:
        strip = generate_item_strip(model, item, draft_sampler(sampler), seed, assumed_deg)
        return strip_to_views(strip)

    target = crop_object(item.input_image.numpy().transpose(1, 2, 0), ElevationConfig().size)
    found = estimate_elevation(target, draft)
    return abs(found.elevation_deg - math.degrees(item.input_elevation))


def write_strip(strip: np.ndarray, path: Path, mesh: Path) -> None:
    """Write a strip; if it replaces a different one, remove the mesh of that one."""
    import numpy as np
    from PIL import Image

    if path.exists():
        with Image.open(path) as previous:
            if np.array_equal(np.asarray(previous), strip):
                return
    mesh.unlink(missing_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(strip).save(temporary)


def score_views(
    model: SyncDreamer,
    item: TrainingItem,
    mean: np.ndarray,
    sampler: SamplerConfig,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Generate an object's views; return PSNRs of them and of the baselines."""
    import numpy as np
    from PIL import Image

    from evaluation.image_metrics import psnr
    from multiview.images import strip_to_views, views_to_strip

    true = item.target_images.numpy().transpose(0, 2, 3, 1) / 255
    input_image = item.input_image.numpy().transpose(1, 2, 0) / 255

    def mean_psnr(views: np.ndarray) -> float:
        return float(psnr(true, np.broadcast_to(views, true.shape)).mean())

    elevation_deg = math.degrees(item.input_elevation)
    generate = partial(generate_item_strip, model, item, sampler, args.seed, elevation_deg)
    strip = generate()
    with volume_off(model):
        without = generate()
    folder = args.output / "strips"
    folder.mkdir(parents=True, exist_ok=True)
    truth = views_to_strip(item.target_images.numpy().transpose(0, 2, 3, 1))
    both = np.concatenate([truth, strip, without], axis=0)
    Image.fromarray(both).save(folder / f"{item.uid}-compared.png")
    for name, views in ((item.uid, strip), (item.uid + TRUE_VIEWS, truth)):
        write_strip(views, folder / f"{name}.png", args.output / "meshes" / name / MESH)
    return {
        "uid": item.uid,
        "psnr": mean_psnr(strip_to_views(strip) / 255),
        "volume off": mean_psnr(strip_to_views(without) / 255),
        "input repeated": mean_psnr(input_image),
        "mean image": mean_psnr(mean),
        "white": mean_psnr(np.ones(3)),
    }


def mesh_iou(item: TrainingItem, args: argparse.Namespace, strip: str) -> float:
    """Reconstruct `strip`.png; return the volume IoU with the true shape, 0 without a mesh."""
    import torch

    from evaluation.mesh_metrics import volume_iou
    from evaluation.meshes import read_mesh, to_render_frame
    from ldm.data.samples import pick_input_view
    from renderer.config import load_renderer_config
    from renderer.reconstruction import ReconstructionOptions, reconstruct

    folder = args.output / "meshes" / strip
    mesh = folder / MESH
    if not mesh.exists():
        config = load_renderer_config(Path("configs/neus.yaml"), "fast")
        options = ReconstructionOptions(args.seed, torch.device("cpu"), "fast", overwrite=True)
        views = args.output / "strips" / f"{strip}.png"
        try:
            outcome = reconstruct(views, folder, config, options)
        except ValueError as error:
            log.warning("%s: %s", strip, error)
            return 0.0
        if outcome.stopped_by is not None:  # an interrupted reconstruction is not a result
            mesh.unlink()
            sys.exit(128 + outcome.stopped_by)
    view = pick_input_view(0, 0, item.uid, len(item.target_images))
    true = read_mesh(args.data / "mesh" / f"{item.uid}.ply")
    return volume_iou(read_mesh(mesh), to_render_frame(true, DEGREES_PER_VIEW * view))


def summarise(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield lines for printing: mean PSNRs, medians of the IoUs and of the elevation errors."""
    import numpy as np

    for kind in KINDS.values():
        selected = [row for row in rows if row["kind"] == kind]
        if not selected:
            continue
        others = ("uid", "kind", "iou", IOU_OF_TRUE_VIEWS, ELEVATION_ERROR)
        columns = [name for name in selected[0] if name not in others]
        means = [f"{name} {np.mean([row[name] for row in selected]):.2f}" for name in columns]
        yield f"{len(selected)} {kind} objects, mean dB: {', '.join(means)}"
        if "iou" in selected[0]:
            values = [row["iou"] for row in selected]
            bound = np.median([row[IOU_OF_TRUE_VIEWS] for row in selected])
            found = f"median {np.median(values):.3f}, mean {np.mean(values):.3f}"
            yield f"  volume IoU: {found}; of the true views: median {bound:.3f}"
        if ELEVATION_ERROR in selected[0]:
            errors = np.array([row[ELEVATION_ERROR] for row in selected])
            few = f"by less than 10 in {(errors < 10).sum()} of {len(errors)}"
            yield f"  estimated elevation: off by {np.median(errors):.1f} degrees (median), {few}"


def main(argv: list[str] | None = None) -> None:
    """Evaluate the model; write scores.json and print a summary."""
    args = build_parser().parse_args(argv)
    import torch
    from tqdm import tqdm

    from demo.model import choose_model_class
    from ldm.checkpoint.load import load_model
    from ldm.config import GenerateConfig
    from ldm.data.loader import open_dataset

    settings = load_config(GenerateConfig, args.cfg, args.set)
    config = settings.model
    kind_of_model, cpu = choose_model_class(config), torch.device("cpu")
    model = load_model(config, args.ckpt, cpu, torch.float32, kind_of_model)
    num_views, size = config.cameras.num_views, config.cameras.image_size
    mean = mean_image(args.train, num_views, size)
    rows: list[dict[str, Any]] = []
    source = open_dataset(str(args.data))
    remaining = {"real": args.real}
    for item in tqdm(read_items(source, num_views, size), total=len(source.uids), disable=None):
        kind = next(text for prefix, text in KINDS.items() if item.uid.startswith(prefix))
        remaining[kind] = remaining.get(kind, len(source.uids)) - 1
        if remaining[kind] < 0:
            continue
        row = {**score_views(model, item, mean, settings.sampler, args), "kind": kind}
        if args.meshes:
            row["iou"] = mesh_iou(item, args, item.uid)
            row[IOU_OF_TRUE_VIEWS] = mesh_iou(item, args, item.uid + TRUE_VIEWS)
        if args.elevations:
            row[ELEVATION_ERROR] = elevation_error(model, item, settings.sampler, args.seed)
        rows.append(row)
    with atomic_write(args.output / "scores.json") as path:
        path.write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(summarise(rows)))


if __name__ == "__main__":
    run_script(main)
