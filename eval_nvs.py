"""Compare predicted views of an object with ground truth views: PSNR, SSIM, LPIPS (VGG).

    python eval_nvs.py --gt eval_examples/locomotive-gt --pr eval_examples/locomotive-pr \
        --name locomotive

prints one tab-separated line: name, PSNR, SSIM, LPIPS, each the mean over the 16 views.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import add_common_flags, run_script
from common.devices import pick_device
from evaluation.cli_args import (
    add_log_flag,
    add_view_flags,
    check_log_flag,
    load_lpips,
    row_name,
)
from evaluation.results import append_result, table_row

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    true = "ground truth views: a folder with 000.png .. 015.png (RGBA is composited on white)"
    add("--gt", type=Path, required=True, help=true)
    predicted = "predicted views: such a folder, or a strip of 16 views"
    add("--pr", type=Path, required=True, help=predicted)
    add("--name", type=row_name, required=True, help="name of the object in the table")
    add_view_flags(parser)
    add("--verbose", action="store_true", help="print a line for each view first")
    add_log_flag(parser)
    add_common_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = build_parser().parse_args(argv)
    check_log_flag(args.log)
    from evaluation.image_metrics import SSIM_FORMS
    from evaluation.view_metrics import read_pair, score_views

    true, predicted = read_pair(args.gt, args.pr)
    device = pick_device(args.device)
    lpips, reason = load_lpips(args.lpips_weights, device, args.require_lpips)
    result = score_views(args.name, true, predicted, args.ssim, lpips)
    if args.verbose:
        for index, view in enumerate(zip(*result.per_view.values(), strict=True)):
            print(table_row(f"{index:03d}", *view, *([] if lpips else [None])))
    print(table_row(result.name, result.psnr, result.ssim, result.lpips))
    log.info("columns: name, PSNR, SSIM, LPIPS; SSIM is %s", SSIM_FORMS[args.ssim])
    if reason:
        log.warning("LPIPS is missing: %s", reason)
    if args.log:
        append_result(args.log, result)


if __name__ == "__main__":
    run_script(main)
