"""Shards have the tree's content bit for bit; damage is named, crafted archives are refused."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from ldm.data.folder import FolderDataset
from ldm.data.loader import DataConfig, make_loader, open_dataset
from ldm.data.samples import decode_item
from ldm.data.shard_dataset import FileReader, ShardDataset, member_names, read_index
from ldm.shards import build_parser, check, main, pack
from tests.ldm.training.training_tree import elevations, encode_png, make_tree, png

UIDS = [f"u{n}" for n in range(7)]
N = 3
LIMIT = 40_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree", UIDS, N)


@pytest.fixture
def shards(tree: Path, tmp_path: Path) -> Path:
    pack(tree, tmp_path / "shards", LIMIT, N)
    return tmp_path / "shards"


def test_shards_hold_the_tree_bit_for_bit(tree: Path, shards: Path):
    found = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    assert list(found) == [name for uid in UIDS for name in member_names(uid, N)]
    for uid in UIDS:
        for kind in ("target", "input"):
            for view in range(N):
                path = tree / kind / uid / f"{view:03d}.png"
                assert found[f"{uid}.{kind}.{view:03d}.png"] == path.read_bytes()
        meta = json.loads(found[f"{uid}.meta.json"])
        for name, value in FolderDataset(tree).read_meta(uid, N).items():
            np.testing.assert_array_equal(meta[name], value)


def test_items_from_shards_are_those_from_the_tree(tree: Path, shards: Path):
    folder, packed = FolderDataset(tree), ShardDataset(str(shards))
    assert packed.uids.tolist() == folder.uids.tolist()
    assert len(packed.group_sizes) > 2
    assert sum(packed.group_sizes) == len(UIDS)
    for index in range(len(UIDS)):
        for view in range(N):
            one, other = (decode_item(d.read(index, view, N), view, 16) for d in (folder, packed))
            assert one.uid == other.uid
            for name in ("target_images", "input_image", "input_elevation"):
                assert torch.equal(getattr(one, name), getattr(other, name))


def test_shards_keep_to_the_limit_and_equal_trees_give_equal_shards(tmp_path: Path, shards: Path):
    again = tmp_path / "again"
    pack(make_tree(tmp_path / "tree2", UIDS, N), again, LIMIT, N)
    files = sorted(path.name for path in again.glob("[!.]*"))
    assert files == sorted(path.name for path in shards.glob("[!.]*"))
    assert all((again / name).read_bytes() == (shards / name).read_bytes() for name in files)
    assert max(path.stat().st_size for path in again.glob("*.tar")) <= LIMIT
    assert check(str(again)) == []


def test_an_object_larger_than_the_limit_has_a_shard_of_its_own(tree: Path, tmp_path: Path):
    index = pack(tree, tmp_path / "out", 1, N)
    assert [len(shard.objects) for shard in index.shards] == [1] * len(UIDS)


def test_the_webdataset_package_reads_them(shards: Path):
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == UIDS
    assert samples[0]["target.000.png"][:4] == b"\x89PNG"
    assert json.loads(samples[1]["meta.json"])["elevations"] == elevations(1, N).tolist()


def test_fsspec_urls_are_read_like_folders(shards: Path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in shards.glob("[!.]*"):
        memory.pipe_file(f"/set/{path.name}", path.read_bytes())
    try:
        assert check("memory://set") == []
        for workers in (0, 1):
            config = DataConfig(batch_size=2, num_workers=workers)
            remote = make_loader(open_dataset("memory://set/"), config, N, 16)
            local = make_loader(open_dataset(str(shards)), config, N, 16)
            for one, other in zip(remote, local, strict=True):
                assert one.uids == other.uids
                assert torch.equal(one.target_images, other.target_images)
        memory.rm("/set/shard-000000.tar")
        assert "memory://set/shard-000000.tar: no such file" in check("memory://set")[0]
        with pytest.raises(FileNotFoundError, match=r"memory://no/index\.json: no such file"):
            open_dataset("memory://no")
    finally:
        memory.rm("/set", recursive=True)
    with pytest.raises(OSError, match=r"nosuchthing://x/index\.json"):
        open_dataset("nosuchthing://x")


def test_a_server_without_ranges_is_noticed(shards: Path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/whole/file", bytes(1000))
    monkeypatch.setattr(type(memory), "cat_file", lambda *_, **__: bytes(1000))
    with pytest.raises(OSError, match="memory://whole/file: the server sends"):
        FileReader("memory://whole").read("file", 10, 20)


def spoil(path: Path, value: bytes, offset: int | None = None) -> None:
    """Overwrite bytes, by default within the first image's pixels."""
    content = bytearray(path.read_bytes())
    offset = content.index(b"IDAT") + 20 if offset is None else offset
    content[offset : offset + len(value)] = value
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "gone": (lambda shard: shard.unlink(), ["no such file"]),
    "cut off": (
        lambda shard: shard.write_bytes(shard.read_bytes()[:9000]),
        ["object u2", "cut off", "its size"],
    ),
    "wrong pixels": (lambda shard: spoil(shard, b"xyz"), ["object u2", "checksum", "SHA-256"]),
    "a header": (lambda shard: spoil(shard, b"\xff", 0), ["object u2", "no tar header at byte 0"]),
    "the end": (
        lambda shard: shard.write_bytes(shard.read_bytes() + b"x" * 10240),
        ["has more data", "its size"],
    ),
    "between files": (
        lambda shard: spoil(shard, b"x", shard.read_bytes().index(b"}") + 2),
        ["its SHA-256 is not"],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_naming_the_shard_and_object(shards: Path, name: str, caplog):
    damage, parts = DAMAGE[name]
    damage(shards / "shard-000001.tar")
    problems = check(str(shards))
    assert problems
    assert all("shard-000001.tar" in problem for problem in problems)
    for part in parts:
        assert any(part in problem for problem in problems), problems
    with pytest.raises(ValueError, match=rf"{len(problems)} problems"):
        main(["check", str(shards)])
    assert problems[0] in caplog.text
    if name == "gone" or "object u2" in parts:
        config = DataConfig(batch_size=1, num_workers=0)
        with pytest.raises((ValueError, OSError), match=r"object u\d: .*shard-000001\.tar"):
            list(make_loader(open_dataset(str(shards)), config, N, 16))


def test_shards_of_another_number_of_views_are_refused(shards: Path):
    with pytest.raises(ValueError, match="objects have 3 views, the model needs 16"):
        ShardDataset(str(shards)).read(0, 0, 16)


def test_an_interrupted_pack_goes_on_and_gives_the_same_shards(
    tree: Path, shards: Path, tmp_path: Path
):
    out, broken = tmp_path / "out", tree / "target" / "u4" / "001.png"
    content = broken.read_bytes()
    broken.unlink()
    with pytest.raises(ValueError, match=r"^object u4: .*001\.png is missing"):
        pack(tree, out, LIMIT, N)
    assert not (out / "index.json").exists()
    first = (out / "shard-000000.tar").stat().st_mtime_ns
    (out / ".shard-000001.123.tmp.tar").write_bytes(b"of a process that was killed")
    broken.write_bytes(content)
    with pytest.raises(ValueError, match="interrupted run with other objects"):
        pack(tree, out, LIMIT + 1, N)
    pack(tree, out, LIMIT, N)
    assert (out / "shard-000000.tar").stat().st_mtime_ns == first
    assert not list(out.glob(".*.tmp.*"))
    files = {path.name: path.read_bytes() for path in out.glob("[!.]*")}
    assert files == {path.name: path.read_bytes() for path in shards.glob("[!.]*")}


def test_a_complete_pack_is_left_as_it_is_and_one_of_other_objects_refused(
    tree: Path, shards: Path, tmp_path: Path
):
    out = shutil.copytree(shards, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in out.glob("[!.]*")}
    assert pack(tree, out, LIMIT, N) == read_index(FileReader(str(shards)))
    assert {path: path.stat().st_mtime_ns for path in out.glob("[!.]*")} == before
    for uids in (UIDS[:2], [*UIDS, "u7"]):
        other = make_tree(tmp_path / f"tree{len(uids)}", uids, N)
        with pytest.raises(ValueError, match="has shards already, with other objects"):
            pack(other, out, LIMIT, N)


def test_damage_in_the_tree_is_found_before_it_is_packed(tree: Path, tmp_path: Path):
    spoil(tree / "input" / "u3" / "002.png", b"xyz")
    with pytest.raises(ValueError, match=r"object u3: .*002\.png: the image is damaged"):
        pack(tree, tmp_path / "out", LIMIT, N)


NAMES = ["a.b", "a_b", ".hidden", "x" * 80, "x" * 81, "x" * 251, "x" * 250 + "y", "ä" * 60, "v.1.2"]


def test_objects_of_any_name_are_packed_and_read_by_it(tmp_path: Path):
    folder = FolderDataset(make_tree(tmp_path / "tree", NAMES, N))
    pack(folder.root, tmp_path / "out", LIMIT, N)
    assert check(str(tmp_path / "out")) == []
    packed = ShardDataset(str(tmp_path / "out"))
    assert [uid.decode() for uid in packed.uids] == NAMES
    for index in range(len(NAMES)):
        one, other = (decode_item(d.read(index, 1, N), 1, 16) for d in (folder, packed))
        assert one.uid == other.uid
        assert torch.equal(one.target_images, other.target_images)
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    keys = [sample["__key__"] for sample in webdataset.WebDataset(urls, shardshuffle=False)]
    assert len(set(keys)) == len(NAMES)
    assert all(len(key.encode()) <= 80 for key in keys)


REFUSED = {
    "no alpha": (png(1, mode="RGB"), r"has no alpha channel \(mode RGB\), expected RGBA"),
    "grey": (png(1, mode="L"), r"has no alpha channel \(mode L\), expected RGBA"),
    "size": (png(1, 12), "is 12 pixels wide, the views before it 16"),
    "oblong": (encode_png(np.zeros((8, 16, 4), np.uint8)), "has 16 x 8 pixels"),
}


@pytest.mark.parametrize("kind", ["target", "input"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_training_refuses_pack_and_check_refuse_with_the_same_words(
    tree: Path, tmp_path: Path, monkeypatch, name: str, kind: str
):
    content, message = REFUSED[name]
    (tree / kind / "u3" / "001.png").write_bytes(content)
    expected = rf"^object u3: .*{kind}.u3.001\.png: {message}"
    view = int(kind == "input")
    with pytest.raises(ValueError, match=expected):
        decode_item(FolderDataset(tree).read(3, view, N), view, 16)
    with pytest.raises(ValueError, match=expected):
        pack(tree, tmp_path / "out", LIMIT, N)
    with monkeypatch.context() as patch:  # as shards of an earlier version, which accepted it
        patch.setattr("ldm.shards.check_views", lambda views: None)
        pack(tree, tmp_path / "old", LIMIT, N)
    (problem,) = check(str(tmp_path / "old"))
    assert re.search(rf"object u3: u3\.{kind}\.001\.png: {message}", problem)


def test_the_command_packs_and_checks(tree: Path, tmp_path: Path, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    main(["pack", str(tree), str(out), "--num_views", str(N)])
    assert "out has 7 objects in 1 shards" in caplog.text
    main(["check", str(out)])
    assert f"{out}: all shards are complete" in caplog.text
    with pytest.raises(SystemExit):
        build_parser().parse_args([])


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
    "surrogate": ({"objects": [["\ud800", 0, 512]]}, "surrogates not allowed"),
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
