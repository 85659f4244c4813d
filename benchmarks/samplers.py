"""Compare solvers with the small model: how near they come to the exact solution and the truth.

    python -m demo.make_dataset --output output/held-out --toys 16 --held_out
    python -m benchmarks.samplers --data output/held-out --output output/samplers

prints a table, means over the objects, and draws --plot:

    distance     RMS difference of the final latents to a solution of --reference_steps steps from
                 the same noise, of what is not random (eta 0)
    PSNR         of the 16 views with the true ones, dB
    consistency  score of the ranking, and agreement of each mask with the hull of the others

Finished samples are kept in --output: an interrupted run resumes, and more objects may be added.
--full_size adds the time of a step of the published architecture, with seeded weights (8 GB).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.cli import SEED, run_script
from common.config import load_config
from common.files import atomic_write
from common.optional import import_optional
from common.records import read_json, write_json
from ldm.sampling.config import GuidanceConfig, SamplerConfig

if TYPE_CHECKING:
    from ldm.data.samples import TrainingItem
    from ldm.model import SyncDreamer

ODE = SamplerConfig(guidance_scale=1.0, eta=0.0, spacing="log_snr")
SAMPLERS: list[SamplerConfig] = [
    *(replace(ODE, steps=steps, spacing="trailing") for steps in (10, 20, 50)),
    replace(ODE, steps=50, spacing="leading"),
    replace(ODE, steps=20),
    replace(ODE, steps=20, spacing="trailing", solver="unipc"),
    *(replace(ODE, steps=steps, solver="dpm++") for steps in (5, 10, 20)),
    *(replace(ODE, steps=steps, solver="unipc") for steps in (5, 10, 20, 50)),
    SamplerConfig(guidance_scale=1.0),
    replace(ODE, steps=20, eta=1.0),
    *(replace(ODE, steps=steps, solver="dpm++sde") for steps in (10, 20)),
    *(replace(ODE, steps=n, temperature=0.3, spacing="trailing") for n in (2, 8)),
    *(replace(ODE, steps=n, temperature=0.3, solver="unipc") for n in (5, 10)),
]
COLUMNS = ("PSNR", "consistency", "hull")


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--cfg", type=Path, default=Path("configs/demo.yaml"), help="configuration of the model")
    add("--ckpt", type=Path, default=Path("ckpt/syncdreamer-demo.safetensors"), help="weights")
    add("--data", type=Path, required=True, help="held-out set by demo.make_dataset")
    add("--output", type=Path, required=True, help="folder of the samples")
    add("--objects", type=int, default=16, help="number of objects")
    add("--first", type=int, default=0, help="number of the first object, for several processes")
    add("--reference_steps", type=int, default=1000, help="of UniPC, for the exact solution")
    add("--plot", type=Path, help="PNG file to draw")
    add("--full_size", action="store_true", help="time the published architecture too")
    add("--seed", type=int, default=SEED, help="seed of the noise")
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def is_random(config: SamplerConfig) -> bool:
    """Whether steps add noise."""
    return config.solver == "dpm++sde" or (config.solver == "ddim" and config.ddim_eta > 0)


def name_of(config: SamplerConfig) -> str:
    """Solver, spacing, noise and steps, which name a sample's files too."""
    noise = f" T={config.temperature:g}" if config.temperature != 1 else ""
    eta = " eta=1" if config.solver == "ddim" and config.ddim_eta else ""
    return f"{config.solver}{eta} {config.spacing}{noise} {config.steps}"


def reference_of(config: SamplerConfig, steps: int) -> SamplerConfig:
    """The sampler that leads to the exact solution from the same noise."""
    return replace(config, solver="unipc", eta=None, steps=steps, spacing="log_snr")


def sample_object(
    model: SyncDreamer, item: TrainingItem, config: SamplerConfig, args: argparse.Namespace
) -> np.ndarray:
    """Final latents of one sample of an object, (N, C, H, W); kept in a file."""
    import torch

    from ldm.data.samples import to_model_range
    from ldm.sampling.sampler import sample

    path = args.output / item.uid / f"{name_of(config)}.npy"
    if path.exists():
        return np.load(path)
    generator = torch.Generator().manual_seed(args.seed)
    features = model.encode_image(to_model_range(item.input_image[None]))
    latents = sample(
        model, features, float(item.input_elevation), config,
        lambda shape: torch.randn(shape, generator=generator), model.config.cameras.num_views,
    ).numpy()  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, latents)
    return latents


def score_object(
    model: SyncDreamer, item: TrainingItem, config: SamplerConfig, args: argparse.Namespace
) -> dict[str, float]:
    """Quality of one sample's views by `COLUMNS`; kept in a file."""
    import torch

    from evaluation.image_metrics import psnr
    from pipeline.selection.ranking import score_sample

    path = args.output / item.uid / f"{name_of(config)}.json"
    kept = read_json(path)
    if kept is not None:
        return kept
    images = model.decode(torch.from_numpy(sample_object(model, item, config, args)), 16)
    views = ((images + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    true = item.target_images.numpy().transpose(0, 2, 3, 1) / 255
    score = score_sample(views)
    values = (float(psnr(true, views).mean()), score.score, score.leave_one_out)
    found = dict(zip(COLUMNS, values, strict=True))
    write_json(path, found)
    return found


def measure(
    model: SyncDreamer, items: list[TrainingItem], args: argparse.Namespace
) -> list[tuple[SamplerConfig, float | None, dict[str, float]]]:
    """Distance to the exact solution, and mean quality, of each of the `SAMPLERS`."""
    rows = []
    for config in SAMPLERS:
        squares, scores = [], []
        for item in items:
            latents = sample_object(model, item, config, args)
            scores.append(score_object(model, item, config, args))
            if not is_random(config):
                exact = sample_object(model, item, reference_of(config, args.reference_steps), args)
                squares.append(np.square(latents - exact).mean())
        means = {name: float(np.mean([score[name] for score in scores])) for name in COLUMNS}
        rows.append((config, float(np.sqrt(np.mean(squares))) if squares else None, means))
        distance, quality = rows[-1][1], " ".join(f"{means[name]:.3f}" for name in COLUMNS)
        shown = "" if distance is None else f"{distance:.4f}"
        print(f"{name_of(config):30s} {shown:8s} {quality}", flush=True)
    return rows


def plot(rows: list[tuple[SamplerConfig, float | None, dict[str, float]]], path: Path) -> None:
    """Draw distance and PSNR against the evaluations of the UNet."""
    figures = import_optional("matplotlib.figure", "drawing curves")
    figure = figures.Figure((9, 3.6), layout="constrained")
    near, good = figure.subplots(1, 2)
    groups: dict[str, list[tuple[int, float | None, float]]] = {}
    for config, distance, means in rows:
        if config.temperature == 1:
            label = name_of(config).rsplit(" ", 1)[0]
            groups.setdefault(label, []).append((config.steps, distance, means["PSNR"]))
    for label, points in groups.items():
        steps, distances, psnrs = zip(*points, strict=True)
        good.plot(steps, psnrs, "o-", label=label)
        near.plot(steps, [np.nan if d is None else d for d in distances], "o-", label=label)
    for axes, title in ((near, "distance to the solution, RMS"), (good, "PSNR, dB")):
        axes.set(xlabel="evaluations of the UNet", title=title, xscale="log")
        axes.grid(alpha=0.3)
    near.set(yscale="log")
    good.legend(fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def time_full_size() -> None:
    """Print the seconds of a step of the published architecture, by the number of branches."""
    import torch

    from ldm.checkpoint.load import empty_model
    from ldm.config import SyncDreamerConfig, model_buffers
    from ldm.model import SyncDreamer
    from ldm.sampling.sampler import noise_predictor
    from tests.reference.seeded_weights import seeded_state

    config = SyncDreamerConfig()
    model = empty_model(config, SyncDreamer)
    model.load_state_dict({**seeded_state(model), **model_buffers(config)}, assign=True)
    model.eval()
    features = model.encode_image(torch.zeros(1, 3, 256, 256))
    given = model.make_conditioning(features, torch.zeros(1), torch.randn(1, 4, 32, 32))
    latents = torch.randn(1, *config.latent_shape)
    for kind, branches in (("none", 1), ("classifier_free", 2), ("harmony", 3)):
        guidance = GuidanceConfig(kind=kind)  # type: ignore[arg-type]
        predict = noise_predictor(model, given, 2.0, 8, guidance)
        start = time.perf_counter()
        predict(latents, 501)
        seconds = time.perf_counter() - start
        print(f"full size, guidance {kind}: {branches} branches, {seconds:.1f} s a step")


def main(argv: list[str] | None = None) -> None:
    """Run what is missing; print a table."""
    args = build_parser().parse_args(argv)
    import torch

    from demo.evaluate import read_items
    from demo.model import choose_model_class
    from ldm.checkpoint.load import load_model
    from ldm.config import GenerateConfig
    from ldm.data.loader import open_dataset

    config = load_config(GenerateConfig, args.cfg).model
    kind, cpu = choose_model_class(config), torch.device("cpu")
    model = load_model(config, args.ckpt, cpu, torch.float32, kind)
    source = open_dataset(str(args.data))
    items = read_items(source, config.cameras.num_views, config.cameras.image_size)
    chosen = list(islice(items, args.first, args.first + args.objects))
    if not chosen:
        raise ValueError(f"{args.data}: has {len(source.uids)} objects, asked for {args.first} on")
    with torch.no_grad():
        rows = measure(model, chosen, args)
    print("\n| sampler | evaluations | distance | PSNR | consistency | hull |")
    print("|---|---|---|---|---|---|")
    for sampler, distance, means in rows:
        shown = "random" if distance is None else f"{distance:.4f}"
        quality = f"{means['PSNR']:.2f} | {means['consistency']:.3f} | {means['hull']:.3f}"
        label = name_of(sampler).rsplit(" ", 1)[0]
        print(f"| {label} | {sampler.steps} | {shown} | {quality} |")
    if args.plot:
        plot(rows, args.plot)
    if args.full_size:
        with torch.no_grad():
            time_full_size()


if __name__ == "__main__":
    run_script(main)
