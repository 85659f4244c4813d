"""The commands as a user types them: help, documentation, mistakes."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

import generate
from tests.conftest import ROOT, run

TOY = ROOT / "testset" / "locomotive.png"


def generate_call(output: Path, checkpoint: Path, *flags: str, cfg: str) -> list[str | Path]:
    """Arguments that make one sample of the toy."""
    return [
        "generate.py", "--cfg", f"configs/{cfg}.yaml", "--ckpt", checkpoint, "--input", TOY,
        "--output", output, "--elevation", "20", "--crop_size", "200", "--sample_num", "1", *flags,
    ]  # fmt: skip


SCRIPTS = {
    "image_to_3d.py": "--draft_steps",
    "app.py": "--max_upload_mb",
    "generate.py": "--batch_view_num",
    "foreground_segment.py": "--backend",
    "train_renderer.py": "--image_path",
    "train_syncdreamer.py": "--finetune_from",
    "train_autoencoder.py": "--resume",
    "eval_nvs.py": "--require_lpips",
    "eval_mesh.py": "--gt_mesh",
    "eval_colmap.py": "--project",
    "blender_script.py": "--camera_type",
    "render_batch.py": "--models",
}
"""Every command at the top level, with a flag of it."""


def test_every_script_is_tested_here():
    assert set(SCRIPTS) == {path.name for path in ROOT.glob("*.py")}


HEAVY = ("gradio", "lightning", "onnxruntime", "open_clip", "scipy", "skimage", "torch", "trimesh")
"""Packages that take longer to import than --help may take."""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(script: str):
    done = run("-X", "importtime", script, "--help")
    assert done.returncode == 0
    assert SCRIPTS[script] in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & set(HEAVY)


PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("ckpt", "demo", "eval_examples")),
]


def page_text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def notebook_text(path: Path) -> str:
    """The code of a notebook; what it runs in a shell is a line like those of the pages."""
    cells = json.loads(page_text(path))["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in cell["source"]]
    return re.sub("^!", "", "".join(f"{line.rstrip()}\n" for line in lines), flags=re.M)


def documented_commands() -> list[list[str]]:
    texts = [*map(page_text, PAGES), *map(notebook_text, (ROOT / "docs").glob("*.ipynb"))]
    joined = "\n".join(texts).replace("\\\n", " ")
    pattern = r"(?:^ *|`)(?:\.venv/bin/)?python ((?:-m )?[\w.]+[^`\n]*)"
    found = re.findall(pattern, joined, flags=re.M)
    pattern = r"^ *blender --background --python (\S+) -- (.*)$"
    found += map(" ".join, re.findall(pattern, joined, re.M))
    return [shlex.split(line, comments=True) for line in found]


def test_every_documented_command_parses_and_its_files_exist():
    commands = documented_commands()
    assert {command[0] for command in commands} >= set(SCRIPTS)
    for script, *arguments in commands:
        if script == "-m":
            name, *arguments = arguments
            if name in ("pip", "pytest", "venv"):
                continue
            path = ROOT / name.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name
            name += "" if path.with_suffix(".py").exists() else ".__main__"
        else:
            assert script in SCRIPTS
            name = script.removesuffix(".py")
        module = importlib.import_module(name)
        if not hasattr(module, "build_parser"):
            continue
        args = module.build_parser().parse_args(arguments)
        if script in ("foreground_segment.py", "image_to_3d.py"):  # their photos are the user's
            continue
        inputs = ("cfg", "base", "image_path", "input")
        for flag in (*inputs, "gt", "pr", "pr_mesh", "gt_mesh", "gt_dir", "dir"):
            paths = getattr(args, flag, None) or []
            for path in paths if isinstance(paths, list) else [paths]:
                needed = path.is_relative_to("eval_examples") or flag in ("cfg", "base", "input")
                assert path.exists() or not needed, (name, path)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"```.*?```", "", page_text(page), flags=re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_local_link_of_a_page_leads_to_a_file_and_a_heading(page: Path):
    links = re.findall(r"\]\(([^)#:]*)(?:#([\w-]+))?\)", page_text(page))
    links += [(source, "") for source in re.findall(r'<img src="([^":]+)"', page_text(page))]
    for link, anchor in links:
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), (link, anchor)


def test_the_readme_leads_to_every_page():
    linked = re.findall(r"\]\(([^)#:]+)", page_text(ROOT / "README.md"))
    assert {(ROOT / link).resolve() for link in linked} >= set(PAGES[1:])


def test_every_requirement_is_imported_and_every_import_required():
    """What evaluates, renders, trains and makes toys has a file of requirements of its own each."""
    evaluating = {*ROOT.glob("eval_*.py"), *(ROOT / "evaluation").rglob("*.py")}
    training = {ROOT / "train_syncdreamer.py", *(ROOT / "ldm" / "training").glob("*.py")}
    packages = {path.parent for path in ROOT.glob("*/__init__.py")} - {
        ROOT / "tests", ROOT / "comfyui",  # its packages are ComfyUI's
    }  # fmt: skip
    others = {*ROOT.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))}
    others -= evaluating | training
    runtime = required("requirements.txt")
    assert imported_by(training) - runtime == required("requirements/train.txt")
    # nvdiffrast is optional and on no package index
    assert imported_by(evaluating) - {"nvdiffrast"} - runtime == required("requirements/eval.txt")
    extras = set().union(*(required(f"requirements/{name}.txt") for name in EXTRAS))
    assert extras <= imported_by(others)
    # Gradio brings FastAPI, Starlette, Pydantic and uvicorn, Blender bpy and mathutils, OmegaConf
    # PyYAML; carvekit, which has old pins, matplotlib and pillow_heif are optional
    brought = {"fastapi", "starlette", "pydantic", "uvicorn", "bpy", "mathutils", "pyyaml"}
    brought |= {"carvekit", "matplotlib", "pillow_heif"}
    assert imported_by(others) - extras - brought == runtime


EXTRAS = ("render", "demo", "app", "export")


def required(file: str) -> set[str]:
    lines = (ROOT / file).read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith(("#", "-"))]
    return {re.split(r"[<>=~!\[; ]", line)[0].lower().replace("-", "_") for line in lines}


def imported_by(paths: set[Path]) -> set[str]:
    """Third-party packages under the names by which they are installed."""
    sold_as = {
        "PIL": "pillow", "open_clip": "open_clip_torch", "yaml": "pyyaml",
        "skimage": "scikit_image", "pxr": "usd_core", "imageio_ffmpeg": "imageio",
    }  # fmt: skip
    statement = re.compile(
        r"^(?:\s*from|\s*import) (\w+)[\w.]*(?: import .*| as .*)?$|\bimport_optional\(\s*\"(\w+)"
        r"|\(\"(\w+)[\w.]*\", \"the ",
        re.M,
    )
    found = [match for path in paths for match in statement.finditer(path.read_text())]
    names = {match[match.lastindex] for match in found if match.lastindex}
    own = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    return {sold_as.get(name, name) for name in names - own - set(sys.stdlib_module_names)}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--elevation", "60"], "outside [-10, 40]"),
        (["--cfg_scale", "0.5"], "the input is weakened"),
        (["--cfg_scale", "0"], "the input is ignored"),
        (["--cfg_scale", "-1"], "the input is inverted"),
    ],
)
def test_doubtful_values_are_warned_about(caplog, flags, message):
    generate.parse(["--input", str(TOY), "--output", "x", "--elevation", "20", *flags])
    assert message in caplog.text


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Name -> (flags that differ from a good call, part of the message)."""

    def image(name: str, picture: Image.Image) -> list[str]:
        picture.save(folder / name)
        return ["--input", str(folder / name)]

    text = folder / "text.png"
    text.write_text("hello")
    cut = folder / "cut.png"
    cut.write_bytes(TOY.read_bytes()[:9000])
    pointer = folder / "pointer.ckpt"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    config = folder / "typo.yaml"
    config.write_text("model:\n  unet:\n    chanels: 64\n")
    blocked = folder / "blocked"
    blocked.write_text("a file")
    dot = Image.new("RGBA", (64, 64))
    dot.putpixel((5, 5), (255, 0, 0, 255))
    return {
        "missing": (["--input", str(folder / "no.png")], "no.png: no such file"),
        "text": (["--input", str(text)], "not an image"),
        "cut": (["--input", str(cut)], "damaged or cut off"),
        "no alpha": (image("rgb.png", Image.new("RGB", (64, 64))), "foreground_segment.py"),
        "transparent": (image("empty.png", Image.new("RGBA", (64, 64))), "fully transparent"),
        "one pixel": (image("dot.png", dot), "1 x 1 pixels"),
        "no checkpoint": (["--ckpt", str(folder / "no.ckpt")], "no such checkpoint"),
        "pointer": (["--ckpt", str(pointer)], "git-lfs pointer"),
        "config": (["--cfg", str(config)], "chanels"),
        "set": (["--set", "model.chanels=3"], "chanels"),
        "sizes": (["--set", "model.unet.heads=0"], "UNetConfig.heads must be positive"),
        "no config": (["--cfg", str(folder / "no.yaml")], "no such configuration"),
        "blocked": (["--output", str(blocked / "x")], "cannot be written to"),
        "device": (["--device", "cuda:77"], "cuda:77"),
    }


@pytest.mark.integration
def test_bad_input_gets_one_clear_line_exit_1_and_no_output(tmp_path: Path, tiny_checkpoint: Path):
    """One process for all cases: importing torch takes most of the time."""
    cases = bad_inputs(tmp_path)
    _, *good = generate_call(tmp_path / "out", tiny_checkpoint, "--device", "cpu", cfg="tiny")
    code = (
        "import json, sys, generate; from common.cli import run_script\n"
        "for case in json.load(sys.stdin):\n"
        "    sys.argv = ['generate.py', *case]\n"
        "    try: run_script(generate.main)\n"
        "    except SystemExit as end: print(f'exit {end.code}', file=sys.stderr, flush=True)\n"
        "    else: print('exit 0', file=sys.stderr, flush=True)\n"
    )
    calls = [[*map(str, good), *flags] for flags, _ in cases.values()]
    done = run("-c", code, input=json.dumps(calls))
    answers = re.split(r"^exit (\d+)\n", done.stderr, flags=re.M)
    assert len(answers) == 2 * len(cases) + 1, done.stderr
    for i, (name, (_, message)) in enumerate(cases.items()):
        said, code = answers[2 * i], answers[2 * i + 1]
        errors = [line for line in said.splitlines() if line.startswith("ERROR")]
        assert code == "1", (name, said)
        assert len(errors) == 1, (name, said)
        assert message in errors[0], (name, said)
        assert "Traceback" not in said
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.integration
def test_the_whole_command_runs_from_another_process(tmp_path: Path, tiny_checkpoint: Path):
    flags = ("--sample_steps", "2", "--save_views", "--preview")
    arguments = generate_call(tmp_path, tiny_checkpoint, *flags, cfg="tiny")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "15 M parameters" in done.stderr
    assert "peak" in done.stderr
    first = (tmp_path / "0.png").read_bytes()
    again = run(*arguments, "--overwrite")
    assert again.returncode == 0
    assert "wrote" in again.stderr
    assert (tmp_path / "0.png").read_bytes() == first
    views = [f"{number:03d}.png" for number in range(16)]
    assert sorted(path.name for path in (tmp_path / "0").iterdir()) == [*views, "transforms.json"]


@pytest.mark.integration
def test_a_full_disk_leaves_no_half_file(tmp_path: Path, tiny_checkpoint: Path):
    """A limit on the size of files stands for the full disk: the write itself fails."""
    pytest.importorskip("resource")
    code = (
        "import resource, signal, sys, generate; from common.cli import run_script\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "run_script(generate.main)\n"
    )
    _, *arguments = generate_call(tmp_path / "out", tiny_checkpoint, cfg="tiny")
    done = run("-c", code, *arguments, "--sample_steps", "1")
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.fixture(scope="module")
def full_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full-size checkpoint of random weights, 5.6 GB."""
    path = tmp_path_factory.mktemp("full") / "seeded.ckpt"
    assert run("-m", "tests.reference.seeded_weights", "--out", path).returncode == 0
    return path


@pytest.mark.slow
def test_the_full_size_model_runs_and_repeats_itself(tmp_path: Path, full_checkpoint: Path):
    flags = ("--sample_steps", "2")
    arguments = generate_call(tmp_path, full_checkpoint, *flags, cfg="syncdreamer")
    strips = []
    for extra in ([], ["--overwrite"]):
        done = run(*arguments, *extra)
        assert done.returncode == 0, done.stderr
        assert "wrote" in done.stderr
        strips.append((tmp_path / "0.png").read_bytes())
    assert strips[0] == strips[1]
    with Image.open(tmp_path / "0.png") as image:
        assert image.size == (4096, 256)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_loading_takes_hardly_more_memory_than_the_weights_in_use(
    full_checkpoint: Path, dtype: str, suffix: str
):
    path = full_checkpoint.with_suffix(suffix)
    if not path.exists():
        assert run("-m", "ldm.checkpoint", "convert", full_checkpoint, path).returncode == 0
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's /proc to measure the memory of a process")
    code = """
import sys, torch
from pathlib import Path
from ldm.checkpoint.load import DTYPES, empty_model, load_model
from ldm.config import SyncDreamerConfig

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

config = SyncDreamerConfig()
empty_model(config)  # imports everything
Path("/proc/self/clear_refs").write_text("5")
before = peak()
model = load_model(config, Path(sys.argv[1]), torch.device("cpu"), DTYPES[sys.argv[2]])
for weight in model.parameters():  # mapped weights count when they are used
    weight.max()
print((peak() - before) / sum(weight.nbytes for weight in model.parameters()))
"""
    done = run("-c", code, path, dtype)
    assert done.returncode == 0, done.stderr
    assert 0.9 < float(done.stdout) < 1.25


@pytest.mark.slow
def test_bfloat16_with_four_views_at_once_takes_6_gigabytes(tmp_path: Path, full_checkpoint: Path):
    """Of the process's memory on the CPU, which holds Python and torch too."""
    arguments = generate_call(tmp_path, full_checkpoint, "--device", "cpu", cfg="syncdreamer")
    done = run(*arguments, "--sample_steps", "1", "--batch_view_num", "4", "--dtype", "bf16")
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"peak memory of the process ([\d.]+) GiB", done.stderr)[1]) < 6
