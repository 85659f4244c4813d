"""The project as a package: what pip reads, and the public Python API."""

from __future__ import annotations

import re
import shutil
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest

from syncdreamer.__main__ import COMMANDS
from tests.conftest import ROOT, run

EXTRAS = ("app", "demo", "dev", "eval", "export", "render", "train")


def listed(file: str) -> set[str]:
    lines = (ROOT / file).read_text().splitlines()
    return {name(line) for line in lines if line and not line.startswith("#")}


def name(requirement: str) -> str:
    return re.split(r"[\[<>=~!; ]", requirement)[0].lower().replace("_", "-")


def test_pip_reads_the_requirements_and_the_extras_from_their_files(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    for path in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / path, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").touch()
    code = "import setuptools.build_meta as b; print(b.prepare_metadata_for_build_wheel('.'))"
    done = run("-c", code, cwd=tmp_path, check=True)
    folder = tmp_path / done.stdout.splitlines()[-1]
    metadata = Parser().parsestr((folder / "METADATA").read_text())
    assert metadata["Name"] == "syncdreamer"
    assert sorted(metadata.get_all("Provides-Extra")) == list(EXTRAS)
    found: dict[str, set[str]] = {}
    for line in metadata.get_all("Requires-Dist"):
        extra = re.search(r'extra == "(\w+)"', line)
        found.setdefault(extra[1] if extra else "", set()).add(name(line))
    assert found[""] == listed("requirements.txt")
    for extra in set(EXTRAS) - {"dev"}:
        assert found[extra] == listed(f"requirements/{extra}.txt")
    included = [f"requirements/{extra}.txt" for extra in set(EXTRAS) - {"render"}]
    assert found["dev"] == set().union(*map(listed, included))


@pytest.mark.integration
def test_a_wheel_has_all_that_a_command_needs_in_any_folder(tmp_path):
    """A mesh by the installed wheel; its dependencies are those of this environment."""
    pytest.importorskip("setuptools", minversion="77")
    source, site = tmp_path / "source", tmp_path / "site"
    not_built = shutil.ignore_patterns(
        ".*", "tests", "docs", "output", "testset", "eval_examples", "build", "*.egg-info",
        "__pycache__", "*.ckpt", "*.onnx", "syncdreamer-pretrain*",
    )  # fmt: skip
    shutil.copytree(ROOT, source, ignore=not_built)
    code = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    built = run("-c", code, cwd=source, check=True).stdout.splitlines()[-1]
    zipfile.ZipFile(source / built).extractall(site)
    (entry,) = site.glob("*.dist-info/entry_points.txt")
    assert "syncdreamer = syncdreamer.__main__:main" in entry.read_text()

    flags = ["--output", "out", "--elevation", "20", "--sample_num", "1", "--sample_steps", "1"]
    command = ["-m", "syncdreamer", "generate", "--input", ROOT / "testset/cactus.png", *flags]
    done = run(*command, cwd=tmp_path, env={"PYTHONPATH": str(site)})
    assert done.returncode == 0, done.stderr
    assert f"{site}/ckpt/syncdreamer-demo.safetensors" in done.stderr
    assert (tmp_path / "out" / "0.png").exists()


@pytest.mark.integration
def test_the_command_names_those_that_there_are():
    for module in COMMANDS.values():
        found = find_spec(module)
        assert found is not None
        assert "\ndef main(" in Path(str(found.origin)).read_text()
    wrong = run("-m", "syncdreamer", "image-to-3d")
    assert wrong.returncode == 2
    assert "image_to_3d" in wrong.stderr
    helped = run("-m", "syncdreamer", "generate", "--help")
    assert helped.stdout.startswith("usage: syncdreamer generate ")


def test_every_package_is_installed():
    text = (ROOT / "pyproject.toml").read_text()
    scripts = {path.stem for path in ROOT.glob("*.py")}
    listed = set(re.findall(r'"(\w+)"', text.split("py-modules = [")[1].split("]")[0]))
    assert listed == scripts
    include = text.split("[tool.setuptools.packages.find]")[1].split("]")[0]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    found = {name[:-1] for name in re.findall(r'"(\w+\*)"', include)}
    assert found == packages - {"tests", "docs", "benchmarks", "comfyui"}


@pytest.mark.integration
def test_the_api_is_imported_from_syncdreamer_without_what_needs_an_extra(tmp_path):
    code = (
        "import sys, syncdreamer\n"
        "missing = [n for n in syncdreamer.__all__ if not hasattr(syncdreamer, n)]\n"
        "extra = {'lightning', 'gradio', 'pycolmap', 'lpips', 'ray', 'manifold3d', 'embreex'}\n"
        "extra |= {'pxr'}\n"
        "assert not missing and not extra & set(sys.modules), (missing, extra & set(sys.modules))\n"
    )
    done = run("-c", code, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


def test_targets_and_paths_that_contributing_names_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = " ".join(re.findall(r"^    make ([\w -]+?)\s+#", text, re.M)).split()
    assert {"lint", "types", "test", "test-all"} <= set(named) <= targets
    for path in re.findall(r"`([\w/]+(?:\.py|/))`", text):
        assert (ROOT / path).exists() or list(ROOT.glob(f"*/{path}")), path
