"""Compare a reconstructed mesh with the true one: Chamfer distance and volume IoU.

    python eval_mesh.py --pr_mesh eval_examples/locomotive-pr/mesh.ply --pr_name locomotive \
        --gt_dir eval_examples/locomotive-gt \
        --gt_mesh eval_examples/locomotive-mesh/meshes/model.obj --gt_name locomotive

prints one line: name, Chamfer distance, IoU, separated by tabs. The predicted mesh must be in the
frame of the views (z up, centred, longest side 1); it is not aligned.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import add_common_flags, run_script
from common.devices import pick_device
from evaluation.results import Result, add_log_flag, angle, append, check_log, row_name, table_row

log = logging.getLogger(__name__)

POINTS = Path("output/points")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pr_mesh", type=Path, required=True, help="predicted mesh, .ply or .obj")
    add("--pr_name", type=row_name, required=True, help="of the object, for the table")
    add("--gt_dir", type=Path, required=True,
        help="folder of the true depth maps 000-depth.png .. 015-depth.png; without them they are "
        "made from the true mesh")  # fmt: skip
    add("--gt_mesh", type=Path, required=True, help="true mesh, as its authors made it")
    add("--gt_name", required=True,
        help="name of the true object: those of the paper's Google Scanned Objects were turned "
        "about z by a listed angle, all others are not turned")  # fmt: skip
    add("--gt_rotation", type=angle, metavar="DEGREES",
        help="that angle, for objects that are not listed")  # fmt: skip
    add("--output", action="store_true",
        help=f"write the compared points too: {POINTS}/<pr_name>-pr.ply and -gt.ply")  # fmt: skip
    add_log_flag(parser)
    add_common_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Evaluate the mesh that the command line names."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.output and Path(args.pr_name).name != args.pr_name:
        parser.error(f"with --output, --pr_name must be the name of a file, got {args.pr_name!r}")
    check_log(args.log)
    from evaluation.mesh_metrics import evaluate_mesh, write_points
    from evaluation.meshes import GSO_ROTATIONS_DEG, gso_rotation

    rotation = args.gt_rotation
    if rotation is None:
        rotation = gso_rotation(args.gt_name)
        listed = "as listed" if args.gt_name in GSO_ROTATIONS_DEG else "not listed"
        log.info("the true mesh is turned back by %g degrees about z (%s)", rotation, listed)
    scores = evaluate_mesh(
        args.pr_mesh, args.gt_mesh, args.gt_dir, rotation, pick_device(args.device)
    )
    print(table_row(args.pr_name, scores.chamfer, scores.iou))
    log.info("columns: name, Chamfer distance, volume IoU")
    if args.log:
        append(args.log, Result(args.pr_name, chamfer=scores.chamfer, iou=scores.iou))
    if args.output:
        POINTS.mkdir(parents=True, exist_ok=True)
        write_points(POINTS / f"{args.pr_name}-pr.ply", scores.points)
        write_points(POINTS / f"{args.pr_name}-gt.ply", scores.true_points)
        log.info("wrote the points to %s/%s-pr.ply and -gt.ply", POINTS, args.pr_name)


if __name__ == "__main__":
    run_script(main)
