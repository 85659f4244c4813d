"""Nothing is taken from a crafted archive or index."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from ldm.data.shard_dataset import ShardDataset, member_names
from ldm.shards import check

N = 3


def archive(*members: tuple[str, bytes, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar archive of (name, type, content), without its end."""
    parts = []
    for name, kind, content in members:
        head = tarfile.TarInfo(name)
        head.type, head.size = kind, len(content)
        if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            head.linkname, head.size = "/etc/passwd", 0
        parts.append(head.tobuf(form))
        parts.append(content + bytes(-len(content) % 512))
    return b"".join(parts)


def huge(size: int) -> bytes:
    """A header that says its file has `size` bytes, which no plain octal number says."""
    head = tarfile.TarInfo("u0.meta.json")
    head.size = size
    return head.tobuf(tarfile.GNU_FORMAT)


HOSTILE = {
    "absolute": (archive(("/etc/u0.meta.json", tarfile.REGTYPE, b"{}")), "found '/etc/u0"),
    "parent": (archive(("../u0.meta.json", tarfile.REGTYPE, b"{}")), "found '../u0"),
    "symlink": (archive(("u0.meta.json", tarfile.SYMTYPE, b"")), "not a regular file"),
    "hard link": (archive(("u0.meta.json", tarfile.LNKTYPE, b"")), "not a regular file"),
    "device": (archive(("u0.meta.json", tarfile.CHRTYPE, b"")), "not a regular file"),
    "folder": (archive(("u0.meta.json", tarfile.DIRTYPE, b"")), "not a regular file"),
    "long": (archive(("x" * 300, tarfile.REGTYPE, b""), form=tarfile.GNU_FORMAT), "not a regular"),
    "pax": (archive(("é" * 300, tarfile.REGTYPE, b"{}"), form=tarfile.PAX_FORMAT), "not a regular"),
    "huge": (huge(2**62), "has 4611686018427387904 bytes"),
    "negative": (huge(-512), "has -512 bytes"),
    "beyond": (huge(5000), "extends beyond the end"),
    "zeros": (bytes(1024), "no tar header"),
    "no header": (b"\xff" * 1024, "no tar header"),
    "cut header": (archive(("u0.meta.json", tarfile.REGTYPE, b""))[:100] + b"", "no tar header"),
    "too few": (archive(("u0.meta.json", tarfile.REGTYPE, b"{}")), "u0.target.000.png is missing"),
    "other": (archive(("u1.meta.json", tarfile.REGTYPE, b"{}")), "expected u0.meta.json"),
}


def crafted(folder: Path, content: bytes, **changes: object) -> Path:
    """Shards of one object, whose archive is `content`."""
    folder.mkdir(exist_ok=True)
    padded = content + bytes(-len(content) % 512)
    (folder / "s.tar").write_bytes(padded + bytes(1024))
    shard = {"name": "s.tar", "size": len(padded) + 1024, "sha256": ""}
    shard |= {"objects": [["u0", 0, len(padded)]]} | changes
    index = {"format": "multiview shards 1", "num_views": N, "shards": [shard]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_nothing_is_written(tmp_path: Path, name: str):
    content, message = HOSTILE[name]
    folder = crafted(tmp_path / "s", content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"object u0: .*s\.tar: ") as caught:
        ShardDataset(str(folder)).read(0, 0, N)
    assert message in str(caught.value)
    assert any(message in problem for problem in check(str(folder)))
    assert sorted(tmp_path.rglob("*")) == before


BAD_INDEX: dict[str, tuple[dict[str, object], str]] = {
    "outside": ({"name": "../s.tar"}, "not a plain name"),
    "absolute": ({"name": "/etc/passwd"}, "not a plain name"),
    "line": ({"name": "s.tar\n"}, "not a plain name"),
    "empty": ({"objects": []}, "no objects"),
    "negative": ({"objects": [["u0", -512, 512]]}, "impossible"),
    "odd": ({"objects": [["u0", 0, 513]]}, "impossible"),
    "gap": ({"objects": [["u0", 1024, 512]]}, "impossible"),
    "large": ({"objects": [["u0", 0, 2**40]]}, "bytes"),
    "text": ({"objects": [["u0", "0", "512"]]}, "impossible"),
    "beyond": ({"size": 5}, "it has 5"),
    "twice": ({"objects": [["u0", 0, 512], ["u0", 512, 512]], "size": 4096}, "u0 is listed twice"),
    "no size": ({"size": None}, "not an index of shards"),
    "shape": ({"objects": 7}, "not an index of shards"),
}


@pytest.mark.parametrize("name", BAD_INDEX)
def test_an_impossible_index_is_refused(tmp_path: Path, name: str):
    changes, message = BAD_INDEX[name]
    folder = crafted(tmp_path / "s", bytes(512), **changes)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        ShardDataset(str(folder))
    assert str(folder / "index.json") in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x"}', "[" * 100_000, "\xff"])
def test_what_is_not_an_index_is_refused(tmp_path: Path, text: str):
    (tmp_path / "index.json").write_text(text, encoding="latin1")
    with pytest.raises(ValueError, match=r"index\.json: not an index"):
        ShardDataset(str(tmp_path))


@pytest.mark.parametrize(
    "meta", [b"x", b"[]", b"{}", b'{"elevations": [9, 9, 9]}', b'{"elevations": [0, NaN, 0]}']
)
def test_bad_meta_in_a_shard_is_refused(tmp_path: Path, meta: bytes):
    names = member_names("u0", N)
    files = [(name, tarfile.REGTYPE, b"" if i else meta) for i, name in enumerate(names)]
    source = ShardDataset(str(crafted(tmp_path, archive(*files))))
    with pytest.raises(ValueError, match=r"object u0: .*s\.tar: meta\.json"):
        source.read(0, 0, N)
