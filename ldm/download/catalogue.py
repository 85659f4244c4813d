"""The files of weights that can be downloaded, and where they lie on the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OPENAI_SHA256 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
"""Of ViT-L-14.pt; the address that OpenAI publishes for the file contains it."""


@dataclass(frozen=True)
class Source:
    """A file in a repository of the Hub.

    Attributes:
        repo: "owner/name".
        path: of the file in it.
        revision: a commit; "main" where the file's checksum alone pins the content.
        kind: of the repository.
    """

    repo: str
    path: str
    revision: str = "main"
    kind: Literal["model", "space"] = "model"

    def __str__(self) -> str:
        return self.repo if self.kind == "model" else f"{self.kind} {self.repo}"


@dataclass(frozen=True)
class RemoteFile:
    """A file of known content.

    Attributes:
        name: that it gets here.
        sha256: hexadecimal.
        sources: copies of it, the preferred one first.
        size: in bytes; None if only the checksum is known.
        licence: as far as it is known.
    """

    name: str
    sha256: str
    sources: tuple[Source, ...]
    size: int | None = None
    licence: str = ""


SYNCDREAMER = RemoteFile(
    "syncdreamer-pretrain.ckpt",
    "5ebb31334d9e4002b2590dd805e25238beaf95fa082f6e39a132344624448dcb",
    (
        Source(
            "camenduru/SyncDreamer",
            "syncdreamer-pretrain.ckpt",
            "c64397701da4d705bb56de568343ae9628cfd0ee",
        ),
        Source(  # the authors'
            "liuyuan-pal/SyncDreamer",
            "ckpt/syncdreamer-pretrain.ckpt",
            "d0f39bee41cfe98a7d6e8a050585e81548e45139",
            "space",
        ),
        Source(
            "jianfuzhang233/controlnet",
            "ckpt/syncdreamer-pretrain.ckpt",
            "4f2a492c6a58daa610798275e7076bcebb299a9a",
            "space",
        ),
    ),
    size=5_570_034_171,
    licence="MIT (2023, Yuan Liu): of the published repository; its mirrors are tagged MIT",
)
ZERO123_XL = RemoteFile(
    "zero123-xl.ckpt",
    "bc4ea2f8696ed96495a756e178cab659de807bbae2d2df18987cf61c44070696",
    (Source("thesudio/stable_zero_123_XL", "zero123-xl.ckpt"),),
    size=15_465_973_531,
    licence="see github.com/cvlab-columbia/zero123",
)
CLIP = RemoteFile(
    "ViT-L-14.pt",
    OPENAI_SHA256,
    (Source("camenduru/SyncDreamer", "ViT-L-14.pt", "c64397701da4d705bb56de568343ae9628cfd0ee"),),
    licence="MIT (2021, OpenAI): of the published repository",
)
FILES = {"syncdreamer": SYNCDREAMER, "zero123-xl": ZERO123_XL, "clip": CLIP}
"""What `python -m ldm.download` fetches, by name."""
