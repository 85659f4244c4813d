"""Files that are no checkpoints, or would run code, are refused."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ldm.checkpoint.files import read_state_dict, save_atomically


def test_files_that_are_no_checkpoints_are_recognised(tmp_path: Path, tiny_checkpoint: Path):
    def refused(name: str, content: bytes, message: str) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_state_dict(path)
        assert name in str(caught.value)

    whole = tiny_checkpoint.read_bytes()
    refused("half.ckpt", whole[: len(whole) // 2], "half download")
    refused("empty.ckpt", b"", "empty")
    refused("pointer.ckpt", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer")
    refused("page.ckpt", b"<!DOCTYPE html><html>Sign in</html>", "web page")
    refused("noise.ckpt", b"\x01\x02\x03" * 100, "is no checkpoint")
    for content in ([1, 2], torch.zeros(3), {1: torch.zeros(3)}, {"state_dict": [1]}, {}):
        torch.save(content, tmp_path / "odd.ckpt")
        with pytest.raises(ValueError, match=r"odd\.ckpt: holds no tensors by name"):
            read_state_dict(tmp_path / "odd.ckpt")
    refused("garbled.ckpt", whole.replace(b"state_dict", b"\xff" * 10), "refused|damaged")
    refused("directory.ckpt", whole[:-60] + b"\0" * 60, "half download")
    refused("tensor.ckpt", pickle.dumps([1, 2]), "refused")

    good = tmp_path / "good.safetensors"
    save_file({"a": torch.zeros(1000)}, good)
    data = good.read_bytes()
    refused("half.safetensors", data[:-1], "half download")
    refused("header.safetensors", data[:20], "half download")
    refused("short.safetensors", data[:5], "half download")
    refused("junk.safetensors", b"\x10" + b"\0" * 7 + b"{not json at all", "damaged")

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused("zip.ckpt", (tmp_path / "a.zip").read_bytes(), "without torch weights")
    refused(
        "name.ckpt",
        whole.replace(b"/data.pkl", b"/\xff\xff\xff\xff\xff\xff\xff\xff"),
        "half download",
    )
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "clip.pt")
    refused("clip2.pt", (tmp_path / "clip.pt").read_bytes(), "archive, as OpenAI's CLIP file")
    with pytest.raises(FileNotFoundError, match=r"ckpt/README\.md"):
        read_state_dict(tmp_path / "nothing.ckpt")
    with pytest.raises(ValueError, match="folder"):
        read_state_dict(tmp_path)


class Attack:
    """Would make a folder if the pickle's code were run."""

    def __init__(self, call, *arguments) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    "make", [lambda path: Attack(Path.mkdir, path), lambda path: Attack(os.mkdir, str(path))]
)
def test_a_file_that_needs_code_is_refused_and_nothing_of_it_runs(tmp_path: Path, make):
    trap = tmp_path / "trap"
    path = tmp_path / "attack.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(2)}, "callbacks": make(trap)}, path)
    with pytest.raises(ValueError, match="cannot be read without running code"):
        read_state_dict(path)
    assert not trap.exists()


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path: Path, monkeypatch):
    def save(content, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match=r"new\.pt: cannot be written \(is the disk full"):
        save_atomically({"a": torch.zeros(2)}, tmp_path / "new.pt")
    assert not list(tmp_path.iterdir())
