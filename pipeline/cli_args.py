"""Flags of the commands that generate views, and advice on them; imports nothing heavy."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.cli import SEED, project_file
from common.workers.flags import add_engine_flags, check_engine_flags
from multiview.cameras import REFERENCE_IMAGE_SIZE
from multiview.segmentation import BACKENDS

log = logging.getLogger(__name__)

PUBLISHED_CFG = "configs/syncdreamer.yaml"
PUBLISHED_CKPTS = tuple(
    f"ckpt/syncdreamer-pretrain{end}"
    for end in (".ckpt", ".safetensors", "-bf16.safetensors", "-fp16.safetensors")
)
DEMO_CFG = "configs/demo.yaml"
DEMO_CKPT = "ckpt/syncdreamer-demo.safetensors"
SAMPLERS = ("ddim", "dpm++", "dpm++sde", "unipc")
GUIDANCE = ("classifier_free", "harmony", "none")
OF_MODEL = "(default: what the configuration says, {} for the published model)"

LIMITS: dict[str, tuple[float, float]] = {
    "elevation": (-90, 90),
    "sample_num": (1, 100_000),
    "crop_size": (1, REFERENCE_IMAGE_SIZE),
    "cfg_scale": (-1000, 1000),
    "input_scale": (-1000, 1000),
    "volume_scale": (-1000, 1000),
    "guidance_interval": (0, 1000),
    "batch_view_num": (1, 1000),
    "seed": (0, 2**62),
    "sample_steps": (1, 1000),
    "eta": (0, 1),
    "draft_steps": (1, 1000),
    "port": (0, 65535),
    "max_queue": (1, 10_000),
    "max_upload_mb": (1, 1000),
    "limit": (1, 100_000),
    "workers": (1, 1000),
}
"""Lowest and highest values of flags."""


def _or_auto(number: Callable[[str], float], kind: str) -> Callable[[str], float | str]:
    def parse(text: str) -> float | str:
        try:
            return text if text == "auto" else number(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {kind} and not auto") from None

    return parse


crop_size = _or_auto(int, "whole number")
"""Parse a crop size for argparse: a number of pixels, or "auto"."""
elevation = _or_auto(float, "number")
"""Parse an elevation for argparse: degrees, or "auto"."""


def add_model_flags(
    parser: argparse.ArgumentParser, overrides: str = "override the --cfg file"
) -> None:
    """Add the flags of the model and the sampler; `overrides` is the help of --set."""
    add = parser.add_argument
    sizes = f"sizes of the model (default: {PUBLISHED_CFG}; {DEMO_CFG} for the small model)"
    add("--cfg", type=Path, help=sizes)
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=overrides)
    add("--ckpt", type=Path,
        help="the weights, .ckpt or .safetensors (default: the published ones, which python -m "
        "ldm.download fetches, else the small model's)")  # fmt: skip
    add("--sample_num", type=int, default=4, help="samples of each input")
    add("--guidance", choices=GUIDANCE,
        help="by the input as a whole (classifier_free), or by its image and by the agreement of "
        f"the views apart (harmony) {OF_MODEL.format('classifier_free')}")  # fmt: skip
    add("--cfg_scale", type=float,
        help=f"scale of guidance classifier_free; 1 is none {OF_MODEL.format(2.0)}")  # fmt: skip
    add("--input_scale", type=float, help="of harmony, for likeness to the input (default: 2)")
    add("--volume_scale", type=float, help="of harmony, for agreement of views (default: 1)")
    add("--guidance_interval", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="noise levels sigma (0.03 to 14.6) outside of which there is no guidance, which saves "
        "its time (default: all)")  # fmt: skip
    add("--sampler", choices=SAMPLERS,
        help="solver; all but ddim are of order 2, for fewer steps, and have no --eta, dpm++sde is "
        f"random {OF_MODEL.format('ddim')}")  # fmt: skip
    add("--batch_view_num", type=int, default=8, help="views denoised at once; bounds the memory")
    add("--seed", type=int, default=SEED, help="of sample 0; sample k has seed + k")
    add("--sample_steps", type=int, help=f"denoising steps, 1 to 1000 {OF_MODEL.format(50)}")
    add("--eta", type=float, help=f"randomness of the sampler, 0 to 1 {OF_MODEL.format(1.0)}")
    add("--dtype", choices=["auto", "fp32", "tf32", "bf16", "fp16"], default="fp32",
        help="precision of the networks; auto is the fastest of this processor, bf16 on a CPU with "
        "AMX and on recent GPUs")  # fmt: skip


def add_compile_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag of commands that sample in one thread, as CUDA graphs require."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the networks in the first sample, which then takes minutes more; on CUDA "
        "with CUDA graphs; for many samples. Needs Triton (CUDA) or a C++ compiler (CPU)",
    )


def add_worker_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that divide images among workers, see `common.workers.flags`."""
    add_engine_flags(
        parser, "GPUs of this machine, e.g. 0,1,2,3: a process with a model on each shares the work"
    )
    parser.add_argument("--workers", type=int,
        help="processes that share the images, the GPUs and the cores (default: one, or one a GPU; "
        "on Ray as many as there is room for)")  # fmt: skip


def add_pipeline_flags(parser: argparse.ArgumentParser, preset: str) -> None:
    """Add the flags that `read_config` reads, those of the model too; `preset` is the default."""
    add = parser.add_argument
    add("--backend", choices=BACKENDS, default="auto",
        help="segmentation of images without alpha; white is for plain white backgrounds, see "
        "foreground_segment.py")  # fmt: skip
    add("--crop_size", type=crop_size, default="auto",
        help="scale the object's longer side to this many of 256 pixels; auto chooses, as in "
        "renders to train on; -1 keeps the whole image")  # fmt: skip
    add("--elevation", type=elevation, default="auto",
        help="degrees that the camera looks down, useful from -10 to 40; auto estimates it from "
        "drafts")  # fmt: skip
    add("--draft_steps", type=int, default=8,
        help="denoising steps of these drafts, at most those of a sample")  # fmt: skip
    add_model_flags(
        parser, "override the --cfg file (model.*, sampler.*) or the --base file (all else)"
    )
    add("-b", "--base", type=project_file, default="configs/neus.yaml",
        help="configuration of the reconstruction")  # fmt: skip
    add("--preset", choices=["fast", "default", "best"], default=preset,
        help="time and quality of the reconstruction")  # fmt: skip


def parse_flags(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the flags and choose the model; exit with 2 if a number is outside its `LIMITS`."""
    args = parser.parse_args(argv)
    for name, (low, high) in LIMITS.items():
        values = getattr(args, name, None)
        for value in values if isinstance(values, list) else [values]:
            if value is None or value == "auto":
                continue
            if not (low <= value <= high or (name == "crop_size" and value == -1)):
                also = {"crop_size": "auto, -1 or ", "elevation": "auto or "}.get(name, "")
                parser.error(f"--{name} must be {also}from {low} to {high}, got {value}")
    if hasattr(args, "engine"):
        check_engine_flags(parser, args)
        if args.gpus and args.device != "auto":
            parser.error("--gpus and --device both say where to compute; give one of them")
    choose_model(args)
    return args


def given_sampler(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of the sampler by the flags, None if not given, for `change_sampler`."""
    same = ("eta", "guidance", "input_scale", "volume_scale", "guidance_interval")
    return {
        "steps": args.sample_steps,
        "guidance_scale": args.cfg_scale,
        "solver": args.sampler,
        **{name: getattr(args, name) for name in same},
    }


def with_advice(error: BaseException) -> str:
    """The message of an error, and which flag helps against it."""
    from common.records import ReplaceError
    from multiview.images import NoAlphaError
    from multiview.matting import NoObjectError
    from pipeline.selection.elevation_drafts import ElevationError

    advice = (
        (ReplaceError, "choose another --output, or replace it with --overwrite"),
        (FileExistsError, "choose another --output"),
        (ElevationError, "give it with --elevation"),
        (NoAlphaError, "cut the object out first (python foreground_segment.py --input IMAGE "
                       "--output OBJECT.png) or use --crop_size -1"),
        (NoObjectError, "try another --backend"),
        (MemoryError, "use a smaller --batch_view_num, or --dtype bf16"),
    )  # fmt: skip
    cause: BaseException | None = error
    while cause is not None:
        found = next((text for kind, text in advice if isinstance(cause, kind)), None)
        if found and found not in str(error):
            return f"{error}; {found}"
        cause = cause.__cause__
    return str(error)


@contextmanager
def flag_advice() -> Iterator[None]:
    """Add advice on the flags to the messages of errors, see `with_advice`."""
    try:
        yield
    except Exception as error:
        message = with_advice(error)
        if message == str(error):
            raise
        raise type(error)(message) from error


def choose_model(args: argparse.Namespace) -> None:
    """Fill in the weights and their configuration where the flags do not name both."""
    for name in ("cfg", "ckpt"):
        if getattr(args, name) is not None:
            setattr(args, name, project_file(getattr(args, name)))
    if args.ckpt is None:
        published = next((p for p in map(project_file, PUBLISHED_CKPTS) if p.exists()), None)
        small = args.cfg is not None and args.cfg.name == Path(DEMO_CFG).name
        if args.cfg is None and published is None and project_file(DEMO_CKPT).exists():
            log.info(
                "no published weights in ckpt/: using the bundled small model, which knows simple "
                "objects; `python -m ldm.download` fetches the published ones (5.57 GB)"
            )
            small = True
        if small:
            args.ckpt, args.cfg = project_file(DEMO_CKPT), args.cfg or project_file(DEMO_CFG)
        else:
            args.ckpt = published or project_file(PUBLISHED_CKPTS[0])
    if args.cfg is None:
        small = args.ckpt.name == Path(DEMO_CKPT).name
        args.cfg = project_file(DEMO_CFG if small else PUBLISHED_CFG)
