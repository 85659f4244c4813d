"""What a reconstruction is given: the views of one object, and where in them it is."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write
from multiview.cameras import orbit_cameras
from multiview.segmentation import BACKENDS, clean_alpha, open_segmenter
from multiview.views import read_views_and_alpha
from renderer.config import RendererConfig
from renderer.mask_repair import repair_masks
from renderer.methods.base import Views

log = logging.getLogger(__name__)

WHITE = 0.98
"""A picture without any darker pixel shows nothing."""
FULL = 0.995
"""A mask with a larger share of the picture did not find the object."""


@dataclass(frozen=True)
class Input:
    """The views of one object, ready to be reconstructed.

    Attributes:
        views: with masks where they are used.
        fingerprint: hash of what the file holds, views and alpha.
    """

    views: Views
    fingerprint: str


def read_input(path: Path, config: RendererConfig, device: str) -> Input:
    """Read the views of an object, find it in them, and check that it can be reconstructed.

    Args:
        path: a strip of 16 views, or a folder of them, see `read_views`.
        config: says whether and how the object is found.
        device: for the network that finds it, see `pick_device`.

    Raises:
        FileNotFoundError, ValueError: naming the file, what is wrong with it, and what to do.
    """
    images, alpha = read_views_and_alpha(path)
    if alpha is not None and not alpha.any():
        raise ValueError(
            f"{path}: the alpha is 0 everywhere, so nothing is to be seen: give views whose alpha "
            f"is 1 where the object is, or views without alpha"
        )
    if images.min() >= WHITE:
        raise ValueError(f"{path}: all views are white: there is no object in them")
    digest = hashlib.sha256(images.tobytes())
    digest.update(b"" if alpha is None else alpha.tobytes())
    cameras = orbit_cameras(len(images), image_size=images.shape[1])
    if not config.use_mask:
        return Input(Views(images, None, cameras), digest.hexdigest())

    if alpha is None:
        log.info("finding the object in the %d views (segmenter %s)", len(images), config.segmenter)
        segment = open_segmenter(config.segmenter, device)
        masks = np.stack([clean_alpha(segment(image)) for image in images])
    else:
        log.info("the alpha of %s says where the object is", path)
        masks = alpha
    _check_masks(path, masks, config.segmenter if alpha is None else None)
    replaced: tuple[int, ...] = ()
    if config.repair_masks:
        try:
            repaired = repair_masks(masks, cameras)
        except ValueError as error:
            raise ValueError(
                f"{path}: the masks cannot be repaired ({error}); go on without that "
                f"(--set repair_masks=false)"
            ) from error
        masks, replaced = repaired.masks, repaired.replaced
        if replaced:
            log.warning(
                "%s: the masks of views %s do not fit the others' and are replaced by what those "
                "say (off: --set repair_masks=false)", path, ", ".join(map(str, replaced)),
            )  # fmt: skip
    return Input(Views(images, masks, cameras, replaced), digest.hexdigest())


def _check_masks(path: Path, masks: np.ndarray, segmenter: str | None) -> None:
    """Refuse masks that are all spoiled, and warn of single ones.

    Args:
        path: of the views, for messages.
        masks: in [0, 1], (N, S, S).
        segmenter: that made them; None where they are the views' own alpha.
    """
    shares = (masks >= 0.5).mean(axis=(1, 2))
    empty, full = shares == 0, shares > FULL
    if not (empty | full).any():
        return
    numbers = {
        name: ", ".join(map(str, np.flatnonzero(views)))
        for name, views in (("empty", empty), ("full", full))
        if views.any()
    }
    found = " and ".join(f"{name} in views {which}" for name, which in numbers.items())
    if (empty | full).all():
        what = "all empty" if empty.all() else "all full" if full.all() else found
        if segmenter is None:
            made, advice = "from their alpha", "views with a better alpha"
        else:
            *most, last = [name for name in BACKENDS if name not in ("auto", segmenter)]
            made = f"by segmenter {segmenter}"
            advice = (
                f"RGBA views (alpha = object), take another segmenter "
                f"(--set segmenter={', '.join(most)} or {last})"
            )
        raise ValueError(
            f"{path}: the masks {made} are {what}, so the object was not found: give {advice}, or "
            f"do without masks (--set use_mask=false)"
        )
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
