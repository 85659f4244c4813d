from __future__ import annotations

import base64
import csv
import io
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

for package in ("trimesh", "embreex", "mesh2sdf", "scipy", "pycolmap", "lpips"):
    pytest.importorskip(package, reason="needs requirements/eval.txt")

from common.files import file_lock
from evaluation.benchmark import run as benchmark
from evaluation.benchmark.dataset import Finder, ObjectFiles
from evaluation.benchmark.error_maps import error_map
from evaluation.benchmark.evaluate import Record, Settings, mean_result
from evaluation.benchmark.html_report import Entry, best_and_worst_first
from evaluation.benchmark.report import write_report
from evaluation.benchmark.tables import make_tables
from evaluation.results import Result
from tests.conftest import ROOT, SHARED, needs_shared
from tests.evaluation.conftest import ring_of_views, save_views

EXAMPLES = ROOT / "eval_examples"
SETTINGS = Settings("cropped", None, None, "pycolmap", "sparse", "cpu")


def run(out: Path, root: Path, *flags: str) -> int:
    """The command's exit status."""
    try:
        benchmark.main([
            "--pr", str(root / "pr"), "--gt", str(root / "gt"), "--out", str(out),
            "--mode", "sparse", "--device", "cpu", *flags,
        ])  # fmt: skip
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good objects (the bundled one with a mesh) and two broken ones."""
    root = tmp_path_factory.mktemp("objects")
    views = ring_of_views()
    noisy = np.clip(views + np.random.default_rng(0).normal(0, 0.05, views.shape), 0, 1)
    for name, predicted in (("equal & <same>", views), ("noisy", noisy), ("broken", views)):
        save_views(root / "gt" / name, views)
        save_views(root / "pr" / name, predicted)
    (root / "pr" / "broken" / "004.png").write_bytes(b"no picture")
    save_views(root / "gt" / "unpredicted", views)
    for part in ("gt", "mesh"):
        folder = f"locomotive-{part}"
        shutil.copytree(EXAMPLES / folder, root / "gt" / folder)
    shutil.copytree(EXAMPLES / "locomotive-pr", root / "pr" / "locomotive-pr")
    (root / "pr" / "locomotive-pr" / "rendering.mp4").write_bytes(b"stands for a video")
    return root


@pytest.fixture(scope="module")
def report(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    assert run(out, objects, "--name", "a_run") == 1  # two objects are broken
    return out


def test_good_objects_are_scored_and_broken_ones_reported(report: Path):
    found = rows(report)
    assert list(found) == [
        "broken", "equal & <same>", "locomotive", "noisy", "unpredicted", "mean"
    ]  # fmt: skip
    assert found["equal & <same>"]["psnr"] == "inf"
    assert float(found["equal & <same>"]["ssim"]) == pytest.approx(1)
    assert 20 < float(found["noisy"]["psnr"]) < 30
    assert 0.8 < float(found["locomotive"]["iou"]) < 0.9
    assert int(found["locomotive"]["points"]) > 50
    assert found["locomotive"]["points_form"] == "sparse"
    assert "004.png: not an image" in found["broken"]["errors"]
    assert "no predicted views" in found["unpredicted"]["errors"]
    for name in ("broken", "unpredicted"):
        assert not found[name]["psnr"]
    for name in ("equal & <same>", "noisy", "locomotive"):
        assert not found[name]["errors"]


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


def test_run_again_it_keeps_what_is_whole_and_remakes_what_changed(
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
    assert caplog.text.count("kept, nothing has changed") == 2
    before = rows(out)

    caplog.clear()
    shutil.copy(root / "gt" / "noisy" / "000.png", root / "pr" / "noisy" / "000.png")
    assert run(out, root) == 0
    assert "equal & <same>: kept" in caplog.text
    assert "noisy: kept" not in caplog.text
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
    assert "border-cropped" in markdown
    assert "sparse (triangulated features): not comparable" in markdown
    assert "Failed, in whole or in part: broken, unpredicted." in markdown
    assert r"SyncDreamer & 20.05 & 0.798 & 0.146 & 1123 \\" in latex
    assert r"a\_run & inf &" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2


def test_the_page_is_self_contained_and_every_picture_in_it_is_whole(report: Path):
    page = (report / "index.html").read_text(encoding="utf-8")
    sources = re.findall(r"<(?:img|video|script|link)[^>]*?(?:src|href)=\"([^\"]*)\"", page)
    assert len(sources) == 3 * 3 + 1  # three objects with views, one video
    assert all(source.startswith("data:") for source in sources)
    for source in sources:
        kind, content = source.split(";base64,")
        if kind == "data:image/jpeg":
            with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
                picture.load()
                assert picture.width == 16 * picture.height
    assert "http://" not in page
    assert "https://" not in page
    assert "equal &amp; &lt;same&gt;" in page
    assert "<same>" not in page
    order = re.findall(r"<h2>(.*?)</h2>", page)
    assert order[:2] == ["equal &amp; &lt;same&gt;", "locomotive"]  # the best, the worst
    assert 'class="tag best"' in page
    assert 'class="tag worst"' in page


COUNT_PICTURES = (
    "const all = [...document.images];"
    "document.title = all.filter(i => i.complete && i.naturalWidth > 1000).length + '/' +"
    "all.length"
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


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_chromium_shows_every_picture_and_sorts_the_objects(report: Path, tmp_path: Path):
    shown = in_chromium(report / "index.html", tmp_path, COUNT_PICTURES)
    assert shown == "9/9"
    names = in_chromium(
        report / "index.html",
        tmp_path,
        "const by = document.getElementById('by');"
        "by.value = [...by.options].find(o => o.text == 'PSNR, worst first').value;"
        "by.onchange();"
        "document.title = [...document.querySelectorAll('h2')].map(h => h.textContent).join('|')",
    )
    expected = "locomotive|noisy|equal &amp; &lt;same&gt;|"
    assert names.startswith(expected)
    again = in_chromium(
        report / "index.html",
        tmp_path,
        "const by = document.getElementById('by');"
        "const names = () => [...document.querySelectorAll('h2')].map(h => h.textContent).join();"
        "const before = names(); by.selectedIndex = 1; by.onchange(); const other = names();"
        "by.selectedIndex = 0; by.onchange();"
        "document.title = [before === names(), before === other].join()",
    )
    assert again == "true,false"


def test_a_process_that_dies_is_reported_and_the_others_go_on(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(benchmark, "_evaluate", die_or_save)
    objects = [ObjectFiles(name, *[None] * 5) for name in ("dies", "lives")]
    records = benchmark.evaluate_all(objects, SETTINGS, tmp_path, workers=2)
    assert records[0].errors == {
        "crash": "the process that evaluated the object ended by exit status 3"
    }
    assert records[1].errors == {}
    entries = [
        Entry(files, record, tmp_path / files.name)
        for files, record in zip(objects, records, strict=True)
    ]
    write_report(tmp_path, "x", entries, [])
    assert "ended by exit status 3" in (tmp_path / "index.html").read_text()
    assert "ended by exit status 3" in rows(tmp_path)["dies"]["errors"]


def test_an_object_that_cannot_even_be_begun_does_not_stop_the_others(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(benchmark, "_evaluate", die_or_save)
    (tmp_path / "blocked").write_text("a file where its folder should be")
    objects = [ObjectFiles(name, *[None] * 5) for name in ("blocked", "lives")]
    blocked, lives = benchmark.evaluate_all(objects, SETTINGS, tmp_path, workers=1)
    assert "blocked" in blocked.errors["start"]
    assert lives.errors == {}


def test_a_process_killed_by_a_signal_is_named_by_it(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(benchmark, "_evaluate", kill_itself)
    (record,) = benchmark.evaluate_all(
        [ObjectFiles("dies", *[None] * 5)], SETTINGS, tmp_path, workers=1
    )
    assert record.errors["crash"].endswith("ended by signal 9")


def test_interrupting_ends_the_processes_and_leaves_no_record(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(benchmark, "_evaluate", sleep_long)
    monkeypatch.setattr(benchmark, "wait", interrupt)
    objects = [ObjectFiles(name, *[None] * 5) for name in ("a", "b")]
    with pytest.raises(KeyboardInterrupt):
        benchmark.evaluate_all(objects, SETTINGS, tmp_path, workers=2)
    assert not multiprocessing.active_children()
    assert not list(tmp_path.rglob("record.json"))


def test_files_of_others_in_the_reports_folder_are_refused_and_left(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(benchmark, "_evaluate", die_or_save)
    theirs = [tmp_path / "a" / "000.png", tmp_path / "b" / "colmap" / "mine.txt"]
    for path in theirs:
        path.parent.mkdir(parents=True)
        path.write_text("precious")
    objects = [ObjectFiles(name, *[None] * 5) for name in ("a", "b", "c")]
    a, b, c = benchmark.evaluate_all(objects, SETTINGS, tmp_path, workers=1)
    assert "holds files that no former run made, such as 000.png" in a.errors["start"]
    assert "such as colmap/mine.txt" in b.errors["start"]
    assert c.errors == {}
    assert all(path.read_text() == "precious" for path in theirs)


def test_names_that_are_no_text_cost_nothing_but_themselves(tmp_path: Path, capsys):
    name = "bad\udcff\nname"
    broken = Entry(ObjectFiles(name, *[None] * 5), Record("", Result(name)), tmp_path)
    write_report(tmp_path, "x", [broken, entry("good")], [])
    assert "good" in rows(tmp_path)
    benchmark._print_results([broken.record], debug=False)
    assert capsys.readouterr().out.splitlines()[0].startswith("bad\\udcff\\nname\t")


def test_warnings_are_printed_and_stand_in_the_csv(tmp_path: Path, caplog, capsys):
    record = Record("", Result("a"), warnings=["probably another frame"])
    write_report(tmp_path, "x", [Entry(ObjectFiles("a", *[None] * 5), record, tmp_path)], [])
    assert rows(tmp_path)["a"]["warnings"] == "probably another frame"
    benchmark._print_results([record], debug=False)
    assert "a: probably another frame" in caplog.text


def test_two_runs_into_one_report_do_not_mix(objects: Path, tmp_path: Path):
    (tmp_path / "objects").mkdir()
    with file_lock(tmp_path / "objects"), pytest.raises(OSError, match="another process"):
        run(tmp_path, objects)


def test_without_lpips_and_colmap_the_rest_is_scored_and_the_tables_say_so(
    objects: Path, tmp_path: Path, monkeypatch
):
    def missing(*_: object) -> tuple[None, str]:
        return None, "no weights"

    def no_engine(_: object) -> None:
        raise ModuleNotFoundError("no COLMAP")

    monkeypatch.setattr("evaluation.lpips.lpips_or_reason", missing)
    monkeypatch.setattr("evaluation.colmap_engines.open_engine", no_engine)
    assert run(tmp_path, objects, "--objects", "noisy") == 0
    row = rows(tmp_path)["noisy"]
    assert float(row["psnr"]) > 20
    assert (row["lpips"], row["points"]) == ("", "")
    table = (tmp_path / "table.md").read_text()
    assert "LPIPS is missing: no weights" in table
    assert "COLMAP points are missing: no COLMAP" in table


def test_the_truth_compared_with_itself_is_warned_about(tmp_path: Path):
    for kind in ("gt", "pr"):
        (tmp_path / kind).mkdir()
    save_views(tmp_path / "gt" / "a", ring_of_views())
    flags = ["--pr", str(tmp_path / "gt"), "--objects", "a"]
    assert run(tmp_path / "out", tmp_path, *flags) == 0
    assert "the predicted views are the true ones" in (tmp_path / "out/index.html").read_text()


@needs_shared
@pytest.mark.slow
def test_six_scanned_objects_take_less_than_ten_minutes_and_every_picture_is_shown(tmp_path: Path):
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
    shown = in_chromium(tmp_path / "out" / "index.html", tmp_path, COUNT_PICTURES)
    assert shown == "18/18"


def die_or_save(files: ObjectFiles, _: Settings, folder: Path, key: str, threads: int) -> None:
    if files.name == "dies":
        os._exit(3)
    Record(key, Result(files.name)).save(folder)


def kill_itself(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_long(*_: object) -> None:
    time.sleep(600)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_records_survive_their_file_and_damaged_ones_are_not_used(tmp_path: Path):
    views = {"psnr": [1.0, float("inf")]}
    record = Record("k", Result("x", psnr=float("inf"), points=3, per_view=views))
    record.save(tmp_path)
    assert Record.load(tmp_path) == record
    for text in (
        "",
        "[]",
        "{}",
        '{"key": "k", "result": {"name": "x", "psnr": "abc"}}',
        '{"key": 1, "result": {"nme": 2}}',
    ):
        (tmp_path / "record.json").write_text(text)
        assert Record.load(tmp_path) is None
    assert Record.load(tmp_path / "nowhere") is None


def test_objects_are_found_in_every_layout(tmp_path: Path):
    views = ring_of_views(16)
    true, predicted = tmp_path / "gt", tmp_path / "pr"
    for folder in ("a", "b-gt", "c/c-gt", "d", "e"):
        save_views(true / folder, views)
    for file in ("a/model.obj", "b-mesh/meshes/model.obj", "c/c-mesh/meshes/model.obj"):
        (true / file).parent.mkdir(parents=True, exist_ok=True)
        (true / file).touch()
    for folder in ("a", "b-pr", "c/c-pr"):
        save_views(predicted / folder, views)
    (predicted / "d").mkdir()
    strip = Image.new("RGB", (16 * 16, 16))
    strip.save(predicted / "d" / "0.png")
    strip.save(predicted / "e.png")
    (predicted / "notes.png").touch()
    for file in ("a/mesh.ply", "b-pr/mesh.ply", "c.ply", "e-pr.ply", "a/rendering.mp4"):
        (predicted / file).touch()
    finder = Finder(true, predicted, None)
    assert finder.names() == ["a", "b", "c", "d", "e"]
    found = {name: finder.find(name) for name in finder.names()}
    assert [found[name].predicted for name in "abcde"] == [
        predicted / path for path in ("a", "b-pr", "c/c-pr", "d/0.png", "e.png")
    ]
    assert [found[name].true for name in "abcde"] == [
        true / path for path in ("a", "b-gt", "c/c-gt", "d", "e")
    ]
    assert [found[name].mesh for name in "abcde"] == [
        predicted / "a/mesh.ply", predicted / "b-pr/mesh.ply", predicted / "c.ply", None,
        predicted / "e-pr.ply",
    ]  # fmt: skip
    assert [found[name].true_mesh for name in "abc"] == [
        true / path
        for path in ("a/model.obj", "b-mesh/meshes/model.obj", "c/c-mesh/meshes/model.obj")
    ]
    assert found["a"].video == predicted / "a/rendering.mp4"


def test_true_and_predicted_objects_may_share_a_folder():
    finder = Finder(EXAMPLES, EXAMPLES, None)
    assert finder.names() == ["locomotive"]
    files = finder.find("locomotive")
    assert (files.true, files.predicted) == (
        EXAMPLES / "locomotive-gt", EXAMPLES / "locomotive-pr",
    )  # fmt: skip


def test_meshes_may_lie_elsewhere(tmp_path: Path):
    (tmp_path / "locomotive").mkdir()
    (tmp_path / "locomotive" / "mesh.ply").touch()
    files = Finder(EXAMPLES, EXAMPLES, tmp_path).find("locomotive")
    assert files.mesh == tmp_path / "locomotive" / "mesh.ply"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "--workers must be at least 1"),
        (["--objects", "../x"], "--objects are names of folders"),
        (["--objects", ".."], "--objects are names of folders"),
        (["--objects", ""], "--objects are names of folders"),
        (["--name", "a\nb"], "not a name in one line"),
    ],
)
def test_wrong_usage_exits_2(tmp_path: Path, objects: Path, capsys, flags: list[str], message: str):
    assert run(tmp_path, objects, *flags) == 2
    assert message in capsys.readouterr().err


def test_folders_without_objects_are_an_error(tmp_path: Path):
    (tmp_path / "pr").mkdir()
    with pytest.raises(FileNotFoundError, match="gt: no such folder"):
        run(tmp_path / "out", tmp_path)
    (tmp_path / "gt").mkdir()
    with pytest.raises(FileNotFoundError, match="no folders of views"):
        run(tmp_path / "out", tmp_path)


def entry(name: str, psnr: float | None = None, chamfer: float | None = None) -> Entry:
    files = ObjectFiles(name, *[None] * 5)
    record = Record("", Result(name, psnr=psnr, chamfer=chamfer), errors={"views": "none"})
    return Entry(files, record, Path())


def test_the_best_and_the_worst_come_first_failures_last():
    entries = [entry("a", 20.0), entry("b"), entry("c", 10.0), entry("d", 30.0), entry("e", 25.0)]
    order, tags = best_and_worst_first(entries)
    assert [e.files.name for e in order] == ["d", "c", "e", "a", "b"]
    assert tags == {"d": "best", "c": "worst"}
    meshes = [entry("a", None, 0.3), entry("b", None, 0.1)]
    assert best_and_worst_first(meshes)[1] == {"b": "best", "a": "worst"}


def test_means_are_over_the_objects_that_have_a_score():
    mean = mean_result([Result("a", psnr=10.0, points=0), Result("b", psnr=20.0), Result("c")])
    assert (mean.psnr, mean.points, mean.ssim) == (15.0, 0.0, None)
    table = make_tables("x", mean, [Result("a", psnr=10.0), Result("b", psnr=20.0), Result("c")])[0]
    assert "over 2 objects" in table.caption


def test_a_report_of_failures_only_is_written(tmp_path: Path):
    write_report(tmp_path, "x", [entry("a"), entry("b")], [])
    assert "<h2>a</h2>" in (tmp_path / "index.html").read_text()


def test_error_maps_are_white_where_views_are_equal_and_dark_where_not():
    white, black = np.ones((1, 2, 2, 3)), np.zeros((1, 2, 2, 3))
    np.testing.assert_allclose(error_map(white, white), 1.0)
    assert error_map(white, black).max() < 0.3
    assert 0.4 < error_map(white, white - 0.25).mean() < 0.9
