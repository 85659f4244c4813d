"""The image's definition: linted, and what it names is there. Nothing is built."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    split = [line.split(" ", 1) for line in text.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, rest in split]


def defaults() -> dict[str, str]:
    """What the ARG lines say."""
    found = [text.partition("=") for name, text in instructions() if name == "ARG"]
    return {name: value.strip('"') for name, _, value in found}


def commands() -> list[list[str]]:
    """The commands of the RUN lines, with the defaults put in."""
    text = "\n".join(text for name, text in instructions() if name == "RUN")
    for name, value in defaults().items():
        text = text.replace(f"${{{name}}}", value)
    return [shlex.split(part) for part in re.split(r"&&|\n", text)]


def test_root_does_not_run_it():
    names = [name for name, _ in instructions()]
    assert [text for name, text in instructions() if name == "USER"] == ["1000:1000"]
    assert "RUN" not in names[names.index("USER") :]


def test_what_is_copied_is_there():
    stages = {text.split(" AS ")[1] for name, text in instructions() if " AS " in text}
    copies = [shlex.split(text) for name, text in instructions() if name == "COPY"]
    assert copies
    for copy in copies:
        if copy[0].startswith("--from="):
            assert copy[0].removeprefix("--from=") in stages
            continue
        for source in copy[:-1]:
            assert (ROOT / source).exists(), source
            assert source == "." or comes_along(source), f"{source} is left out by .dockerignore"


def allowed() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"  # all that is not allowed is left out
    return [line[1:] for line in lines if line.startswith("!")]


def comes_along(path: str) -> bool:
    return any(Path(path).match(pattern) or path.split("/")[0] == pattern for pattern in allowed())


def test_what_the_commands_need_comes_into_the_image_and_nothing_else():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "comfyui"}
    scripts = {path.name for path in ROOT.glob("*.py")}
    for name in packages | scripts | {"configs", "testset", "eval_examples", "validation_set"}:
        assert comes_along(name), f"{name} is left out by .dockerignore"
    for name in ("ckpt/syncdreamer-demo.safetensors", "output/x.png", ".venv/bin/python", ".git"):
        assert not comes_along(name), name
    for pattern in allowed():
        assert list(ROOT.glob(pattern)), f".dockerignore names {pattern}, which is not there"


def test_the_command_that_it_begins_with_is_there():
    (entry,) = [text for name, text in instructions() if name == "ENTRYPOINT"]
    (given,) = [text for name, text in instructions() if name == "CMD"]
    assert entry == '["python"]'
    assert (ROOT / given.strip("[]").split(",")[0].strip('"')).is_file()


@pytest.mark.integration
def test_the_system_has_the_packages_by_these_names():
    if shutil.which("apt-get") is None:
        pytest.skip("this is not Debian or Ubuntu")
    if subprocess.run(["apt-cache", "show", "python3"], capture_output=True).returncode:
        pytest.skip("apt has no lists here: apt-get update has not been run")
    installs = [c for c in commands() if c[:2] == ["apt-get", "install"]]
    assert len(installs) == 2
    for command in installs:
        simulated = [command[0], "--simulate", *command[1:]]
        done = subprocess.run(simulated, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_documented_commands_build_and_run_this():
    joined = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8").replace("\\\n", " ")
    assert "docker build -t syncdreamer ." in joined
    runs = [shlex.split(line) for line in re.findall(r"^docker run .*$", joined, re.M)]
    assert any("--gpus" in run for run in runs)
    assert any("--gpus" not in run for run in runs)
    for run in runs:
        first, second = run[run.index("syncdreamer") + 1 :][:2]
        path = f"{second.replace('.', '/')}/__main__.py" if first == "-m" else first
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"--build-arg (\w+)=", joined):
        assert name in defaults(), name
