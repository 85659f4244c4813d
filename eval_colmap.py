"""Count the 3D points that COLMAP reconstructs from 16 views: a measure of their consistency.

    python eval_colmap.py --dir eval_examples/locomotive-pr --name locomotive

prints one line: name, number of points, sparse or dense, separated by tabs. The cameras are known.
Dense points (fused depth maps, as in the paper) need a COLMAP with CUDA and a CUDA device; without
them the triangulated (sparse) points are counted. Compare only numbers of the same form, and of
the same version of COLMAP.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import run_script
from evaluation.results import Result, add_log_flag, append, check_log, row_name, table_row

log = logging.getLogger(__name__)

DENSE_OR_SPARSE = {
    "dense": "dense points (fused depth maps), which the paper counts",
    "sparse": "sparse points (triangulated features); the paper counts dense ones: do not compare",
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dir", type=Path, required=True,
        help="the views: a folder with 000.png .. 015.png (RGBA is put on white), or one image of "
        "16 views side by side")  # fmt: skip
    add("--project", type=Path,
        help="folder in which COLMAP's files are kept; files of a former run there are replaced "
        "(default: a temporary folder)")  # fmt: skip
    add("--name", type=row_name, required=True, help="of the object, for the table")
    add("--colmap", metavar="PROGRAM",
        help="COLMAP program, name or path (default: the package pycolmap)")  # fmt: skip
    add("--mode", choices=["auto", "sparse", "dense"], default="auto",
        help="which points to count; auto (default): dense where there is CUDA")  # fmt: skip
    add_log_flag(parser)
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Evaluate the views that the command line names."""
    args = build_parser().parse_args(argv)
    check_log(args.log)
    from evaluation.colmap import choose_form, count_points, project_folder
    from evaluation.colmap_engines import open_engine
    from multiview.views import read_views

    engine = open_engine(args.colmap)
    form = choose_form(args.mode, engine)
    views = read_views(args.dir)
    log.info("%s counts %s", engine.name, DENSE_OR_SPARSE[form])
    with project_folder(args.project) as project:
        points = count_points(views, project, engine, form)
    print(table_row(args.name, points.count, points.form))
    log.info("columns: name, number of points, sparse or dense")
    if points.count == 0:
        log.warning("COLMAP found no points: too few features, or the views do not match")
    if args.log:
        append(args.log, Result(args.name, points=points.count, points_form=points.form))


if __name__ == "__main__":
    run_script(main)
