"""Whole runs: scores, what a second run evaluates, tables, HTML page and error maps."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

for package in ("trimesh", "mesh2sdf", "scipy", "pycolmap", "lpips"):
    pytest.importorskip(package, reason="needs requirements/eval.txt")

from evaluation.benchmark import run as benchmark
from evaluation.benchmark.dataset import ObjectFiles
from evaluation.benchmark.evaluate import ObjectRecord, error_map, mean_result
from evaluation.benchmark.report import ReportRow, best_and_worst_first, write_report
from evaluation.benchmark.tables import make_tables
from evaluation.results import Result
from tests.conftest import SHARED, needs_shared
from tests.evaluation.benchmark.conftest import report_row, rows, run
from tests.evaluation.conftest import EXAMPLES


def test_good_objects_are_scored_and_broken_ones_reported(report: Path):
    found = rows(report)
    assert " ".join(found) == "broken equal & <same> locomotive noisy unpredicted mean"
    assert found["equal & <same>"]["psnr"] == "inf"
    assert float(found["equal & <same>"]["ssim"]) == pytest.approx(1)
    assert 20 < float(found["noisy"]["psnr"]) < 30
    assert 0.8 < float(found["locomotive"]["iou"]) < 0.9
    assert int(found["locomotive"]["points"]) > 50
    assert found["locomotive"]["points_form"] == "sparse"
    assert found["locomotive"]["consistent_normals"] == "True"
    assert int(found["locomotive"]["faces"]) > 1000
    assert not found["noisy"]["faces"]
    assert "004.png: not an image" in found["broken"]["errors"]
    assert "no predicted views" in found["unpredicted"]["errors"]
    without = {name for name in found if not found[name]["psnr"]}
    assert without == {"broken", "unpredicted"} == {n for n in found if found[n]["errors"]}


@pytest.mark.slow
def test_the_single_commands_give_the_same_numbers(report: Path, capsys):
    import eval_mesh
    import eval_nvs

    row = rows(report)["locomotive"]
    true, predicted = EXAMPLES / "locomotive-gt", EXAMPLES / "locomotive-pr"
    eval_nvs.main(["--gt", str(true), "--pr", str(predicted), "--name", "x"])
    eval_mesh.main([
        "--pr_mesh", str(predicted / "mesh.ply"), "--pr_name", "x", "--gt_dir", str(true),
        "--gt_mesh", str(EXAMPLES / "locomotive-mesh" / "meshes" / "model.obj"),
        "--gt_name", "locomotive",
    ])  # fmt: skip
    nvs, mesh = (line.split("\t")[1:] for line in capsys.readouterr().out.splitlines())
    expected = [row[metric] for metric in ("psnr", "ssim", "lpips", "chamfer", "iou")]
    assert [*nvs, *mesh] == [f"{float(value):.5f}" if value else "n/a" for value in expected]


@pytest.mark.integration
def test_a_second_run_evaluates_only_what_changed(
    objects: Path, report: Path, tmp_path: Path, caplog
):
    caplog.set_level("INFO")
    root, out = tmp_path / "objects", tmp_path / "report"
    shutil.copytree(objects, root)
    shutil.copytree(report, out)
    for name in ("broken", "unpredicted", "locomotive"):
        for kind in ("gt", "pr"):
            for suffix in ("", f"-{kind}"):
                shutil.rmtree(root / kind / f"{name}{suffix}", ignore_errors=True)
    assert run(out, root) == 0
    assert caplog.text.count("unchanged") == 2
    before = rows(out)

    caplog.clear()
    shutil.copy(root / "gt" / "noisy" / "000.png", root / "pr" / "noisy" / "000.png")
    assert run(out, root) == 0
    assert "equal & <same>: unchanged" in caplog.text
    assert "noisy: unchanged" not in caplog.text
    (out / "objects" / "noisy" / "error.jpg").unlink()
    assert run(out, root) == 0
    assert (out / "objects" / "noisy" / "error.jpg").is_file()
    after = rows(out)
    assert after["noisy"]["psnr"] == "inf"
    assert after["noisy"]["psnr"] != before["noisy"]["psnr"]
    assert after["equal & <same>"] == before["equal & <same>"]


def test_tables_hold_the_papers_rows_and_ours(report: Path):
    markdown, latex = ((report / name).read_text() for name in ("table.md", "table.tex"))
    found = rows(report)
    ours = f"| a_run | inf | {float(found['mean']['ssim']):.3f} |"
    assert ours in markdown
    assert "| SyncDreamer | 20.05 | 0.798 | 0.146 | 1123 |" in markdown
    assert "| SyncDreamer | 0.0261 | 0.5421 |" in markdown
    assert "| Method | Watertight | Manifold |" in markdown
    assert "border-cropped" in markdown
    assert "sparse (triangulated features): not comparable" in markdown
    assert "Failed, in whole or in part: broken, unpredicted." in markdown
    assert r"SyncDreamer & 20.05 & 0.798 & 0.146 & 1123 \\" in latex
    assert r"a\_run & inf &" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3


def test_the_page_is_self_contained_and_every_image_in_it_is_whole(report: Path):
    page = (report / "index.html").read_text(encoding="utf-8")
    sources = re.findall(r"<(?:img|video|script|link)[^>]*?(?:src|href)=\"([^\"]*)\"", page)
    assert len(sources) == 3 * 3 + 1  # three objects with views, one video
    assert all(source.startswith("data:") for source in sources)
    for source in sources:
        kind, content = source.split(";base64,")
        if kind == "data:image/jpeg":
            with Image.open(io.BytesIO(base64.b64decode(content))) as image:
                image.load()
                assert image.width == 16 * image.height
    assert not re.search("https?://", page)
    assert "equal &amp; &lt;same&gt;" in page
    assert "<same>" not in page
    order = re.findall(r"<h2>(.*?)</h2>", page)
    assert order[:2] == ["equal &amp; &lt;same&gt;", "locomotive"]  # the best, the worst
    assert re.findall('class="tag (best|worst)"', page) == ["best", "worst"]


COUNT_IMAGES = (
    "const all = [...document.images], whole = i => i.complete && i.naturalWidth > 1000;"
    "document.title = all.filter(whole).length + '/' + all.length"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def in_chromium(page: Path, folder: Path, script: str) -> str:
    """What a script leaves as the page's title, when all is loaded."""
    watched = folder / "watched.html"
    watch = f"<script>window.addEventListener('load', () => {{ {script} }});</script>"
    text = page.read_text(encoding="utf-8").replace("</body>", watch + "</body>")
    watched.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
            watched.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return re.search(r"<title>(.*?)</title>", done.stdout)[1]


@pytest.mark.integration
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_chromium_shows_every_image_and_sorts_the_objects(report: Path, tmp_path: Path):
    shown = in_chromium(report / "index.html", tmp_path, COUNT_IMAGES)
    assert shown == "9/9"
    shown = in_chromium(
        report / "index.html",
        tmp_path,
        "const by = document.getElementById('by');"
        "const all = () => [...document.querySelectorAll('h2')].map(h => h.textContent).join('|');"
        "const choose = value => { by.value = value; by.onchange(); return all(); };"
        "const first = by.value, before = all();"
        "const worst = [...by.options].find(o => o.text == 'PSNR, worst first').value;"
        "document.title = choose(worst) + (choose(first) === before)",
    )
    assert shown.startswith("locomotive|noisy|equal &amp; &lt;same&gt;|")
    assert shown.endswith("true")


@needs_shared
@pytest.mark.slow
def test_six_scanned_objects_take_less_than_ten_minutes_and_every_image_is_shown(tmp_path: Path):
    """True renders of five against themselves, and the chicken's generated views."""
    for kind in ("gt", "pr"):
        (tmp_path / kind).mkdir()
        for name in ("alarm", "lion", "mario", "sofa", "teapot"):
            (tmp_path / kind / name).symlink_to(SHARED / "data" / "gso" / name)
        target = SHARED / "data" / "chicken" / f"chicken-{kind}"
        (tmp_path / kind / f"chicken-{kind}").symlink_to(target)
    start = time.perf_counter()
    assert run(tmp_path / "out", tmp_path) == 0
    assert time.perf_counter() - start < 600
    found = rows(tmp_path / "out")
    assert [name for name in found if found[name]["psnr"] != "inf"] == ["chicken"]
    assert all(int(row["points"]) > 0 for name, row in found.items() if name != "mean")
    if CHROMIUM is None:
        pytest.skip("needs Chromium for the page")
    shown = in_chromium(tmp_path / "out" / "index.html", tmp_path, COUNT_IMAGES)
    assert shown == "18/18"


def test_names_that_are_no_text_cost_nothing_but_themselves(tmp_path: Path, capsys):
    name = "bad\udcff\nname"
    broken = ReportRow(ObjectFiles(name, *[None] * 5), ObjectRecord("", Result(name)), tmp_path)
    write_report(tmp_path, "x", [broken, report_row("good")], [])  # both without scores
    assert "good" in rows(tmp_path)
    assert "<h2>good</h2>" in (tmp_path / "index.html").read_text()
    benchmark._print_results([broken.record], debug=False)
    assert capsys.readouterr().out.splitlines()[0].startswith("bad\\udcff\\nname\t")


def test_warnings_are_printed_and_stand_in_the_csv(tmp_path: Path, caplog):
    record = ObjectRecord("", Result("a"), warnings=["probably another frame"])
    write_report(tmp_path, "x", [ReportRow(ObjectFiles("a", *[None] * 5), record, tmp_path)], [])
    assert rows(tmp_path)["a"]["warnings"] == "probably another frame"
    benchmark._print_results([record], debug=False)
    assert "a: probably another frame" in caplog.text


def test_the_best_and_the_worst_come_first_failures_last():
    scores = {"a": 20.0, "b": None, "c": 10.0, "d": 30.0, "e": 25.0}
    report_rows = [report_row(name, psnr) for name, psnr in scores.items()]
    order, tags = best_and_worst_first(report_rows)
    assert [e.files.name for e in order] == ["d", "c", "e", "a", "b"]
    assert tags == {"d": "best", "c": "worst"}
    meshes = [report_row("a", None, 0.3), report_row("b", None, 0.1)]
    assert best_and_worst_first(meshes)[1] == {"b": "best", "a": "worst"}


def test_means_are_over_the_objects_that_have_a_score():
    mean = mean_result([Result("a", psnr=10.0, points=0), Result("b", psnr=20.0), Result("c")])
    assert (mean.psnr, mean.points, mean.ssim) == (15.0, 0.0, None)
    table = make_tables("x", mean, [Result("a", psnr=10.0), Result("b", psnr=20.0), Result("c")])[0]
    assert "over 2 objects" in table.caption


def test_error_maps_are_white_where_views_are_equal_and_dark_where_not():
    white, black = np.ones((1, 2, 2, 3)), np.zeros((1, 2, 2, 3))
    np.testing.assert_allclose(error_map(white, white), 1.0)
    assert error_map(white, black).max() < 0.3
    assert 0.4 < error_map(white, white - 0.25).mean() < 0.9


def test_self_consistency_and_hygiene_have_tables_of_their_own(tmp_path: Path):
    properties = ("watertight", "manifold", "consistent_normals", "uvs", "clean")
    hygiene = {**dict.fromkeys(properties, True), "faces": 100, "parts": 1, "debris": 0}
    results = [
        Result("a", self_psnr=30.0, self_chamfer=0.01, hygiene=hygiene),
        Result("b", self_psnr=20.0, hygiene={**hygiene, "clean": False, "faces": 300}),
        Result("c"),
    ]
    consistency, meshes = make_tables("x", mean_result(results), results)[1:]
    assert consistency.rows == (("x", "25.00", "0.0100"),)
    assert meshes.header[-2:] == ("No floating debris", "Faces, mean")
    assert meshes.rows == (("x", "2 of 2", "2 of 2", "2 of 2", "2 of 2", "1 of 2", "200"),)
    records = [ObjectRecord("", result) for result in results]
    report_rows = [
        ReportRow(ObjectFiles(record.result.name, *[None] * 5), record, tmp_path)
        for record in records
    ]
    write_report(tmp_path, "x", report_rows, [])
    found = rows(tmp_path)
    assert (found["b"]["clean"], found["b"]["faces"], found["c"]["clean"]) == ("False", "300", "")
    assert found["mean"]["self_psnr"] == "25.0"
    assert "Self-consistency PSNR 30.00" in (tmp_path / "index.html").read_text()
