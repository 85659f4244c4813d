"""Initialise a model for training: weights of Zero123 and CLIP, the rest at random."""

from __future__ import annotations

import hashlib
import logging
import mmap
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ldm.checkpoint.diffusers_folder import read_diffusers_folder
from ldm.checkpoint.files import describe_state_dict, read_state_dict
from ldm.config import SyncDreamerConfig
from ldm.download.catalogue import OPENAI_SHA256
from ldm.model import SyncDreamer
from ldm.networks.clip import CLIPImageEncoder

log = logging.getLogger(__name__)

FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"
CLIP_PREFIX = "clip_image_encoder.model."
AUTOENCODER_PREFIX = "first_stage_model."
CLIP_IN_ZERO123 = "cond_stage_model.model."
DEFAULT_CLIP_FILES = (Path("ckpt/ViT-L-14.pt"), Path("ckpt/ViT-L-14.ckpt"))
"""In the working directory, else in the project."""
PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class InitReport:
    """Source of every weight of an initialised model: names of tensors."""

    loaded: list[str]
    adapted: list[str]  # those of them whose shape was changed to fit
    initialised: list[str]  # keep their (random or computed) initial values; without CLIP's
    ignored: list[str]  # that only the file has
    clip: str  # source of CLIP's weights: a file, "random" or a remark

    def lines(self) -> list[str]:
        """Format the report for the log."""
        labels = ("loaded", "initialised", "of the file ignored")
        kinds = zip(labels, (self.loaded, self.initialised, self.ignored), strict=True)
        lines = [f"{len(names)} tensors {kind}{_by_part(names)}" for kind, names in kinds if names]
        lines += [f"adapted to the model's shape: {name}" for name in self.adapted]
        return [*lines, f"CLIP's weights: {self.clip}"]


def _by_part(names: list[str]) -> str:
    """Count names by their first part, or first two below "model."."""
    depth = {name: 2 if name.startswith("model.") else 1 for name in names}
    parts = Counter(".".join(name.split(".")[: depth[name]]) for name in names)
    most = ", ".join(f"{part} {count}" for part, count in parts.most_common(6))
    return f": {most}" + (", ..." if len(parts) > 6 else "")


def init_model(
    config: SyncDreamerConfig, seed: int, model_class: type[SyncDreamer] = SyncDreamer
) -> SyncDreamer:
    """Build a model with random initial values that depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config)


@torch.no_grad()
def load_pretrained(model: SyncDreamer, path: Path | None, clip_from: str) -> InitReport:
    """Load pretrained weights into a new model on the CPU, in place, by their exact names.

    `path` is a checkpoint of Zero123 or of this project, Zero123's folder in diffusers' layout, or
    an autoencoder. `clip_from` is "auto" (that checkpoint if it has CLIP, else OpenAI's file in
    ckpt/), a file (OpenAI's, or a checkpoint of Zero123 or of this project), or "random".
    ValueError names a file that does not fit.
    """
    state: dict[str, Tensor] = {}
    if path is not None:
        folder = path.is_dir()
        state = read_diffusers_folder(path) if folder else read_state_dict(path)
    expected = model.state_dict()
    adapted = [] if path is None else _adapt(state, expected, path)
    loaded = [name for name in expected if name in state]
    for name in loaded:
        expected[name].copy_(state[name])
    initialised = [n for n in expected if n not in state and not n.startswith(CLIP_PREFIX)]
    ignored = [name for name in state if name not in expected]
    clip_names = [name for name in expected if name.startswith(CLIP_PREFIX)]
    if model.config.image_encoder == "none":
        clip = "none, the model has no CLIP"
    elif clip_from == "auto" and all(name in state for name in clip_names):
        clip = str(path)
    else:
        clip = _load_clip(model, path, state, clip_from)
    return InitReport(loaded, adapted, initialised, ignored, clip)


def _adapt(state: dict[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> list[str]:
    """Widen a first layer without the input view's channels by zeros; return the widened names."""
    common = [name for name in expected if name in state]
    adapted: list[str] = []
    if FIRST_LAYER in state:
        first, target = state[FIRST_LAYER], expected[FIRST_LAYER]
        if first.shape == target[:, : target.shape[1] // 2].shape:
            state[FIRST_LAYER] = torch.cat([first, torch.zeros_like(first)], dim=1)
            adapted = [FIRST_LAYER]
    elif not common or not all(name.startswith(AUTOENCODER_PREFIX) for name in state):
        hint = "none of its names is one of the model's" if not common else f"no {FIRST_LAYER}"
        raise ValueError(
            f"{path}: cannot be trained from: {hint}. The file looks like "
            f"{describe_state_dict(state)}; expected is Zero123's, zero123-xl.ckpt, or an "
            f"autoencoder alone, from train_autoencoder.py"
        )
    wrong = [name for name in common if state[name].shape != expected[name].shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{path}: {len(wrong)} tensors have another shape than in the model, the first is "
            f"{name}: {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        )
    return adapted


def _load_clip(
    model: SyncDreamer, path: Path | None, state: Mapping[str, Tensor], clip_from: str
) -> str:
    """Load CLIP's weights; return their source."""
    if clip_from == "random":
        log.warning("CLIP has random weights: this model is for tests only")
        return "random"
    source: Path | None = Path(clip_from)
    if clip_from == "auto":
        files = [folder / file for folder in (Path(), PROJECT) for file in DEFAULT_CLIP_FILES]
        in_state = any(name.startswith(CLIP_IN_ZERO123) for name in state)
        source = path if in_state else next(filter(Path.is_file, files), None)
    if source is None:
        raise FileNotFoundError(
            f"CLIP's weights are missing: {f'{path} has none and ' if path else ''}"
            f"{DEFAULT_CLIP_FILES[0]} does not exist; `python -m ldm.download clip` fetches that "
            f"file, the setting run.clip_from names another one"
        )
    found = state
    if is_torchscript(source):
        found = read_openai_clip(source)
    elif source != path:
        found = read_state_dict(source)
    weights = _find_clip(found)
    assert isinstance(model.clip_image_encoder, CLIPImageEncoder)
    # The text parameters, which nothing computes with, may be missing.
    tower = model.clip_image_encoder.model.state_dict()
    expected = {n: t for n, t in tower.items() if n in weights or n.startswith("visual.")}
    wrong = [n for n, t in expected.items() if n not in weights or weights[n].shape != t.shape]
    if wrong:
        raise ValueError(
            f"{source}: does not hold CLIP's weights: {len(wrong)} tensors are missing or have "
            f"another shape (first: {wrong[0]})"
        )
    for name, tensor in expected.items():
        tensor.copy_(weights[name])
    return str(source)


def _find_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find CLIP's tensors in a state dict and return them by CLIP's own names."""
    for prefix in (CLIP_PREFIX, CLIP_IN_ZERO123, ""):
        found = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        if found:
            return found
    return {}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_openai_clip(path: Path) -> dict[str, Tensor]:
    """Read the tensors of OpenAI's file, a TorchScript archive; raise ValueError for any other.

    Loading such an archive runs code in it, so the published file is recognised by its checksum.
    """
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
