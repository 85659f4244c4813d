"""Read CLIP's weights from OpenAI's file, a TorchScript archive, which is code beside weights.

So only the published file is loaded, by its checksum; any other TorchScript archive is refused.
"""

from __future__ import annotations

import hashlib
import mmap
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

OPENAI_SHA256 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
"""Of ViT-L-14.pt; the address that OpenAI publishes for the file contains it."""
UNUSED_TEXT = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "token_embedding.weight",
    "ln_final.weight",
    "ln_final.bias",
)
"""Text tensors in published checkpoints besides the image tower; the text tower is left out."""


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read all tensors of OpenAI's file by name; raise ValueError for any other archive."""
    with path.open("rb") as file, warnings.catch_warnings():
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            digest = hashlib.sha256(content).hexdigest()
        if digest != OPENAI_SHA256:
            raise ValueError(
                f"{path}: refused, loading a TorchScript archive runs code in it, and this is not "
                f"OpenAI's ViT-L-14.pt or it is damaged: its SHA-256 is {digest}, expected "
                f"{OPENAI_SHA256}"
            )
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
        return dict(torch.jit.load(file, map_location="cpu").state_dict())


def select_clip_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select CLIP's tensors that a SyncDreamer checkpoint holds, as float32."""
    return {
        name: tensor.float()
        for name, tensor in state.items()
        if name.startswith("visual.") or name in UNUSED_TEXT
    }
