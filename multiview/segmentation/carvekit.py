"""The published script's segmentation networks, from the package carvekit."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import numpy as np

from common.devices import pick_device
from multiview.segmentation.base import SegmentationUnavailableError, check_image, to_pil

log = logging.getLogger(__name__)

CARVEKIT_WEIGHTS = ("tracer_b7/tracer_b7.pth", "fba/fba_matting.pth")


class CarveKit:
    """The published script's masks: TRACER with an EfficientNet-B7, refined by FBA matting.

    Raises:
        SegmentationUnavailableError: the package or its weights are not on this machine; nothing is
            downloaded.
        ValueError: the device, see `pick_device`, cannot be used.
    """

    def __init__(self, device: str = "auto") -> None:
        _check_carvekit_weights()
        chosen = pick_device(device)
        if chosen.index:  # the package compares the name with "cuda"
            raise ValueError(
                f"device {device}: carvekit uses the first GPU only; "
                f"CUDA_VISIBLE_DEVICES={chosen.index} makes another one the first"
            )
        try:
            from carvekit.api.high import HiInterface
            from carvekit.utils.download_models import MODELS_CHECKSUMS, sha512_checksum_calc
        except Exception as error:  # its many dependencies fail in many ways
            raise SegmentationUnavailableError(f"carvekit does not import: {error}") from error
        for path in _carvekit_weights():  # carvekit deletes and downloads others
            if sha512_checksum_calc(path) != MODELS_CHECKSUMS[path.name]:
                raise SegmentationUnavailableError(
                    f"{path}: not the weights that carvekit expects (SHA-512 differs)"
                )
        self.interface = HiInterface(
            object_type="object",
            batch_size_seg=5,
            batch_size_matting=1,
            device=chosen.type,
            seg_mask_size=640,
            matting_mask_size=2048,
            trimap_prob_threshold=231,
            trimap_dilation=30,
            trimap_erosion_iters=5,
            fp16=chosen.type == "cuda",
        )
        log.info("segmentation: carvekit on %s", chosen.type)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Find the object, see `Segmenter`."""
        check_image(image)
        rgba = self.interface([to_pil(image)])[0]
        return np.asarray(rgba.getchannel("A")).astype(np.float32) / 255.0


def _carvekit_weights() -> list[Path]:
    return [Path.home() / ".cache/carvekit/checkpoints" / name for name in CARVEKIT_WEIGHTS]


def _check_carvekit_weights() -> None:
    if importlib.util.find_spec("carvekit") is None:
        raise SegmentationUnavailableError("carvekit is not installed: pip install carvekit")
    missing = [str(path) for path in _carvekit_weights() if not path.is_file()]
    if missing:
        raise SegmentationUnavailableError(
            f"carvekit's weights are not on this machine: {' and '.join(missing)}; they are at "
            f"https://huggingface.co/Carve (tracer_b7 and fba); u2net needs none of them"
        )
