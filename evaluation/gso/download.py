"""Download the paper's 30 evaluation objects: 16 renders and a mesh each.

    python -m evaluation.gso download

fetches them (70 MB) by git from a public repository, at a fixed commit, or takes a copy (--from);
makes the depth maps from the meshes; checks that silhouettes and renders agree; and writes
CREDITS.md and objects.json. Objects whose mesh cannot be read are named; their views can be
evaluated. A second run fetches nothing.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import HelpFormatter, add_common_flags, advise
from common.devices import pick_device
from common.files import atomic_write, check_free_space, file_lock, sha256
from common.records import Record, make_writable, write_json

if TYPE_CHECKING:
    from evaluation.gso.objects import ImportedObject

log = logging.getLogger(__name__)

URL = "https://github.com/byeongjun-park/HarmonyView.git"
COMMIT = "c4ac45037107f21c9568599c0b68fc6b88aee4ca"
FOLDER = "gso-eval"
OUTPUT = Path("output/gso")
REPOSITORY, RECORD, CREDITS = ".repository", "objects.json", "CREDITS.md"
NEEDED_BYTES = 250 * 2**20
"""Of the repository, the objects and their depth maps."""

CREDITS_TEXT = """# Credits

The objects are of *Google Scanned Objects: A High-Quality Dataset of 3D Scanned Household
Items* (Downs et al., ICRA 2022, arXiv 2204.11918), by Google LLC, under the licence
[CC-BY 4.0](https://creativecommons.org/licenses/by/4.0/).

The renders are the evaluation set of SyncDreamer (arXiv 2309.03453). Source: {source}

Changes: the depth maps NNN-depth.png and true_mesh.ply (the mesh in the frame of the renders) were
computed from model.obj.

Objects: {names}
"""


def commit_hash(text: str) -> str:
    """Check a full commit hash, for argparse."""
    if not re.fullmatch(r"[0-9a-f]{40}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a commit hash of 40 digits")
    return text


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    text: dict[str, Any] = {"description": __doc__, "formatter_class": HelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m evaluation.gso", **text)
    commands = parser.add_subparsers(dest="command", required=True)
    download = commands.add_parser("download", help="fetch and check the objects", **text)
    add = download.add_argument
    add("--output", type=Path, default=OUTPUT, help="folder of the objects")
    add("--from", type=Path, dest="source", metavar="FOLDER",
        help="a copy of the objects, instead of the network")  # fmt: skip
    add("--url", default=URL, help=f"git repository with the folder {FOLDER}")
    add("--commit", type=commit_hash, default=COMMIT, help="of the repository")
    add_common_flags(download)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = build_parser().parse_args(argv)
    output: Path = args.output
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output}: --output must be a folder, this is a file")
    make_writable(output, output)
    with file_lock(output / RECORD, wait=False):
        if args.source is not None:
            _import_all(args.source, "a copy of the objects", output, args.device)
            return
        source = f"{args.url}, folder {FOLDER}, commit {args.commit}"
        if _is_complete(output, source):
            log.info("%s: has all objects already; nothing was fetched", output)
            return
        from evaluation.gso.repository import FetchError, fetch_folder

        check_free_space(output, NEEDED_BYTES)
        log.info("fetching the objects, 70 MB, from %s", source)
        advice = f"; or give a copy of its folder {FOLDER} by --from"
        with advise(advice, FetchError):
            folder = fetch_folder(args.url, args.commit, FOLDER, output / REPOSITORY)
        _import_all(folder, source, output, args.device)
        shutil.rmtree(output / REPOSITORY, ignore_errors=True)


def _record(output: Path) -> Record:
    return Record(output / RECORD, "files", ("settings", "objects"))


def _is_complete(output: Path, source: str) -> bool:
    """Whether all objects of this source are there, unchanged."""
    record = _record(output)
    files = [output / name for name in (record.read() or {}).get("files", ())]
    now = {"settings": {"source": source}}
    return record.current(files, now, lambda: _checksums(output, files)) is not None


def _checksums(output: Path, files: list[Path]) -> dict[str, str]:
    return {path.relative_to(output).as_posix(): sha256(path) for path in files}


def _import_all(folder: Path, source: str, output: Path, device_name: str) -> None:
    """Import all objects of a folder, and write the credits and the record."""
    from tqdm import tqdm

    from evaluation.benchmark.dataset import BenchmarkDataset
    from evaluation.gso.objects import import_object

    dataset, device = BenchmarkDataset([folder], [folder], None), pick_device(device_name)
    names = [name for name in dataset.names() if dataset.find(name).true]
    if not names:
        raise FileNotFoundError(f"{folder}: no objects, expected <name>/000.png .. 015.png")
    imported: list[ImportedObject] = []
    failed = 0
    for name in tqdm(names, "objects", disable=None):
        try:
            advice = f"; remove {output / name}, or choose another folder for --output"
            with advise(advice, FileExistsError):
                imported.append(import_object(dataset.find(name), output / name, device))
        except (ValueError, FileNotFoundError, FileExistsError) as error:
            log.error("%s: left out: %s", name, error)
            failed += 1
            continue
        if imported[-1].warning:
            log.warning("%s", imported[-1].warning)
    kept = [each.name for each in imported]
    credits_text = CREDITS_TEXT.format(source=source, names=", ".join(kept))
    with atomic_write(output / CREDITS) as temporary:
        temporary.write_text(credits_text, encoding="utf-8")
    if failed:
        log.error("%d of %d objects were left out", failed, len(names))
        sys.exit(1)
    files = [path for name in kept for path in sorted((output / name).iterdir())]
    content = {
        "settings": {"source": source},
        "objects": {each.name: asdict(each) for each in imported},
        "files": _checksums(output, [*files, output / CREDITS]),
    }
    write_json(output / RECORD, content)
    meshes = sum(not each.mesh_problem for each in imported)
    log.info("%s: %d objects, %d with a mesh and depth maps", output, len(imported), meshes)
