from __future__ import annotations

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evaluation.results import COLUMNS, Result, append_result, check_log, read_log, table_row

ROW = Result("toy", psnr=float("inf"), ssim=0.5, ssim_form="cropped", per_view={"psnr": [1.0, 2.0]})


def test_rows_are_separated_by_tabs_with_five_decimals():
    row = table_row("toy", 25.4129061, None, 1123, float("inf"))
    assert row == "toy\t25.41291\tn/a\t1123\tinf"


@pytest.mark.parametrize("name", ["log.csv", "log.json"])
def test_rows_are_appended_and_none_is_lost(tmp_path: Path, name: str):
    path = tmp_path / name
    append_result(path, ROW)
    append_result(path, Result("mesh", chamfer=0.0261, iou=0.5421))
    rows = read_log(path)
    assert [row["name"] for row in rows] == ["toy", "mesh"]
    assert float(rows[0]["psnr"]) == float("inf")
    assert float(rows[1]["chamfer"]) == 0.0261
    assert set(COLUMNS) <= set(rows[0])
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [name]


def test_json_logs_are_strict_and_keep_the_views_and_csv_logs_quote_names(tmp_path: Path):
    append_result(tmp_path / "log.json", ROW)
    rows = json.loads((tmp_path / "log.json").read_text(), parse_constant=pytest.fail)
    assert rows[0]["psnr"] == "inf"
    assert rows[0]["per_view"] == {"psnr": [1.0, 2.0]}
    for name in ('a, "b"', "plain"):
        append_result(tmp_path / "log.csv", Result(name, points=3))
    with (tmp_path / "log.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ['a, "b"', "plain"]


@pytest.mark.parametrize("name", ["log.csv", "log.json"])
def test_rows_appended_at_the_same_time_are_all_there(tmp_path: Path, name: str):
    results = [Result(f"run {i}", points=i) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda result: append_result(tmp_path / name, result), results))
    assert {int(row["points"]) for row in read_log(tmp_path / name)} == set(range(40))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", "a,b\n1,2\n", "expected the columns name,psnr"),
        ("log.csv", ",".join(COLUMNS) + "\ntoy,1\n", "more or fewer values"),
        ("log.json", "{}", "expected a list of objects"),
        ("log.json", "[1", "is not a log of this project"),
        ("log.txt", "", "a .csv or a .json file"),
    ],
)
def test_files_of_another_kind_are_refused_and_left_as_they_are(
    tmp_path: Path, name: str, content: str, message: str
):
    path = tmp_path / name
    path.write_text(content)
    for use in (check_log, lambda path: append_result(path, ROW)):
        with pytest.raises(ValueError, match=message) as caught:
            use(path)
        assert name in str(caught.value)
    assert path.read_text() == content


def test_a_link_to_a_log_stays_one_and_folders_are_noticed_before_the_work(tmp_path: Path):
    (tmp_path / "link.csv").symlink_to("real.csv")
    append_result(tmp_path / "link.csv", ROW)
    assert (tmp_path / "link.csv").is_symlink()
    assert len(read_log(tmp_path / "real.csv")) == 1
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(ValueError, match=r"log\.csv"):
        check_log(tmp_path / "log.csv")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        check_log(tmp_path / "nowhere" / "log.csv")
