"""Pack a training set into tar shards, and check shards.

    python -m ldm.shards pack training_examples shards
    python -m ldm.shards check shards

A shard is a plain tar file in WebDataset's convention: the files of an object are consecutive and
share the name up to the first dot: <uid>.meta.json, then <uid>.target.000.png and so on, then
<uid>.input.000.png and so on. Names with a dot, or of more than 80 bytes, are shortened and end in
a checksum there; the index has all names in full. The PNG files are copied byte for byte; of
meta.pkl only the numbers are kept, as JSON, so that a shard has no pickle. Equal trees give equal
shards.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.cli import run_script
from common.files import atomic_write, file_lock, sha256
from ldm.data.folder import FolderDataset, read_file
from ldm.data.samples import EncodedFile, check_views, located
from ldm.data.shard_dataset import (
    BLOCK,
    FORMAT,
    INDEX,
    FileReader,
    Index,
    Shard,
    member_names,
    padded_size,
    read_elevations,
    read_index,
    split_object,
)

log = logging.getLogger(__name__)

KINDS = ("target", "input")
UNFINISHED = "unfinished.json"
"""Index of the finished shards while packing."""


Members = tuple[str, list[EncodedFile]]
"""An object's uid and its files in a shard; their `location` is the name in the archive."""


def _object_members(dataset: FolderDataset, uid: str, num_views: int) -> Members:
    try:
        meta = dataset.read_meta(uid, num_views)
        paths = [path for kind in KINDS for path in dataset.view_paths(uid, kind, num_views)]
        views = [read_file(uid, path) for path in paths]
        with located(f"object {uid}"):
            check_views(views)
        contents = [_meta_json(uid, meta), *(view.content for view in views)]
    except OSError as error:  # an OSError would be reported as one of the shard being written
        raise ValueError(str(error)) from error
    names = member_names(uid, num_views)
    return uid, [EncodedFile(name, part) for name, part in zip(names, contents, strict=True)]


def _meta_json(uid: str, meta: dict[str, Any]) -> bytes:
    try:
        return json.dumps(meta, default=lambda array: array.tolist(), allow_nan=False).encode()
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"object {uid}: meta.pkl holds more than numbers: {error}") from error


def pack(root: Path, out: Path, shard_bytes: int = 2**30, num_views: int = 16) -> Index:
    """Write a folder tree as shards; the next call continues an interrupted one.

    `out` is a new folder, or that of a call with the same arguments; if that was complete, nothing
    is done. `shard_bytes` limits a shard; only a single larger object exceeds it. ValueError names
    the object and its missing or damaged file, or the wrong `out`; OSError the shard that cannot be
    written.
    """
    dataset = FolderDataset(root)
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / INDEX, wait=False):
        uids = [name.decode() for name in dataset.uids]
        if (out / INDEX).exists():
            return _complete_index(out, uids, num_views)
        unfinished = f"{FORMAT}, unfinished, at most {shard_bytes} bytes"
        shards = _finished_shards(out, unfinished, uids, num_views)
        for left in out.glob(".shard-*.tmp.tar"):  # of a process that was killed
            left.unlink()
        rest = uids[sum(len(shard.objects) for shard in shards) :]
        objects = (_object_members(dataset, uid, num_views) for uid in rest)
        pending = next(objects, None)
        while pending is not None:
            name = f"shard-{len(shards):06d}.tar"
            shard, pending = _write_shard(out / name, pending, objects, shard_bytes)
            shards.append(shard)
            _write_index(out / UNFINISHED, unfinished, Index(num_views, shards))
            log.info("%s: %d objects, %.1f MiB", name, len(shard.objects), shard.size / 2**20)
        index = Index(num_views, shards)
        _write_index(out / INDEX, FORMAT, index)
        (out / UNFINISHED).unlink(missing_ok=True)
    return index


def _write_index(path: Path, form: str, index: Index) -> None:
    with atomic_write(path) as temporary:
        content = {"format": form, **asdict(index)}
        temporary.write_text(json.dumps(content, separators=(",", ":")))


def _complete_index(out: Path, uids: list[str], num_views: int) -> Index:
    """The index of a complete call, which must have had the same objects; ValueError if not."""
    try:
        index = read_index(FileReader(str(out)))
        if _packed(out, index, uids, num_views) < len(uids):
            raise ValueError("other objects")
    except (ValueError, FileNotFoundError) as error:
        said = "has shards already, with other objects, views or files; choose a new folder"
        raise ValueError(f"{out}: {said}") from error
    log.info("%s: was complete, nothing is packed; delete it to pack changed images", out)
    return index


def _finished_shards(out: Path, form: str, uids: list[str], num_views: int) -> list[Shard]:
    """List the shards of an interrupted call, which must have had the same arguments."""
    if not (out / UNFINISHED).exists():
        return []
    try:
        index = read_index(FileReader(str(out)), UNFINISHED, form)
        _packed(out, index, uids, num_views)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"{out}: is of an interrupted run with other objects, views or another shard size; "
            f"delete it first"
        ) from error
    return index.shards


def _packed(out: Path, index: Index, uids: list[str], num_views: int) -> int:
    """Number of packed objects; ValueError or FileNotFoundError if they are not the first ones."""
    packed = [uid for shard in index.shards for uid, _, _ in shard.objects]
    if packed != uids[: len(packed)] or index.num_views != num_views:
        raise ValueError("other objects")
    if any((out / shard.name).stat().st_size != shard.size for shard in index.shards):
        raise ValueError("other files")
    return len(packed)


def _write_shard(
    target: Path, pending: Members, objects: Iterator[Members], shard_bytes: int
) -> tuple[Shard, Members | None]:
    """Write objects until the next one does not fit; return the shard and that object."""
    entries: list[tuple[str, int, int]] = []
    following: Members | None = pending
    end = 0
    with atomic_write(target) as path:
        with tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            while following is not None:
                uid, members = following
                size = sum(BLOCK + padded_size(len(member.content)) for member in members)
                if entries and end + size + tarfile.RECORDSIZE > shard_bytes:
                    break
                entries.append((uid, end, size))
                end += size
                for member in members:
                    head = tarfile.TarInfo(member.location)
                    head.size = len(member.content)
                    tar.addfile(head, io.BytesIO(member.content))
                following = next(objects, None)
        shard = Shard(target.name, path.stat().st_size, sha256(path), entries)
    return shard, following


def check(location: str) -> list[str]:
    """Compare all shards with their index; return a line per problem, naming shard and object."""
    reader = FileReader(location)
    index = read_index(reader)
    problems: list[str] = []
    for shard in index.shards:
        try:
            problems += _check_shard(reader, shard, index.num_views)
        except OSError as error:
            problems.append(str(error))
    return problems


def _check_shard(reader: FileReader, shard: Shard, num_views: int) -> list[str]:
    where, problems = reader.path(shard.name), []
    digest = hashlib.sha256()
    for uid, offset, size in shard.objects:
        content = reader.read(shard.name, offset, size)
        digest.update(content)
        try:
            if len(content) < size:
                raise ValueError("the shard is cut off")
            files = split_object(content, uid, num_views)
            read_elevations(files[0], num_views)
            check_views(map(EncodedFile, member_names(uid, num_views)[1:], files[1:]))
        except ValueError as error:
            problems.append(f"{where}: object {uid}: {error}")
        end = offset + size
    rest = reader.read(shard.name, end, tarfile.RECORDSIZE + 2 * BLOCK)
    digest.update(rest)
    if any(rest):
        problems.append(f"{where}: has more data than the index lists")
    if end + len(rest) != shard.size:
        found = end + len(rest)
        problems.append(f"{where}: its size is {found} bytes, not the {shard.size} of the index")
    elif digest.hexdigest() != shard.sha256:
        problems.append(f"{where}: its SHA-256 is not the index's")
    return problems


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the two commands."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m ldm.shards", None, __doc__, formatter_class=raw)
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write a folder tree as shards")
    packing.add_argument("root", type=Path, help="folder with target/, input/ and uid_set.pkl")
    packing.add_argument("out", type=Path, help="new folder for the shards")
    packing.add_argument("--shard_mb", type=int, default=1024, help="size limit of a shard, MiB")
    packing.add_argument("--num_views", type=int, default=16, help="views of an object")
    checking = commands.add_parser("check", help="read all shards and list problems")
    checking.add_argument("location", help="folder or URL of the shards")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Pack or check."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command == "pack":
        if args.shard_mb < 1 or not 1 <= args.num_views <= 999:
            parser.error("--shard_mb must be at least 1, --num_views from 1 to 999")
        index = pack(args.root, args.out, args.shard_mb * 2**20, args.num_views)
        count = sum(len(shard.objects) for shard in index.shards)
        log.info("%s has %d objects in %d shards", args.out, count, len(index.shards))
        return
    problems = check(args.location)
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise ValueError(f"{args.location}: {len(problems)} problems")
    log.info("%s: all shards are complete", args.location)


if __name__ == "__main__":
    run_script(main)
