"""The tables of a report, beside the paper's rows, in Markdown and LaTeX."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.image_metrics import SSIM_FORMS
from evaluation.results import Result, as_text

PAPER_VIEWS: tuple[tuple[str, float, float, float, int], ...] = (
    ("RealFusion", 15.26, 0.722, 0.283, 4010),
    ("Zero123", 18.93, 0.779, 0.166, 95),
    ("SyncDreamer", 20.05, 0.798, 0.146, 1123),
)
"""Paper, Table 1: method, PSNR, SSIM, LPIPS, points of COLMAP (dense)."""
PAPER_MESHES: tuple[tuple[str, float, float], ...] = (
    ("RealFusion", 0.0819, 0.2741),
    ("Magic123", 0.0516, 0.4528),
    ("One-2-3-45", 0.0629, 0.4086),
    ("Point-E", 0.0426, 0.2875),
    ("Shap-E", 0.0436, 0.3584),
    ("Zero123", 0.0339, 0.5035),
    ("SyncDreamer", 0.0261, 0.5421),
)
"""Paper, Table 2: method, Chamfer distance, volume IoU."""
METRICS: tuple[tuple[str, str, bool, int], ...] = (
    ("psnr", "PSNR", True, 2),
    ("ssim", "SSIM", True, 3),
    ("lpips", "LPIPS", False, 3),
    ("points", "COLMAP points", True, 0),
    ("chamfer", "Chamfer dist.", False, 4),
    ("iou", "Volume IoU", True, 4),
)
"""Metric, its name, whether more is better, decimals in the tables."""


@dataclass(frozen=True)
class Table:
    """A table with the paper's rows and ours, every cell as text.

    Attributes:
        caption: what it shows.
        header: names of the columns.
        rows: the last one is this run's.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def make_tables(name: str, mean: Result, results: list[Result]) -> list[Table]:
    """Put this run's means under the paper's rows.

    Args:
        name: of this run.
        mean: over its objects.
        results: of its objects.
    """
    caption = "Mean over {}; the other rows are the paper's, over 30 objects"
    ours = {metric: cell(getattr(mean, metric), digits) for metric, _, _, digits in METRICS}
    if mean.points_form:
        ours["points"] += f" ({mean.points_form})"
    views = Table(
        "Novel views. " + caption.format(objects_text(count_of(results, "psnr"))),
        ("Method", "PSNR ↑", "SSIM ↑", "LPIPS ↓", "COLMAP points ↑"),
        (
            *((m, f"{p:.2f}", f"{s:.3f}", f"{lp:.3f}", str(n)) for m, p, s, lp, n in PAPER_VIEWS),
            (name, ours["psnr"], ours["ssim"], ours["lpips"], ours["points"]),
        ),
    )
    meshes = Table(
        "Surfaces. " + caption.format(objects_text(count_of(results, "chamfer"))),
        ("Method", "Chamfer dist. ↓", "Volume IoU ↑"),
        (
            *((method, f"{c:.4f}", f"{i:.4f}") for method, c, i in PAPER_MESHES),
            (name, ours["chamfer"], ours["iou"]),
        ),
    )
    return [views, meshes] if mean.chamfer is not None else [views]


def objects_text(number: int) -> str:
    """Say how many objects: "1 object", "2 objects"."""
    return f"{number} object{'s' * (number != 1)}"


def make_notes(mean: Result, results: list[Result], broken: list[str]) -> list[str]:
    """What a reader of the tables has to know.

    Args:
        mean: over the objects.
        results: of the objects.
        broken: names of the objects that failed, in whole or in part.
    """
    notes = []
    if mean.ssim_form:
        notes.append(f"SSIM is {SSIM_FORMS[mean.ssim_form]}.")
    if mean.points_form == "sparse":
        notes.append(
            "COLMAP points are sparse (triangulated features): not comparable with the paper's, "
            "which are dense (fused; they need CUDA). Nor are RealFusion's, inflated by noise."
        )
    elif mean.points_form:
        notes.append(f"COLMAP points are {mean.points_form}. RealFusion's are inflated by noise.")
    for metric, title, _, _ in METRICS:
        measured = count_of(results, metric)
        if 0 < measured < len(results) and metric not in ("chamfer", "iou"):
            notes.append(f"{title} is the mean over {measured} of {len(results)} objects only.")
    if broken:
        notes.append(f"Failed, in whole or in part: {', '.join(broken)}.")
    return notes


def count_of(results: list[Result], metric: str) -> int:
    """How many of the results have a metric."""
    return sum(getattr(result, metric) is not None for result in results)


def cell(value: float | None, digits: int) -> str:
    """Format a score for a table."""
    return as_text(None) if value is None else f"{value:.{digits}f}"


def to_markdown(tables: list[Table], notes: list[str]) -> str:
    """Write tables and notes in Markdown."""
    parts = []
    for table in tables:
        lines = [table.header, ("---",) * len(table.header), *table.rows]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        parts.append(table.caption + "\n\n" + "\n".join(f"| {' | '.join(c)} |" for c in escaped))
    parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(tables: list[Table], notes: list[str]) -> str:
    """Write tables and notes in LaTeX, for the package booktabs."""
    parts = ["% \\usepackage{booktabs}"]
    for table in tables:
        lines = [" & ".join(map(_tex, row)) + r" \\" for row in (table.header, *table.rows)]
        parts.append(
            "\n".join([
                r"\begin{table}", r"  \centering", f"  \\caption{{{_tex(table.caption)}.}}",
                f"  \\begin{{tabular}}{{l{'c' * (len(table.header) - 1)}}}", r"    \toprule",
                f"    {lines[0]}", r"    \midrule", *(f"    {line}" for line in lines[1:-1]),
                r"    \midrule", f"    {lines[-1]}", r"    \bottomrule", r"  \end{tabular}",
                r"\end{table}",
            ])
        )  # fmt: skip
    parts.append("\n".join(f"% {note}" for note in notes))
    return "\n\n".join(parts) + "\n"
