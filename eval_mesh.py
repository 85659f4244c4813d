"""Compare a reconstructed mesh with the ground truth mesh: Chamfer distance and volume IoU.

    python eval_mesh.py --pr_mesh eval_examples/locomotive-pr/mesh.ply --pr_name locomotive \
        --gt_dir eval_examples/locomotive-gt \
        --gt_mesh eval_examples/locomotive-mesh/meshes/model.obj --gt_name locomotive

prints one tab-separated line: name, Chamfer distance, IoU; the normal consistency (mean |cosine| of
the normals at nearest points) is logged. The predicted mesh must be in the frame of the views (z
up, centred, longest side 1); it is not aligned.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import add_common_flags, run_script
from common.devices import pick_device
from evaluation.cli_args import add_log_flag, angle, check_log_flag, row_name
from evaluation.results import Result, append_result, table_row

log = logging.getLogger(__name__)

POINTS = Path("output/points")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--pr_mesh", type=Path, required=True, help="predicted mesh, .ply .obj .glb or .stl")
    add("--pr_name", type=row_name, required=True, help="name of the object in the table")
    maps = "folder of the ground truth depth maps 000-depth.png .. 015-depth.png"
    add("--gt_dir", type=Path, required=True, help=f"{maps}; without any, --gt_mesh is rendered")
    add("--gt_mesh", type=Path, required=True, help="ground truth mesh in its original frame")
    listed = "name of the ground truth object; the paper's objects were rotated by listed angles"
    add("--gt_name", required=True, help=listed)
    rotation = "about z, of objects that are not listed (default: 0)"
    add("--gt_rotation", type=angle, metavar="DEGREES", help=rotation)
    points = f"also write the compared points: {POINTS}/<pr_name>-pr.ply and -gt.ply"
    add("--output", action="store_true", help=points)
    add_log_flag(parser)
    add_common_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.output and Path(args.pr_name).name != args.pr_name:
        parser.error(f"with --output, --pr_name must be a file name, got {args.pr_name!r}")
    check_log_flag(args.log)
    from evaluation.mesh_metrics import evaluate_mesh, write_points
    from evaluation.meshes import GSO_ROTATIONS_DEG, gso_rotation

    rotation = args.gt_rotation
    if rotation is None:
        rotation = gso_rotation(args.gt_name)
        listed = "as listed" if args.gt_name in GSO_ROTATIONS_DEG else "not listed"
        turned = "the ground truth mesh is rotated back by %g degrees about z"
        log.info(f"{turned} (%s; --gt_rotation sets another angle)", rotation, listed)
    device = pick_device(args.device)
    scores = evaluate_mesh(args.pr_mesh, args.gt_mesh, args.gt_dir, rotation, device)
    print(table_row(args.pr_name, scores.chamfer, scores.iou))
    log.info("columns: name, Chamfer distance, volume IoU")
    log.info("normal consistency: %.5f", scores.normals)
    if args.log:
        chamfer, iou, normals = scores.chamfer, scores.iou, scores.normals
        append_result(args.log, Result(args.pr_name, chamfer=chamfer, iou=iou, normals=normals))
    if args.output:
        POINTS.mkdir(parents=True, exist_ok=True)
        write_points(POINTS / f"{args.pr_name}-pr.ply", scores.points)
        write_points(POINTS / f"{args.pr_name}-gt.ply", scores.true_points)
        log.info("wrote the points to %s/%s-pr.ply and -gt.ply", POINTS, args.pr_name)


if __name__ == "__main__":
    run_script(main)
