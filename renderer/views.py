"""Read the views of an object, and find its mask in each of them."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write
from multiview.cameras import orbit_cameras
from multiview.segmentation import clean_alpha, open_segmenter
from multiview.views import read_views_and_alpha
from renderer.config import RendererConfig
from renderer.mask_repair import fit_in_reverse, repair_masks
from renderer.methods.base import Views

log = logging.getLogger(__name__)

WHITE = 0.98
"""Views without any pixel below this are taken as empty."""
FULL = 0.995
"""A mask that covers more than this share of the image did not find the object."""


class MaskError(ValueError):
    """No view has a usable mask; `segmenter` made them, None if they are the views' own alpha."""

    def __init__(self, message: str, segmenter: str | None = None) -> None:
        super().__init__(message)
        self.segmenter = segmenter


def read_input(path: Path, config: RendererConfig, device: str) -> tuple[Views, str]:
    """Read a strip of 16 views, or a folder of them, segment them, and check them.

    Returns:
        the views, with masks if the configuration uses them, and the SHA-256 of images and alpha.

    Raises:
        FileNotFoundError, ValueError: the file is missing or unsuitable.
        MaskError: no view has a usable mask.
    """
    images, alpha = read_views_and_alpha(path)
    if alpha is not None and not alpha.any():
        raise ValueError(
            f"{path}: the alpha is 0 everywhere, expected 1 on the object, or views without alpha"
        )
    if images.min() >= WHITE:
        raise ValueError(f"{path}: all views are white: there is no object in them")
    digest = hashlib.sha256(images.tobytes())
    digest.update(b"" if alpha is None else alpha.tobytes())
    cameras = orbit_cameras(len(images), image_size=images.shape[1])
    if not config.use_mask:
        return Views(images, None, cameras), digest.hexdigest()

    if alpha is None:
        log.info("segmenting the %d views (segmenter %s)", len(images), config.segmenter)
        segment = open_segmenter(config.segmenter, device)
        masks = np.stack([clean_alpha(segment(image)) for image in images])
    else:
        log.info("using the alpha of %s as masks", path)
        masks = alpha
    _check_masks(path, masks, config.segmenter if alpha is None else None)
    shares = fit_in_reverse(masks, cameras)
    if shares:
        raise ValueError(
            f"{path}: the views fit together in reverse order only ({shares[0]:.0%} of the masks "
            f"contradict the others as they are, {shares[1]:.0%} in reverse): view 0 stays, the "
            f"last one becomes view 1, and so on"
        )
    replaced: tuple[int, ...] = ()
    if config.repair_masks:
        repaired = repair_masks(masks, cameras)
        masks, replaced = repaired.masks, repaired.replaced
        if replaced:
            said = "%s: the masks of views %s contradict the others and are replaced by their hull"
            log.warning(said, path, ", ".join(map(str, replaced)))
    return Views(images, masks, cameras, replaced), digest.hexdigest()


def _check_masks(path: Path, masks: np.ndarray, segmenter: str | None) -> None:
    """Raise MaskError if all masks (N, S, S) are empty or full, and warn if some are."""
    shares = (masks >= 0.5).mean(axis=(1, 2))
    empty, full = shares == 0, shares > FULL
    if not (empty | full).any():
        return
    found = " and ".join(
        f"{name} in views {', '.join(map(str, np.flatnonzero(views)))}"
        for name, views in (("empty", empty), ("full", full))
        if views.any()
    )
    if (empty | full).all():
        what = "all empty" if empty.all() else "all full" if full.all() else found
        source = "from the alpha" if segmenter is None else f"of segmenter {segmenter}"
        said = f"{path}: the masks {source} are {what}: the object was not found"
        raise MaskError(said, segmenter)
    log.warning("%s: the mask is %s", path, found)


def write_input(folder: Path, views: Views) -> None:
    """Write the views as input-<k>.png, and with the masks as alpha as masked-<k>.png."""
    levels = np.round(views.images * 255).astype(np.uint8)
    for index, pixels in enumerate(levels):
        _write(folder / f"input-{index}.png", pixels)
        if views.masks is not None:
            alpha = np.round(np.clip(views.masks[index], 0, 1) * 255).astype(np.uint8)
            _write(folder / f"masked-{index}.png", np.dstack([pixels, alpha]))


def _write(path: Path, pixels: np.ndarray) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary)
