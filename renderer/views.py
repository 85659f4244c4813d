"""Read the views of an object, and find its mask in each of them."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write
from multiview.cameras import NUM_VIEWS, orbit_cameras
from multiview.mask_check import looks_inverted, refuse_faint
from multiview.segmentation import clean_alpha, open_segmenter
from multiview.views import read_views_and_alpha
from renderer.config import RendererConfig
from renderer.framing import frame_views
from renderer.mask_repair import fit_in_reverse, repair_masks
from renderer.methods.base import Views
from renderer.posed_views import READ_PIXELS, read_posed_views

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


def read_input(
    path: Path, config: RendererConfig, device: str, cameras_file: Path | None = None
) -> tuple[Views, str]:
    """Read a strip of 16 views, or a folder of them, segment them, and check them.

    With a file of cameras the folder has images by these, see `read_posed_views`.

    Returns:
        the views, with masks if the configuration uses them, and the SHA-256 of images and alpha.

    Raises:
        FileNotFoundError, ValueError: the file is missing or unsuitable.
        MaskError: no view has a usable mask, or most are inverted.
    """
    posed = None if cameras_file is None else read_posed_views(path, cameras_file)
    if posed is None:
        most = math.isqrt(READ_PIXELS // NUM_VIEWS)
        images, alpha = map(_listed, read_views_and_alpha(path, NUM_VIEWS, most))
    else:
        images, alpha = [view.image for view in posed.views], posed.alphas()
    assert images is not None
    _check_shown(path, images, alpha)
    digest = hashlib.sha256()
    for array in (*images, *(alpha or ())):
        digest.update(array.tobytes())
    masks = _find_masks(path, images, alpha, config, device) if config.use_mask else None
    if posed is None:
        cameras = orbit_cameras(len(images), image_size=len(images[0]))
        views = Views(np.stack(images), None if masks is None else np.stack(masks), cameras)
        _check_order(path, views)
    else:
        if masks is not None and alpha is None and config.segmenter != "white":
            pairs = zip(images, masks, strict=True)
            images = [1 - mask[..., None] * (1 - image) for image, mask in pairs]
        try:
            views = frame_views(posed, images, masks)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        digest.update(views.cameras.intrinsics.tobytes() + views.cameras.world_to_camera.tobytes())
    if views.masks is not None and config.repair_masks:
        repaired = repair_masks(views.masks, views.cameras)
        views = replace(views, masks=repaired.masks, replaced=repaired.replaced)
        if views.replaced:
            said = "%s: the masks of views %s contradict the others and are replaced by their hull"
            log.warning(said, path, ", ".join(map(str, views.replaced)))
    return views, digest.hexdigest()


def _check_shown(path: Path, images: list[np.ndarray], alpha: list[np.ndarray] | None) -> None:
    """Raise ValueError if there is nothing in the images, by their alpha or colours."""
    highest = round(255 * max(float(mask.max()) for mask in alpha)) if alpha else 255
    if highest == 0:
        raise ValueError(
            f"{path}: the alpha is 0 everywhere, expected 1 on the object, or views without alpha"
        )
    try:
        refuse_faint(highest)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if min(image.min() for image in images) >= WHITE:
        raise ValueError(f"{path}: all views are white: there is no object in them")


def _listed(array: np.ndarray | None) -> list[np.ndarray] | None:
    return None if array is None else list(array)


def _find_masks(
    path: Path,
    images: list[np.ndarray],
    alpha: list[np.ndarray] | None,
    config: RendererConfig,
    device: str,
) -> list[np.ndarray]:
    """Masks of the images: their alpha, or else what the segmenter finds."""
    if alpha is None:
        log.info("segmenting the %d views (segmenter %s)", len(images), config.segmenter)
        segment = open_segmenter(config.segmenter, device)
        masks = [clean_alpha(segment(image)) for image in images]
    else:
        log.info("using the alpha of %s as masks", path)
        masks = alpha
    _check_masks(path, masks, config.segmenter if alpha is None else None)
    return masks


def _check_order(path: Path, views: Views) -> None:
    """Raise ValueError if the masks of the 16 views fit together in reverse order only."""
    shares = None if views.masks is None else fit_in_reverse(views.masks, views.cameras)
    if shares:
        raise ValueError(
            f"{path}: the views fit together in reverse order only ({shares[0]:.0%} of the masks "
            f"contradict the others as they are, {shares[1]:.0%} in reverse): view 0 stays, the "
            f"last one becomes view 1, and so on"
        )


def _check_masks(path: Path, masks: list[np.ndarray], segmenter: str | None) -> None:
    """Raise MaskError if masks (H, W) cannot be the object's, and warn if some are not."""
    inverted = sum(looks_inverted(mask >= 0.5) for mask in masks)
    if 2 * inverted > len(masks):
        said = f"{inverted} of {len(masks)} masks cover all borders and leave the middle free"
        raise MaskError(f"{path}: {said}: are they inverted, 255 on the background?", segmenter)
    shares = np.array([(mask >= 0.5).mean() for mask in masks])
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
