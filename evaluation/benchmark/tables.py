"""Tables of a report in Markdown and LaTeX, with the paper's rows for comparison."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.image_metrics import SSIM_FORMS
from evaluation.mesh_hygiene import PROPERTIES
from evaluation.published_results import PAPER, PUBLISHED_RESULTS
from evaluation.results import Result, format_value

METRICS: tuple[tuple[str, str, bool, int], ...] = (
    ("psnr", "PSNR", True, 2),
    ("ssim", "SSIM", True, 3),
    ("lpips", "LPIPS", False, 3),
    ("points", "COLMAP points", True, 0),
    ("chamfer", "Chamfer dist.", False, 4),
    ("iou", "Volume IoU", True, 4),
    ("normals", "Normal consistency", True, 3),
    ("self_psnr", "Self-consistency PSNR", True, 2),
    ("self_chamfer", "Self-consistency Chamfer dist.", False, 4),
)
"""Field of `Result`, title, whether higher is better, decimals in the tables."""
VIEW_METRICS, MESH_METRICS = ("psnr", "ssim", "lpips", "points"), ("chamfer", "iou")
"""Columns of the paper's Tables 1 and 2."""


@dataclass(frozen=True)
class Table:
    """A table of formatted cells: the paper's rows, and this run's as the last."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def make_tables(name: str, mean: Result, results: list[Result]) -> list[Table]:
    """Make the tables of views and meshes: the paper's rows and the mean of this run.

    Self-consistency and hygiene of meshes, where they were measured, have a table each.
    """
    caption = "Mean over {}; the other rows are the paper's, over 30 objects"
    ours = {metric: format_score(getattr(mean, metric), digits) for metric, _, _, digits in METRICS}
    if mean.points_form:
        ours["points"] += f" ({mean.points_form})"
    views = Table(
        "Novel views. " + caption.format(format_count(num_measured(results, "psnr"))),
        ("Method", "PSNR ↑", "SSIM ↑", "LPIPS ↓", "COLMAP points ↑"),
        (*paper_rows(*VIEW_METRICS), (name, *(ours[key] for key in VIEW_METRICS))),
    )
    meshes = Table(
        "Surfaces. " + caption.format(format_count(num_measured(results, "chamfer"))),
        ("Method", "Chamfer dist. ↓", "Volume IoU ↑"),
        (*paper_rows(*MESH_METRICS), (name, *(ours[key] for key in MESH_METRICS))),
    )
    tables = [views, meshes] if mean.chamfer is not None else [views]
    if mean.self_psnr is not None:
        caption = "Self-consistency: the reconstruction of the even views against that of the odd"
        scores = (name, ours["self_psnr"], ours["self_chamfer"])
        tables.append(Table(caption, ("Method", "PSNR ↑", "Chamfer dist. ↓"), (scores,)))
    found = [result.hygiene for result in results if result.hygiene]
    if found:
        shares = [f"{sum(each[key] for each in found)} of {len(found)}" for key in PROPERTIES]
        faces = f"{sum(each['faces'] for each in found) / len(found):.0f}"
        header = ("Method", *map(str.capitalize, PROPERTIES.values()), "Faces, mean")
        tables.append(Table("Hygiene of the meshes", header, ((name, *shares, faces),)))
    return tables


def paper_rows(*metrics: str) -> list[tuple[str, ...]]:
    """The paper's methods for which it has these metrics, with the formatted numbers."""
    decimals = {metric: digits for metric, _, _, digits in METRICS}
    return [
        (row.method, *(f"{value:.{decimals[key]}f}" for key, value in values.items()))
        for row in PUBLISHED_RESULTS
        if row.source == PAPER
        and None not in (values := {key: getattr(row, key) for key in metrics}).values()
    ]


def format_count(number: int) -> str:
    """Format a number of objects: "1 object", "2 objects"."""
    return f"{number} object{'s' * (number != 1)}"


def make_notes(mean: Result, results: list[Result], failed: list[str]) -> list[str]:
    """Notes below the tables: forms of the metrics, incomplete means, names of failed objects."""
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
        measured = num_measured(results, metric)
        if 0 < measured < len(results) and metric not in ("chamfer", "iou", "normals"):
            notes.append(f"{title} is the mean over {measured} of {len(results)} objects only.")
    if failed:
        notes.append(f"Failed, in whole or in part: {', '.join(failed)}.")
    return notes


def num_measured(results: list[Result], metric: str) -> int:
    """Number of results that have a metric."""
    return sum(getattr(result, metric) is not None for result in results)


def format_score(value: float | None, digits: int) -> str:
    """Format a score for a table."""
    return format_value(None) if value is None else f"{value:.{digits}f}"


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
                *([r"    \midrule"] if lines[2:] else []),
                f"    {lines[-1]}", r"    \bottomrule", r"  \end{tabular}",
                r"\end{table}",
            ])
        )  # fmt: skip
    parts.append("\n".join(f"% {note}" for note in notes))
    return "\n\n".join(parts) + "\n"
