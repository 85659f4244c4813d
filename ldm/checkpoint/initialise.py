"""The weights that training begins with: from Zero123, from CLIP's file, the rest fresh.

Names are compared exactly; what is taken, what is fresh and where CLIP is from is reported.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ldm.checkpoint.files import describe_state_dict, read_state_dict
from ldm.checkpoint.openai_clip import is_torchscript, read_torchscript, select_clip_weights
from ldm.config import SyncDreamerConfig
from ldm.model import SyncDreamer
from ldm.networks.clip import CLIPImageEncoder

log = logging.getLogger(__name__)

FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"
CLIP_PREFIX = "clip_image_encoder.model."
AUTOENCODER_PREFIX = "first_stage_model."
CLIP_IN_ZERO123 = "cond_stage_model.model."
DEFAULT_CLIP_FILES = (Path("ckpt/ViT-L-14.pt"), Path("ckpt/ViT-L-14.ckpt"))


@dataclass(frozen=True)
class InitReport:
    """Where the weights of a model are from.

    Attributes:
        taken: names whose tensors are the file's.
        adapted: of these, those whose shape was made to fit.
        fresh: names that keep their initial values, CLIP's not counted.
        ignored: names that only the file has.
        clip: where CLIP's weights are from, in words.
    """

    taken: list[str]
    adapted: list[str]
    fresh: list[str]
    ignored: list[str]
    clip: str

    def lines(self) -> list[str]:
        """Say it, a line a fact."""
        facts = (("taken", self.taken), ("fresh", self.fresh), ("ignored", self.ignored))
        lines = [f"{len(names)} names {word}{_by_part(names)}" for word, names in facts if names]
        lines += [f"adapted to the model's shape: {name}" for name in self.adapted]
        return [*lines, f"CLIP's weights: {self.clip}"]


def _by_part(names: list[str]) -> str:
    """Count names by their first two parts, or their first where there is no second."""
    parts = Counter(".".join(name.split(".")[: 2 if name.startswith("model.") else 1])
                    for name in names)  # fmt: skip
    most = ", ".join(f"{part} {count}" for part, count in parts.most_common(6))
    return f": {most}" + (", ..." if len(parts) > 6 else "")


def init_model(config: SyncDreamerConfig, seed: int) -> SyncDreamer:
    """Build a model with initial values that follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SyncDreamer(config)


@torch.no_grad()
def load_pretrained(model: SyncDreamer, path: Path | None, clip_from: str) -> InitReport:
    """Give a fresh model the weights to start from.

    Args:
        model: on the CPU; changed in place.
        path: Zero123's checkpoint, or one of this project; None takes nothing.
        clip_from: "auto" (that checkpoint where it has CLIP, else CLIP's own file in ckpt/), a
            file (CLIP's own, Zero123's or a checkpoint of ours), or "random".

    Raises:
        FileNotFoundError, ValueError: a file cannot be read or does not fit; names the file.
    """
    state = {} if path is None else read_state_dict(path, placeholders=True)
    expected = model.state_dict()
    adapted = []
    if path is not None:
        adapted = _adapt(state, expected, path)
    taken = [name for name in expected if name in state]
    for name in taken:
        expected[name].copy_(state[name])
    fresh = [n for n in expected if n not in state and not n.startswith(CLIP_PREFIX)]
    ignored = [name for name in state if name not in expected]
    clip_names = [name for name in expected if name.startswith(CLIP_PREFIX)]
    if model.config.image_encoder == "none":
        clip = "none, the model has no CLIP"
    elif clip_from == "auto" and all(name in state for name in clip_names):
        clip = str(path)
    else:
        clip = _load_clip(model, path, state, clip_from)
    model.forget_precomputed()
    return InitReport(taken, adapted, fresh, ignored, clip)


def _adapt(state: dict[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> list[str]:
    """Widen the first layer where it lacks the input view's channels; refuse what does not fit."""
    common = [name for name in expected if name in state]
    adapted: list[str] = []
    if FIRST_LAYER in state:
        adapted = _widen_first_layer(state, expected[FIRST_LAYER], path)
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


def _widen_first_layer(state: dict[str, Tensor], target: Tensor, path: Path) -> list[str]:
    """Add the input view's channels, as zeros, to a first layer without them; say so."""
    first = state[FIRST_LAYER]
    if first.shape == target.shape:
        return []
    out_channels, in_channels, *kernel = target.shape
    if first.shape != (out_channels, in_channels // 2, *kernel):
        raise ValueError(
            f"{path}: {FIRST_LAYER} is {tuple(first.shape)}, expected {tuple(target.shape)}, "
            f"or half as many input channels"
        )
    state[FIRST_LAYER] = torch.cat([first, torch.zeros_like(first)], dim=1)
    return [FIRST_LAYER]


def _load_clip(
    model: SyncDreamer, path: Path | None, state: Mapping[str, Tensor], clip_from: str
) -> str:
    """Give the model CLIP's weights; say where they are from."""
    if clip_from == "random":
        log.warning("CLIP has random weights: this model is good for tests only")
        return "random"
    source: Path | None = None
    if clip_from == "auto":
        if any(name.startswith(CLIP_IN_ZERO123) for name in state):
            source = path
        else:
            source = next((file for file in DEFAULT_CLIP_FILES if file.is_file()), None)
        if source is None:
            raise FileNotFoundError(
                f"CLIP's weights are needed: neither {path or '--finetune_from'} nor "
                f"{DEFAULT_CLIP_FILES[0]} has them; ckpt/README.md says where to get that file, "
                f"--set run.clip_from=<file> names another one"
            )
    else:
        source = Path(clip_from)
    found = state if source == path else read_clip_weights(source)
    weights = _find_clip(found)
    assert isinstance(model.clip_image_encoder, CLIPImageEncoder)
    expected = model.clip_image_encoder.model.state_dict()
    missing = [name for name in expected if name not in weights]
    wrong = [n for n in expected if n in weights and weights[n].shape != expected[n].shape]
    if missing or wrong:
        name = (missing or wrong)[0]
        raise ValueError(
            f"{source}: does not hold CLIP's weights: {len(missing)} tensors are missing and "
            f"{len(wrong)} have another shape (first: {name})"
        )
    for name, tensor in expected.items():
        tensor.copy_(weights[name])
    return str(source)


def read_clip_weights(path: Path) -> dict[str, Tensor]:
    """Read any file that has CLIP's weights; nothing in it is run."""
    if is_torchscript(path):
        return read_torchscript(path)
    return read_state_dict(path, placeholders=True)


def _find_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find CLIP's tensors in a file's, by CLIP's own names."""
    for prefix in (CLIP_PREFIX, CLIP_IN_ZERO123, ""):
        found = {
            name.removeprefix(prefix): tensor
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
        if found:
            return select_clip_weights(found)
    return {}
