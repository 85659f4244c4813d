"""Generate 16 multiview-consistent images of the object in one image.

    python generate.py --ckpt ckpt/syncdreamer-pretrain.ckpt --input testset/locomotive.png \
        --output output/locomotive --elevation 20 --crop_size 200

writes output/locomotive/0.png .. 3.png, four samples of 16 views side by side: azimuth 0 (the
input's) to 337.5 degrees in steps of 22.5, all at elevation 30.

Without --ckpt the published checkpoint is used if it is in ckpt/, else the small model that comes
with the project.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from multiview.cameras import REFERENCE_IMAGE_SIZE
from multiview.runtime import HelpFormatter, add_common_flags, load_config, pick_device, run_script

log = logging.getLogger(__name__)

PUBLISHED_CFG = "configs/syncdreamer.yaml"
PUBLISHED_CKPTS = ("ckpt/syncdreamer-pretrain.ckpt", "ckpt/syncdreamer-pretrain.safetensors")
DEMO_CFG = "configs/demo.yaml"
DEMO_CKPT = "ckpt/syncdreamer-demo.safetensors"
OF_MODEL = "(default: what the configuration says, {} for the published model)"

LIMITS: dict[str, tuple[float, float]] = {
    "elevation": (-90, 90),
    "sample_num": (1, 100_000),
    "crop_size": (1, REFERENCE_IMAGE_SIZE),
    "cfg_scale": (-1000, 1000),
    "batch_view_num": (1, 1000),
    "seed": (0, 2**62),
    "sample_steps": (1, 1000),
    "eta": (0, 1),
}


class SparseHelpFormatter(HelpFormatter):
    """Show only defaults that are not left to the configuration."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def crop_size(text: str) -> int | str:
    """Read a crop size, for argparse: a number of pixels, or "auto"."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number and not auto") from None


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=SparseHelpFormatter)
    add = parser.add_argument
    add(
        "--cfg",
        type=Path,
        help=f"sizes of the model (default: {PUBLISHED_CFG}; {DEMO_CFG} for the small model)",
    )
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override the --cfg file")
    add("--ckpt", type=Path,
        help="the weights, .ckpt or .safetensors (default: the published ones, else the small "
        "model's)")  # fmt: skip
    add("--input", type=Path, nargs="+", required=True,
        help="RGBA image (alpha = object), several, or a folder of them")  # fmt: skip
    add("--output", type=Path, required=True,
        help="folder of the results; with several inputs, of one folder an input")  # fmt: skip
    add("--elevation", type=float, nargs="+", required=True,
        help="degrees that the input's camera looks down, useful from -10 to 40; one or one "
        "for each input (a folder's by name)")  # fmt: skip
    add("--sample_num", type=int, default=4, help="samples of each input")
    add("--crop_size", type=crop_size, default=-1,
        help="scale the object's longer side to this many of 256 pixels (try 200, else 180 or "
        "150); auto chooses, as in renders to train on; -1 takes the picture as it is")  # fmt: skip
    add("--cfg_scale", type=float, help=f"guidance scale; 1 is none {OF_MODEL.format(2.0)}")
    add("--batch_view_num", type=int, default=8, help="views denoised at once; bounds the memory")
    add("--seed", type=int, default=6033, help="of sample 0; sample k has seed + k")
    add("--sampler", choices=["ddim"], default="ddim")
    add("--sample_steps", type=int, help=f"denoising steps, 1 to 1000 {OF_MODEL.format(50)}")
    add("--eta", type=float, help=f"randomness of the sampler, 0 to 1 {OF_MODEL.format(1.0)}")
    add("--dtype", choices=["fp32", "tf32", "bf16", "fp16"], default="fp32",
        help="precision of the networks")  # fmt: skip
    add("--save_views", action="store_true", help="write <k>/000.png .. 015.png too")
    add("--preview", action="store_true", help="write the animation <k>.gif too")
    add("--overwrite", action="store_true", help="make all samples anew, whatever is there")
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags (exit 2 where they make no sense)."""
    parser = build_parser()
    args = parser.parse_args(argv)
    choose_model(args)
    for name, (low, high) in LIMITS.items():
        values = getattr(args, name)
        if values is None or values == "auto":
            continue
        for value in values if isinstance(values, list) else [values]:
            if not (low <= value <= high or (name == "crop_size" and value == -1)):
                also = "auto, -1 or " if name == "crop_size" else ""
                parser.error(f"--{name} must be {also}from {low} to {high}, got {value}")
    warn_of_doubtful(args)
    return args


def choose_model(args: argparse.Namespace) -> None:
    """Fill in the weights and their configuration where the flags do not name both."""

    def found(name: str | Path) -> Path:
        """A file of the project is found from any folder."""
        own = Path(__file__).parent / name
        return own if own.exists() and not Path(name).exists() else Path(name)

    for name in ("cfg", "ckpt"):
        if getattr(args, name) is not None:
            setattr(args, name, found(getattr(args, name)))
    if args.ckpt is None:
        published = next((p for p in map(found, PUBLISHED_CKPTS) if p.exists()), None)
        small = args.cfg is not None and args.cfg.name == Path(DEMO_CFG).name
        if args.cfg is None and published is None and found(DEMO_CKPT).exists():
            log.info("no published weights in ckpt/: using the small model that comes with the "
                     "project, which knows simple objects (ckpt/README.md)")  # fmt: skip
            small = True
        if small:
            args.ckpt, args.cfg = found(DEMO_CKPT), args.cfg or found(DEMO_CFG)
        else:
            args.ckpt = published or found(PUBLISHED_CKPTS[0])
    if args.cfg is None:
        small = args.ckpt.name == Path(DEMO_CKPT).name
        args.cfg = found(DEMO_CFG if small else PUBLISHED_CFG)


def warn_of_doubtful(args: argparse.Namespace) -> None:
    """Warn of values that work but are hardly meant."""
    for elevation in args.elevation:
        if not -10 <= elevation <= 40:
            log.warning("elevation %g is outside [-10, 40], which the model knows", elevation)
    if args.cfg_scale is not None and args.cfg_scale < 1:
        effect = "weakened" if args.cfg_scale > 0 else "inverted" if args.cfg_scale else "ignored"
        log.warning("guidance %g is below 1: the input is %s", args.cfg_scale, effect)


def main(argv: list[str] | None = None) -> None:
    """Generate the views that the command line asks for."""
    args = parse(argv)
    from ldm.config import GenerateConfig
    from ldm.generation import GenerateOptions, generate

    config = load_config(GenerateConfig, args.cfg, args.set)
    flags = {
        "steps": args.sample_steps,
        "guidance_scale": args.cfg_scale,
        "eta": args.eta,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    options = GenerateOptions(
        checkpoint=args.ckpt,
        output=args.output,
        crop_size=args.crop_size,
        sample_num=args.sample_num,
        seed=args.seed,
        sampler=replace(config.sampler, **given),
        batch_view_num=args.batch_view_num,
        dtype=args.dtype,
        device=pick_device(args.device),
        overwrite=args.overwrite,
        save_views=args.save_views,
        preview=args.preview,
    )
    generate(config.model, args.input, args.elevation, options)


if __name__ == "__main__":
    run_script(main)
