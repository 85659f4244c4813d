"""Make the ground truth mesh and depth maps of an object for the evaluation.

    python -m evaluation.ground_truth --mesh model.obj --name chicken --out chicken-gt

writes chicken-gt/000-depth.png .. 015-depth.png, 16-bit depth maps of the mesh in the frame of the
views (longest side 1, centred, rotated as the paper's objects were), and true_mesh.ply, the mesh in
this frame (as --gt_mesh it needs --gt_rotation 0). Existing files are not replaced.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import add_common_flags, run_script
from common.devices import pick_device
from common.files import atomic_write
from evaluation.cli_args import angle
from multiview.cameras import NUM_VIEWS, REFERENCE_IMAGE_SIZE, orbit_cameras

if TYPE_CHECKING:
    import numpy as np
    import torch
    from trimesh import Trimesh

log = logging.getLogger(__name__)

TRUE_MESH = "true_mesh.ply"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    raw, name = argparse.RawDescriptionHelpFormatter, "python -m evaluation.ground_truth"
    parser = argparse.ArgumentParser(prog=name, description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--mesh", type=Path, required=True, help="mesh of the object, z up")
    add("--name", default="", help="name of the object, to look up its rotation in the paper's set")
    add("--rotation", type=angle, metavar="DEGREES", help="rotation of other objects")
    add("--out", type=Path, required=True, help="output folder")
    add_common_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = build_parser().parse_args(argv)
    from evaluation.depth import depth_names
    from evaluation.meshes import gso_rotation, read_mesh, to_render_frame

    if args.out.exists() and not args.out.is_dir():
        raise NotADirectoryError(f"{args.out}: --out must be a folder, this is a file")
    files = [args.out / name for name in (TRUE_MESH, *depth_names(NUM_VIEWS))]
    existing = [path for path in files if path.exists()]
    if existing:
        raise FileExistsError(f"{existing[0]} exists already; choose another folder for --out")
    rotation = gso_rotation(args.name) if args.rotation is None else args.rotation
    mesh = to_render_frame(read_mesh(args.mesh), rotation)
    write_ground_truth(mesh, args.out, REFERENCE_IMAGE_SIZE, pick_device(args.device))
    text = "wrote true_mesh.ply and %d depth maps to %s (rotated back by %g degrees)"
    log.info(text, NUM_VIEWS, args.out, rotation)


def write_ground_truth(mesh: Trimesh, folder: Path, size: int, device: torch.device) -> np.ndarray:
    """Write a mesh in the frame of the views, and its depth maps, see `depth_maps`; return them."""
    from evaluation.depth import depth_maps, depth_names, write_depth_map

    depth = depth_maps(mesh, orbit_cameras(NUM_VIEWS, image_size=size), size, device)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in (TRUE_MESH, *depth_names(NUM_VIEWS))]
    try:
        with atomic_write(files[0]) as temporary:
            mesh.export(temporary, file_type="ply")
        for path, view in zip(files[1:], depth, strict=True):
            write_depth_map(path, view)
    except BaseException:  # all or nothing
        for path in files:
            path.unlink(missing_ok=True)
        raise
    return depth


if __name__ == "__main__":
    run_script(main)
