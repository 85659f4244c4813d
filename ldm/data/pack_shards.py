"""Pack a training set into tar shards, and check shards.

    python -m ldm.shards pack training_examples shards
    python -m ldm.shards check shards

A shard is a plain tar file in WebDataset's convention: the files of an object stand together and
share the name up to the first dot: `<uid>.meta.json`, then `<uid>.target.000.png` and so on, then
`<uid>.input.000.png` and so on. The PNGs are the tree's byte for byte; of `meta.pkl` only the
numbers are kept, as JSON, so that a shard holds no pickle. Equal trees give equal shards.
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
from typing import Any, BinaryIO

from common.files import atomic_write, file_lock
from ldm.data.folder import FolderDataset, read_file
from ldm.data.samples import EncodedFile, check_png
from ldm.data.shard_dataset import (
    BLOCK,
    FORMAT,
    INDEX,
    FileReader,
    Index,
    Shard,
    member_names,
    padded_size,
    parse_shard,
    read_elevations,
    read_index,
    split_object,
)

log = logging.getLogger(__name__)

MAX_UID_BYTES = 80
"""A tar header has 100 bytes for the name."""


class _HashedFile(io.RawIOBase):
    """Writes to a file, and hashes what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size, self.sha256 = file, 0, hashlib.sha256()

    def write(self, part: Any) -> int:
        self.sha256.update(part)
        self.size += len(part)
        return self.file.write(part)

    def tell(self) -> int:
        return self.size


def _object_members(source: FolderDataset, uid: str, num_views: int) -> list[EncodedFile]:
    """Read all files of an object that go into a shard, checked; `where` is the member's name."""
    if "." in uid or len(uid.encode()) > MAX_UID_BYTES:
        raise ValueError(
            f"object {uid}: in shards, names of objects have no dot and at most "
            f"{MAX_UID_BYTES} bytes"
        )
    try:
        contents: list[bytes | memoryview] = [_meta_json(uid, source.meta(uid, num_views))]
        for kind in ("target", "input"):
            for path in source.files(uid, kind, num_views):
                contents.append(_checked_png(uid, path))
    except OSError as error:  # else it would be taken for one of the shard that is written
        raise ValueError(str(error)) from error
    names = member_names(uid, num_views)
    return [EncodedFile(name, part) for name, part in zip(names, contents, strict=True)]


def _meta_json(uid: str, meta: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(meta, default=lambda array: array.tolist(), allow_nan=False)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"object {uid}: meta.pkl holds more than numbers: {error}") from error
    return text.encode()


def _checked_png(uid: str, path: Path) -> bytes | memoryview:
    content = read_file(uid, path).content
    try:
        check_png(content)
    except ValueError as error:
        raise ValueError(f"object {uid}: {path}: {error}") from error
    return content


def pack(root: Path, out: Path, shard_bytes: int = 2**30, num_views: int = 16) -> Index:
    """Write a folder tree as shards; one that was interrupted goes on.

    Args:
        root: as `FolderDataset` reads it.
        out: a new folder, or one of an interrupted call with the same arguments.
        shard_bytes: a shard is closed before it grows larger; a larger object has one of its own.
        num_views: N.

    Raises:
        FileNotFoundError: the tree, or the folder of an object, does not exist.
        ValueError: naming the object and the file that is missing or damaged, or `out`.
        OSError: naming the shard that cannot be written.
    """
    source = FolderDataset(root)
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / INDEX, wait=False):
        if (out / INDEX).exists():
            raise ValueError(f"{out}: holds packed shards already; give a new folder")
        uids = [name.decode() for name in source.uids]
        shards = _finished_shards(out, uids, shard_bytes)
        rest = uids[sum(len(shard.objects) for shard in shards) :]
        objects = ((uid, _object_members(source, uid, num_views)) for uid in rest)
        for left in out.glob(".shard-*.tmp.tar"):
            left.unlink()
        waiting = next(objects, None)
        while waiting is not None:
            name = f"shard-{len(shards):06d}.tar"
            shard, waiting = _write_shard(out / name, waiting, objects, shard_bytes)
            with atomic_write(_record(out, len(shards))) as path:
                path.write_text(json.dumps({"limit": shard_bytes, **asdict(shard)}))
            shards.append(shard)
            log.info("%s: %d objects, %.1f MiB", name, len(shard.objects), shard.size / 2**20)
        index = Index(num_views, shards)
        with atomic_write(out / INDEX) as path:
            path.write_text(json.dumps({"format": FORMAT, **asdict(index)}, separators=(",", ":")))
        for number in range(len(shards)):
            _record(out, number).unlink(missing_ok=True)
    return index


def _record(out: Path, number: int) -> Path:
    """Where a finished shard's entry is kept until the index is written."""
    return out / f"shard-{number:06d}.part.json"


def _finished_shards(out: Path, uids: list[str], shard_bytes: int) -> list[Shard]:
    """Return what an interrupted call with the same objects and limit has written."""
    shards: list[Shard] = []
    while _record(out, len(shards)).exists():
        record = json.loads(_record(out, len(shards)).read_text())
        limit, path = record.pop("limit"), out / record["name"]
        shard = parse_shard(record)
        begin = sum(len(done.objects) for done in shards)
        packed = [uid for uid, _, _ in shard.objects]
        same = packed == uids[begin : begin + len(packed)] and limit == shard_bytes
        if not same or not path.is_file() or path.stat().st_size != shard.size:
            raise ValueError(
                f"{path}: is of an interrupted run with other objects or another --shard_mb; "
                f"delete {out} first"
            )
        shards.append(shard)
    return shards


Members = tuple[str, list[EncodedFile]]


def _write_shard(
    target: Path, waiting: Members, objects: Iterator[Members], shard_bytes: int
) -> tuple[Shard, Members | None]:
    """Write objects until the next one would not fit; return the shard and that one."""
    places: list[tuple[str, int, int]] = []
    following: Members | None = waiting
    with atomic_write(target) as path, path.open("wb") as file:
        hashed = _HashedFile(file)
        with tarfile.open(fileobj=hashed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            while following is not None:
                uid, members = following
                size = sum(BLOCK + padded_size(len(member.content)) for member in members)
                if places and hashed.size + size + tarfile.RECORDSIZE > shard_bytes:
                    break
                places.append((uid, hashed.size, size))
                for member in members:
                    head = tarfile.TarInfo(member.where)
                    head.size = len(member.content)
                    tar.addfile(head, io.BytesIO(member.content))
                following = next(objects, None)
    return Shard(target.name, hashed.size, hashed.sha256.hexdigest(), places), following


def check(location: str) -> list[str]:
    """Read all shards of an index and compare them with it.

    Returns:
        what is wrong, one line each, naming the shard and the object; empty if nothing is.
    """
    store = FileReader(location)
    index = read_index(store)
    problems = []
    for shard in index.shards:
        try:
            problems += _check_shard(store, shard, index.num_views)
        except OSError as error:
            problems.append(str(error))
    return problems


def _check_shard(store: FileReader, shard: Shard, num_views: int) -> list[str]:
    """Read one shard from its beginning to its end, an object at a time."""
    where, problems = store.path(shard.name), []
    sha256 = hashlib.sha256()
    for uid, offset, size in shard.objects:
        content = store.read(shard.name, offset, size)
        sha256.update(content)
        try:
            if len(content) < size:
                raise ValueError("the shard is cut off")
            files = split_object(content, uid, num_views)
            read_elevations(files[0], num_views)
            for name, part in zip(member_names(uid, num_views)[1:], files[1:], strict=True):
                try:
                    check_png(part)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        except ValueError as error:
            problems.append(f"{where}: object {uid}: {error}")
    end = shard.objects[-1][1] + shard.objects[-1][2]
    rest = store.read(shard.name, end, tarfile.RECORDSIZE + 2 * BLOCK)
    sha256.update(rest)
    if any(rest):
        problems.append(f"{where}: there is more in it than the index says")
    if end + len(rest) != shard.size:
        problems.append(f"{where}: its size is not the {shard.size} bytes of the index")
    elif sha256.hexdigest() != shard.sha256:
        problems.append(f"{where}: its SHA-256 is not the index's")
    return problems


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write a folder tree as shards")
    packing.add_argument("root", type=Path, help="folder with target/, input/ and uid_set.pkl")
    packing.add_argument("out", type=Path, help="new folder for the shards")
    packing.add_argument("--shard_mb", type=int, default=1024, help="size limit of a shard, MiB")
    packing.add_argument("--num_views", type=int, default=16, help="views of an object")
    checking = commands.add_parser("check", help="read all shards and say what is wrong")
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
        log.info("wrote %d objects in %d shards to %s", count, len(index.shards), args.out)
        return
    problems = check(args.location)
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise ValueError(f"{args.location}: {len(problems)} problems")
    log.info("%s: all shards are whole", args.location)
