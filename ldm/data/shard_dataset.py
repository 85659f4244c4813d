"""Training objects in tar shards, on a local disk or at any fsspec URL.

`index.json` has the shard and the offset of each object, so reading an object is one read of about
1 MB. Names in an archive are compared with the expected ones and never used as paths; all sizes are
bounded. `ldm.shards` writes and checks shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from common.optional import import_optional
from ldm.data.samples import MAX_FILE_BYTES, EncodedFile, ObjectFiles, check_elevations, located
from multiview.images import view_names

FORMAT = "multiview shards 1"
INDEX = "index.json"
BLOCK = 512
MAX_KEY_BYTES = 80
"""A tar header has 100 bytes for the name of a file, which ends in ".target.000.png"."""
MAX_OBJECT_BYTES = 1 * 2**30
MAX_INDEX_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Shard:
    """One tar file: name, size in bytes, checksum."""

    name: str
    size: int
    sha256: str
    # (uid, offset of its first header, size including headers and padding), in bytes
    objects: list[tuple[str, int, int]]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+\.tar", self.name, flags=re.ASCII):
            raise ValueError(f"{self.name!r} is not a plain name of a tar file")
        if not self.objects:
            raise ValueError(f"{self.name} has no objects")
        end = 0
        for uid, offset, size in self.objects:
            right_types = type(uid) is str and type(offset) is int and type(size) is int
            if not right_types or offset != end or size < BLOCK or size % BLOCK:
                raise ValueError(f"{self.name}: object {uid!r} has an impossible offset or size")
            uid.encode()  # UnicodeEncodeError, a ValueError, where JSON has half a character
            if size > MAX_OBJECT_BYTES:
                raise ValueError(f"{self.name}: object {uid!r} has {size} bytes")
            end = offset + size
        if type(self.size) is not int or end > self.size:
            raise ValueError(f"{self.name}: its objects need {end} bytes, it has {self.size}")


@dataclass(frozen=True)
class Index:
    """Content of `index.json`."""

    num_views: int
    shards: list[Shard]

    def __post_init__(self) -> None:
        if type(self.num_views) is not int or not 1 <= self.num_views <= 999:
            raise ValueError(f"num_views is {self.num_views!r}, expected 1 to 999")
        if not self.shards:
            raise ValueError("the training set is empty: it has no shards")
        uids = sorted(uid for shard in self.shards for uid, _, _ in shard.objects)
        for uid, following in pairwise(uids):
            if uid == following:
                raise ValueError(f"object {uid} is listed twice")
        if len({shard.name for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is listed twice")


class FileReader:
    """Reads parts of files in a local folder or below a URL that fsspec supports."""

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/") or "/"
        self.remote = re.match(r"[a-z0-9+.-]{2,}(://|::)", location) is not None

    def path(self, name: str) -> str:
        """Return the full path or URL of a file."""
        return f"{self.location}/{name}"

    def read(self, name: str, start: int, size: int) -> bytes:
        """Read up to `size` bytes from `start`, fewer at the end; OSError for any failure."""
        try:
            if not self.remote:
                with Path(self.path(name)).open("rb") as file:
                    left = file.seek(0, io.SEEK_END) - start
                    file.seek(start)
                    return file.read(max(0, min(size, left)))  # allocates its argument at once
            # Looked up in every read: fsspec caches the connection, and a worker needs a new one.
            url_to_fs = import_optional("fsspec.core", "reading shards from a URL").url_to_fs
            system, path = url_to_fs(self.path(name))
            content = system.cat_file(path, start=start, end=start + size)
        except ModuleNotFoundError:
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.path(name)}: no such file") from error
        except Exception as error:  # every kind of storage has its own errors
            raise OSError(f"{self.path(name)}: cannot be read ({error})") from error
        if len(content) > size:
            raise OSError(f"{self.path(name)}: the server sends complete files instead of parts")
        return content


def read_index(reader: FileReader, name: str = INDEX, form: str = FORMAT) -> Index:
    """Read and check an index; errors (ValueError, OSError) name the file."""
    text = reader.read(name, 0, MAX_INDEX_BYTES)
    try:
        index = json.loads(text)
        if not isinstance(index, dict) or index.get("format") != form:
            raise ValueError(f'expected "format": "{form}"')
        return Index(index["num_views"], [_parse_shard(shard) for shard in index["shards"]])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{reader.path(name)}: not an index of shards: {error}") from error


def _parse_shard(entry: dict[str, Any]) -> Shard:
    """Parse an entry of the index; ValueError, KeyError or TypeError if it is invalid."""
    objects = [(uid, offset, size) for uid, offset, size in entry["objects"]]
    return Shard(str(entry["name"]), entry["size"], str(entry["sha256"]), objects)


def member_key(uid: str) -> str:
    """Name of an object in an archive: without dots, and at most `MAX_KEY_BYTES` long."""
    if "." not in uid and len(uid.encode()) <= MAX_KEY_BYTES:
        return uid
    digest = hashlib.blake2b(uid.encode(), digest_size=8).hexdigest()
    start = uid.replace(".", "_").encode()[: MAX_KEY_BYTES - len(digest) - 1]
    return f"{start.decode(errors='ignore')}-{digest}"


def member_names(uid: str, num_views: int) -> list[str]:
    """List the names of an object's files in a shard, in order."""
    uid = member_key(uid)
    views = view_names(num_views)
    parts = ["meta.json", *(f"{kind}.{view}" for kind in ("target", "input") for view in views)]
    return [f"{uid}.{part}" for part in parts]


def walk_tar(content: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Yield the (name, content) of the files in (a part of) a tar archive in memory.

    Only regular files with plain ustar headers are allowed: no links, no folders, no extensions
    that change a name or a size. ValueError for anything else, or a size beyond the limit or end.
    """
    start = 0
    while start < len(content):
        try:
            head = tarfile.TarInfo.frombuf(bytes(content[start : start + BLOCK]), "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise ValueError(f"no tar header at byte {start} ({error})") from error
        if head.type != tarfile.REGTYPE:
            raise ValueError(f"{head.name!r} is not a regular file (tar type {head.type!r})")
        if not 0 <= head.size <= MAX_FILE_BYTES:
            raise ValueError(f"{head.name!r} has {head.size} bytes, at most {MAX_FILE_BYTES}")
        first = start + BLOCK
        if first + padded_size(head.size) > len(content):
            raise ValueError(f"{head.name!r} extends beyond the end")
        yield head.name, content[first : first + head.size]
        start = first + padded_size(head.size)


def padded_size(size: int) -> int:
    """Round a file's size up to whole tar blocks."""
    return -(-size // BLOCK) * BLOCK


def split_object(content: bytes, uid: str, num_views: int) -> list[memoryview]:
    """Split an object's part of a shard; ValueError if it has not exactly the `member_names`."""
    files: list[memoryview] = []
    names = member_names(uid, num_views)
    for name, part in walk_tar(memoryview(content)):
        expected = names[len(files)] if len(files) < len(names) else "nothing more"
        if name != expected:
            raise ValueError(f"found {name[:200]!r}, expected {expected}")
        files.append(part)
    if len(files) < len(names):
        raise ValueError(f"{names[len(files)]} is missing")
    return files


def read_elevations(meta: memoryview, num_views: int) -> np.ndarray:
    """Read an object's elevations from its `meta.json`; ValueError if they are invalid."""
    try:
        content = json.loads(bytes(meta))
        return check_elevations(content["elevations"], num_views)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"meta.json: {error}") from error


class ShardDataset:
    """Objects in shards, see `ldm.data.samples.ObjectDataset`."""

    def __init__(self, location: str) -> None:
        """Read the index of the shards in a folder or below a URL; see `read_index`."""
        self.reader = FileReader(location)
        index = read_index(self.reader)
        self.num_views = index.num_views
        self.names = [shard.name for shard in index.shards]
        self.group_sizes: Sequence[int] = [len(shard.objects) for shard in index.shards]
        objects = [entry for shard in index.shards for entry in shard.objects]
        self.uids = np.array([uid.encode() for uid, _, _ in objects])
        self.extents = np.array([entry[1:] for entry in objects], dtype=np.int64)  # offset, size
        self.shard_indices = np.repeat(np.arange(len(self.group_sizes)), self.group_sizes)

    def read(self, index: int, view: int, num_views: int) -> ObjectFiles:
        """Read the files of an item; see `ldm.data.samples.ObjectDataset`."""
        if num_views != self.num_views:
            raise ValueError(
                f"{self.reader.path(INDEX)}: objects have {self.num_views} views, the model needs "
                f"{num_views}"
            )
        uid, name = self.uids[index].decode(), self.names[self.shard_indices[index]]
        where = self.reader.path(name)
        offset, size = map(int, self.extents[index])
        with located(f"object {uid}"):
            content = self.reader.read(name, offset, size)
        with located(f"object {uid}: {where}"):
            if len(content) < size:
                raise ValueError("the shard is cut off")
            files = split_object(content, uid, num_views)
            elevation = float(read_elevations(files[0], num_views)[view])
        named = zip(member_names(uid, num_views), files, strict=True)
        _, *views = (EncodedFile(f"{where}: {name}", content) for name, content in named)
        return ObjectFiles(uid, tuple(views[:num_views]), views[num_views + view], elevation)
