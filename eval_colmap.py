"""Count the 3D points that COLMAP reconstructs from 16 views, a measure of their consistency.

    python eval_colmap.py --dir eval_examples/locomotive-pr --name locomotive

prints one tab-separated line: name, number of points, sparse or dense. The cameras are known. Dense
points (fused depth maps, as in the paper) need a COLMAP with CUDA and a CUDA device; otherwise the
triangulated (sparse) points are counted. Compare only numbers of the same form and of the same
version of COLMAP.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import advise, run_script
from evaluation.cli_args import (
    add_colmap_flags,
    add_log_flag,
    check_log_flag,
    open_colmap,
    row_name,
)
from evaluation.results import Result, append_result, table_row

log = logging.getLogger(__name__)

FORMS = {
    "dense": "dense points (fused depth maps), as in the paper",
    "sparse": "sparse points (triangulated features), not comparable with the paper's dense points",
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    views = "folder with 000.png .. 015.png (RGBA is composited on white), or a strip of 16 views"
    add("--dir", type=Path, required=True, help=views)
    project = "folder for COLMAP's files; replaces those of a previous run (default: temporary)"
    add("--project", type=Path, help=project)
    add("--name", type=row_name, required=True, help="name of the object in the table")
    add_colmap_flags(parser)
    add_log_flag(parser)
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = build_parser().parse_args(argv)
    check_log_flag(args.log)
    from evaluation.colmap.points import count_points
    from evaluation.colmap.project_folder import project_folder
    from multiview.views import read_views

    engine, form = open_colmap(args.colmap, args.mode)
    views = read_views(args.dir)
    log.info("%s counts %s", engine.name, FORMS[form])
    kept = "" if args.project else " (--project FOLDER keeps COLMAP's files and its output)"
    with (
        advise("; choose another --project, or remove them", FileExistsError),
        advise(kept, RuntimeError),
        project_folder(args.project) as project,
    ):
        points = count_points(views, project, engine, form)
    print(table_row(args.name, points.count, points.form))
    log.info("columns: name, number of points, sparse or dense")
    if points.count == 0:
        log.warning("COLMAP reconstructed no points: too few features, or no matching views")
    if args.log:
        append_result(args.log, Result(args.name, points=points.count, points_form=points.form))


if __name__ == "__main__":
    run_script(main)
