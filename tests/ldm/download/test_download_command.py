"""`python -m ldm.download`, and the API that downloads when it is asked to."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
import torch

from ldm.checkpoint.files import read_state_dict
from ldm.checkpoint.load import storage_dtype
from ldm.download import __main__ as command
from ldm.download.catalogue import RemoteFile, Source
from pipeline import api
from tests.conftest import ROOT
from tests.ldm.download.hub_server import Hub, Repo


@pytest.fixture
def published(hub: Hub, tiny_checkpoint: Path, tmp_path: Path, monkeypatch) -> Path:
    """The folder for weights; the published file is the tiny model's."""
    content = tiny_checkpoint.read_bytes()
    hub.repos["one/weights"] = Repo(content)
    file = RemoteFile(
        "syncdreamer-pretrain.ckpt",
        sha256(content).hexdigest(),
        (Source("one/weights", "w.ckpt"),),
        len(content),
        "MIT",
    )
    monkeypatch.setattr(command, "FILES", {"syncdreamer": file, "clip": file})
    monkeypatch.setattr(api, "SYNCDREAMER", file)
    folder = tmp_path / "here" / "ckpt"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_the_weights_are_converted_and_the_original_removed_when_asked(
    hub: Hub, published: Path, tiny_checkpoint: Path
):
    original, converted = "syncdreamer-pretrain.ckpt", "syncdreamer-pretrain-bf16.safetensors"
    command.main([])
    assert names(published) == {original}
    command.main(["--convert", "bf16"])
    assert names(published) == {original, converted}
    command.main(["--convert", "bf16", "--remove_original"])
    assert names(published) == {converted}
    count = len(hub.requests)
    assert hub.ranges() == [None]
    command.main(["--convert", "bf16", "--remove_original"])
    assert len(hub.requests) == count
    state = read_state_dict(published / converted)
    for name, tensor in read_state_dict(tiny_checkpoint).items():
        assert torch.equal(state[name], tensor.to(storage_dtype(name, torch.bfloat16)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["clip", "--convert", "bf16"], "--convert is for syncdreamer only"),
        (["--remove_original"], "--remove_original needs --convert"),
        (["zero"], "invalid choice"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_asked(
    hub: Hub, published: Path, capsys, flags: list[str], message: str
):
    with pytest.raises(SystemExit, match="2"):
        command.main(flags)
    assert message in capsys.readouterr().err
    assert not hub.requests


def test_from_pretrained_downloads_the_weights_once(hub: Hub, published: Path):
    for _ in range(2):
        pipeline = api.SyncDreamerPipeline.from_pretrained(
            config=ROOT / "configs" / "tiny.yaml", device="cpu"
        )
        assert pipeline.config.model.unet.channels == 32
        assert names(published) == {"syncdreamer-pretrain.ckpt"}
        assert hub.ranges() == [None]


def test_load_downloads_nothing(hub: Hub, published: Path):
    with pytest.raises(FileNotFoundError, match=r"python -m ldm\.download"):
        api.SyncDreamerPipeline.load("ckpt/syncdreamer-pretrain.ckpt", device="cpu")
    assert not hub.requests
