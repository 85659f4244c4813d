from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from common.config import check_positive, load_config


@dataclass(frozen=True)
class Inner:
    steps: int = 5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_and_overrides_become_a_frozen_dataclass(tmp_path: Path):
    path = write(tmp_path / "c.yaml", "inner:\n  steps: 7\n")
    assert load_config(Outer, path) == Outer(Inner(7))
    assert load_config(Outer, path, ["inner.steps=9"]) == Outer(Inner(9))
    assert load_config(Outer, write(tmp_path / "empty.yaml", "")) == Outer()


@pytest.mark.parametrize(
    ("encoding", "message"), [("utf-16", "is UTF-16"), ("latin-1", "line 2 is not UTF-8")]
)
def test_a_file_of_another_encoding_is_refused_with_advice(tmp_path: Path, encoding, message):
    path, text = tmp_path / "c.yaml", "inner:\n  steps: 7 # été\n"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=rf"c\.yaml: {message}; save the file as UTF-8$"):
        load_config(Outer, path)
    path.write_bytes(text.encode("utf-8-sig"))
    assert load_config(Outer, path) == Outer(Inner(7))


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("inner:\n  stepps: 7\n", [], "stepps"),
        ("inner:\n  steps: many\n", [], "many"),
        ("inner:\n  steps: 0\n", [], "at least 1"),
        ("inner: [\n", [], "c.yaml"),
        ("- 1\n", [], "is no configuration: expected names and values"),
        ("<html></html>\n", [], "is no configuration"),
        ("a: 1\na: [\n", [], "not valid YAML in line 3"),
        ("inner:\n  steps: 1.5\n", [], "inner.steps"),
        ("model:\n  target: ldm.models.A\n", [], "configuration of the published code"),
        ("", ["inner.stepps=3"], "stepps"),
        ("", ["inner.steps=x"], "x"),
    ],
)
def test_mistakes_in_a_configuration_name_the_file(tmp_path: Path, text, overrides, message):
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(ValueError, match=message) as caught:
        load_config(Outer, path, overrides)
    assert "c.yaml" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"no\.yaml"):
        load_config(Outer, tmp_path / "no.yaml")


@dataclass(frozen=True)
class Data:
    source: str = ""
    folder: Path = Path()
    count: int = 1
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Settings:
    data: Data = field(default_factory=Data)


@pytest.mark.parametrize("name", ["source", "folder"])
@pytest.mark.parametrize(
    "value",
    ["/a/set #1", "2024_11_27", "007", "1e3", "yes", "null", "12:30:00", "{a}", "[1", "a: b", "a=b",
     " a", "~", "${HOME}", "it's", "C:\\new", "0x10", "- a", "*a", "!a", "@x", "'"],
)  # fmt: skip
def test_a_text_or_path_is_taken_as_it_stands(tmp_path: Path, name: str, value: str):
    config = load_config(Settings, write(tmp_path / "c.yaml", ""), [f"data.{name}={value}"])
    assert str(getattr(config.data, name)) == value


def test_texts_in_a_file_are_not_taken_for_numbers(tmp_path: Path):
    for value in ("2024_11_27", "007", "1e3", "yes", "12:30:00"):
        path = write(tmp_path / "c.yaml", f"data:\n  source: {value}  # a comment\n  count: 0x10\n")
        assert load_config(Settings, path) == Settings(Data(value, count=16))


def test_other_values_are_yaml_and_quotes_around_a_text_are_removed(tmp_path: Path):
    path = write(tmp_path / "c.yaml", "data: {source: b}")
    overrides = ["data.source=''", "data.count=1_0", "data.kind=b"]
    assert load_config(Settings, path, overrides) == Settings(Data("", count=10, kind="b"))
    assert load_config(Settings, path, ['data.source="#1"']).data.source == "#1"
    assert load_config(Settings, path, ["data.source=a", "data.source="]).data.source == ""
    assert load_config(Settings, path, ["data={source: c}"]).data.source == "c"


@dataclass(frozen=True)
class Sizes:
    width: int = 1
    channels: tuple[int, ...] = (1, 2)
    skip_levels: tuple[int, ...] = (0, 1)
    fast: bool = False


@pytest.mark.parametrize("sizes", [Sizes(width=0), Sizes(channels=(3, -1))])
def test_whole_numbers_below_one_are_refused(sizes: Sizes):
    with pytest.raises(ValueError, match=r"Sizes\.(width|channels) must be positive"):
        check_positive(sizes, from_zero=["skip_levels"])


def test_fields_count_from_zero_only_where_they_are_named():
    check_positive(Sizes(), from_zero=["skip_levels"])
    with pytest.raises(ValueError, match=r"Sizes\.skip_levels must be positive"):
        check_positive(Sizes())
    with pytest.raises(ValueError, match=r"Sizes\.skip_levels must be 0 or more"):
        check_positive(Sizes(skip_levels=(0, -1)), from_zero=["skip_levels"])
