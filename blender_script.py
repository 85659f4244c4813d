"""Render the views of one 3D model inside Blender, with the settings of the training images.

    blender --background --python blender_script.py -- \
        --object_path chair.glb --output_dir renders --camera_type random

writes renders/chair/000.png .. 015.png, RGBA, and meta.pkl with their cameras. Existing valid views
with the same cameras and settings are kept. Needs Blender 3.4 to 4.5, or a Python with the package
bpy: python blender_script.py --object_path ...
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Blender does not add it
if importlib.util.find_spec("numpy") is None:  # missing in Debian's Blender
    sys.exit("ERROR: Blender's Python has no NumPy; Debian, Ubuntu: apt-get install python3-numpy")

from blender.plan import ViewSettings
from common.cli import HelpFormatter, run_script
from common.files import check_file_name

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command, also outside Blender."""
    parser = argparse.ArgumentParser(
        prog="blender_script.py", description=__doc__, formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("--object_path", type=Path, required=True, help=".glb .gltf .fbx .obj .ply or .stl")
    add("--output_dir", type=Path, required=True, help="the views are in <output_dir>/<uid>/")
    add("--uid", help="name of the object (default: file name of the model)")
    add("--engine", choices=["CYCLES", "BLENDER_EEVEE"], default="CYCLES", help="the renderer")
    add("--threads", type=int, default=0, help="render threads; 0 is one per core")
    add_view_flags(parser)
    kinds = "all views at --elevation, or each at a random elevation"
    add("--camera_type", choices=["fixed", "random"], default="fixed", help=kinds)
    depth = "also write NNN-depth.png: 16-bit, depths 0.6 to 2.4"
    add("--save_depth", action="store_true", help=depth)
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


VIEW_FLAGS = (
    ("num_images", ViewSettings.num_images, "number of views, at equal azimuth steps"),
    ("resolution", 256, "pixels a side"),
    ("samples", 128, "samples per pixel"),
    ("elevation", ViewSettings.elevation, "elevation of fixed cameras in degrees"),
    ("elevation_start", -10.0, "lowest elevation of random cameras in degrees"),
    ("elevation_end", 40.0, "highest elevation of random cameras in degrees"),
    ("seed", 0, "seed of random elevations, combined with the object's name"),
)
"""Flags, their default values and help texts."""


def add_view_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that are shared with render_batch.py."""
    add = parser.add_argument
    devices = ["CUDA", "OPTIX", "METAL", "HIP", "CPU"]
    fallback = "device of Cycles; falls back to the CPU with a warning"
    add("--device", choices=devices, default="CUDA", help=fallback)
    for name, default, text in VIEW_FLAGS:
        add(f"--{name}", type=type(default), default=default, help=text)
    strict = "fail if textures are missing, or anything else is not rendered as it is meant"
    add("--strict", action="store_true", help=strict)
    axis = "up axis of .obj, .ply and .stl files; auto is y for .obj, else z"
    add("--up", choices=["auto", "y", "z"], default="auto", help=axis)


def arguments_of_blender(argv: list[str]) -> list[str]:
    """The arguments after Blender's own; all arguments if Blender is the Python package bpy."""
    if "--" in argv:
        return argv[argv.index("--") + 1 :]
    return argv[1:] if Path(argv[0]).name == Path(__file__).name else []


def view_settings(args: argparse.Namespace, camera_type: str) -> ViewSettings:
    """Convert the flags of `add_view_flags` to settings.

    Raises:
        ValueError: a value is out of range.
    """
    if args.samples < 1:
        raise ValueError(f"samples must be at least 1, got {args.samples}")
    names = ("num_images", "elevation", "elevation_start", "elevation_end", "resolution", "seed")
    return ViewSettings(camera_type, **{name: getattr(args, name) for name in names})  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = build_parser()
    args = parser.parse_args(arguments_of_blender(sys.argv) if argv is None else argv)
    uid = args.uid if args.uid is not None else args.object_path.stem
    if args.threads < 0:
        parser.error(f"--threads must be at least 0, got {args.threads}")
    try:
        settings = view_settings(args, args.camera_type)
        check_file_name(uid)
    except ValueError as error:
        parser.error(str(error))
    from blender.cycles import render_object

    render_object(args.object_path, args.output_dir / uid, uid, settings, args)


if __name__ == "__main__":
    run_script(main)
