"""Generate 16 multiview-consistent images of the object in one image.

    python generate.py --ckpt ckpt/syncdreamer-pretrain.ckpt --input testset/locomotive.png \
        --output output/locomotive --elevation 20 --crop_size 200

writes output/locomotive/0.png .. 3.png, four samples of 16 views side by side: azimuth 0 (the
input's) to 337.5 degrees in steps of 22.5, all at elevation 30.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from multiview.cameras import REFERENCE_IMAGE_SIZE
from multiview.runtime import add_common_flags, load_config, pick_device, run_script

log = logging.getLogger(__name__)

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


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the defaults, and the description as it is written."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--cfg", type=Path, default=Path("configs/syncdreamer.yaml"), help="sizes of the model")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override the --cfg file")
    add("--ckpt", type=Path, default=Path("ckpt/syncdreamer-pretrain.ckpt"),
        help="the weights, .ckpt or .safetensors")  # fmt: skip
    add("--input", type=Path, nargs="+", required=True,
        help="RGBA image (alpha = object), several, or a folder of them")  # fmt: skip
    add("--output", type=Path, required=True,
        help="folder of the results; with several inputs, of one folder an input")  # fmt: skip
    add("--elevation", type=float, nargs="+", required=True,
        help="degrees that the input's camera looks down, useful from -10 to 40; one or one "
        "for each input (a folder's by name)")  # fmt: skip
    add("--sample_num", type=int, default=4, help="samples of each input")
    add("--crop_size", type=int, default=-1,
        help="scale the object's longer side to this many of 256 pixels (try 200, else 180 or "
        "150); -1 takes the picture as it is")  # fmt: skip
    add("--cfg_scale", type=float, default=2.0, help="guidance scale; 1 is none")
    add("--batch_view_num", type=int, default=8, help="views denoised at once; bounds the memory")
    add("--seed", type=int, default=6033, help="of sample 0; sample k has seed + k")
    add("--sampler", choices=["ddim"], default="ddim")
    add("--sample_steps", type=int, default=50, help="denoising steps, 1 to 1000")
    add("--eta", type=float, default=1.0, help="randomness of the sampler, 0 to 1")
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
    for name in ("cfg", "ckpt"):  # the defaults are found from any folder
        path, default = getattr(args, name), parser.get_default(name)
        if path == default and not path.exists():
            setattr(args, name, Path(__file__).parent / default)
    for name, (low, high) in LIMITS.items():
        values = getattr(args, name)
        for value in values if isinstance(values, list) else [values]:
            if not (low <= value <= high or (name == "crop_size" and value == -1)):
                also = "-1 or " if name == "crop_size" else ""
                parser.error(f"--{name} must be {also}from {low} to {high}, got {value}")
    warn_of_doubtful(args)
    return args


def warn_of_doubtful(args: argparse.Namespace) -> None:
    """Warn of values that work but are hardly meant."""
    for elevation in args.elevation:
        if not -10 <= elevation <= 40:
            log.warning("elevation %g is outside [-10, 40], which the model knows", elevation)
    if args.cfg_scale < 1:
        effect = "weakened" if args.cfg_scale > 0 else "inverted" if args.cfg_scale else "ignored"
        log.warning("guidance %g is below 1: the input is %s", args.cfg_scale, effect)


def main(argv: list[str] | None = None) -> None:
    """Generate the views that the command line asks for."""
    args = parse(argv)
    from ldm.config import GenerateConfig
    from ldm.generation import GenerateOptions, generate
    from ldm.sampler import SamplerConfig

    options = GenerateOptions(
        checkpoint=args.ckpt,
        output=args.output,
        crop_size=args.crop_size,
        sample_num=args.sample_num,
        seed=args.seed,
        sampler=SamplerConfig(args.sample_steps, args.cfg_scale, args.eta),
        batch_view_num=args.batch_view_num,
        dtype=args.dtype,
        device=pick_device(args.device),
        overwrite=args.overwrite,
        save_views=args.save_views,
        preview=args.preview,
    )
    config = load_config(GenerateConfig, args.cfg, args.set)
    generate(config.model, args.input, args.elevation, options)


if __name__ == "__main__":
    run_script(main)
