"""Bring views by any cameras into the renderer's coordinates, as square views of one size.

The object is found by its masks, or else where the cameras look; it is moved to the origin and
scaled to a longest side of 1. Each view is then cut out around it, as wide as the rig's views are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from multiview.cameras import (
    CAMERA_DISTANCE,
    FOCAL_LENGTH,
    OBJECT_HALF_SIDE,
    REFERENCE_IMAGE_SIZE,
    Cameras,
    orbit_cameras,
)
from multiview.posed_images import VIEWS_AT_LEAST
from multiview.visual_hull import cell_centres, close_underside, visual_hull
from renderer.methods.base import Views
from renderer.posed_views import PosedView, PosedViews, camera_centres, common_point

log = logging.getLogger(__name__)

VIEW_PIXELS = 16 * 512**2
"""Most pixels of all cut-out views together."""
MOST_PIXELS = 512
"""Most pixels a side of a cut-out view."""
_RIG_WIDTH = CAMERA_DISTANCE * REFERENCE_IMAGE_SIZE / FOCAL_LENGTH
"""World units that the rig's views are wide at the origin."""
_MARGIN = 1.06
"""Width of a cut-out view, at least, relative to the object in it."""
_CUT_OFF = 0.01
"""Share of an image's border, at least, that the object covers if it is not all in the image."""
_CELLS = 64
_MASK_SIZE = 192
"""Cells a side, and pixels a side of masks, to find the object."""
_WRONG_MASKS = 0.1
"""Largest share of the masks that may miss a part of the object to be found."""
_SAME_CAMERAS = 1e-9
"""Cameras this close to the rig's are the rig: then the result is that of a strip."""


@dataclass(frozen=True)
class Placement:
    """Similarity from the given world to the renderer's: x to scale * rotation @ (x - centre)."""

    rotation: np.ndarray
    centre: np.ndarray
    scale: float

    def poses(self, poses: np.ndarray) -> np.ndarray:
        """World-to-camera poses (N, 3, 4) of the given world to those of the renderer's."""
        rotations, translations = poses[:, :, :3], poses[:, :, 3]
        moved = self.scale * (rotations @ self.centre + translations)
        return np.concatenate([rotations @ self.rotation.T, moved[:, :, None]], axis=2)

    def to_given(self) -> np.ndarray:
        """Matrix (4, 4) from the renderer's world to the given one."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation.T / self.scale
        matrix[:3, 3] = self.centre
        return matrix


def frame_views(
    posed: PosedViews, images: Sequence[np.ndarray], masks: Sequence[np.ndarray] | None
) -> Views:
    """Cut the object out of the images (H, W, 3) of `posed`, whose masks are (H, W).

    Views whose object is not all in the image are left out. Views of one size that is small enough
    stay whole where the file of cameras says where the object is.

    Raises:
        ValueError: the cameras do not look at one object, or too few views show all of it.
    """
    views, images = list(posed.views), list(images)
    shapes = {image.shape[:2] for image in images}
    size = max(max(shapes))
    if posed.cube and shapes == {(size, size)} and len(images) * size**2 <= VIEW_PIXELS:
        placement = Placement(np.eye(3), posed.cube.centre, 2 * OBJECT_HALF_SIDE / posed.cube.side)
        intrinsics = np.stack([view.intrinsics for view in views])
        cameras = _to_cameras(intrinsics, placement.poses(_poses(views)), size)
        stacked = None if masks is None else np.stack(masks)
        matrix = placement.to_given()
        to_given = None if np.array_equal(matrix, np.eye(4)) else matrix
        return Views(np.stack(images), stacked, cameras, to_given=to_given)
    if masks is not None:
        whole = [k for k, mask in enumerate(masks) if _is_whole(mask)]
        if len(whole) < len(views):
            names = ", ".join(view.name for k, view in enumerate(views) if k not in whole)
            log.warning("left out, as they do not show all of the object by their masks: %s", names)
        if len(whole) < VIEWS_AT_LEAST:
            found = f"by the masks, {len(whole)} of {len(views)} images show all of the object"
            raise ValueError(f"{found}, expected at least {VIEWS_AT_LEAST}")
        views, images = [views[k] for k in whole], [images[k] for k in whole]
        masks = [masks[k] for k in whole]
    placement = _place(posed, views, masks)
    return _cut_out(views, images, masks, placement)


def _poses(views: Sequence[PosedView]) -> np.ndarray:
    return np.stack([view.world_to_camera for view in views])


def _is_whole(mask: np.ndarray) -> bool:
    """Whether a mask has an object that does not reach the image's border."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]) >= 0.5
    return bool((mask >= 0.5).any() and border.mean() <= _CUT_OFF)


def _to_cameras(intrinsics: np.ndarray, poses: np.ndarray, size: int) -> Cameras:
    """Cameras with their angles; the rig itself if they are the rig's."""
    rig = orbit_cameras(len(poses), image_size=size)
    same = np.abs(poses - rig.world_to_camera).max() < _SAME_CAMERAS
    if same and np.abs(intrinsics - rig.intrinsics).max() < _SAME_CAMERAS:
        return rig
    x, y, z = camera_centres(poses).T
    return Cameras(intrinsics, poses, np.arctan2(y, x), np.arctan2(z, np.hypot(x, y)))


def _place(
    posed: PosedViews, views: Sequence[PosedView], masks: Sequence[np.ndarray] | None
) -> Placement:
    """Where the object is: the file's cube, else by masks, else the middle of the views."""
    if posed.cube is not None:
        return Placement(np.eye(3), posed.cube.centre, 2 * OBJECT_HALF_SIDE / posed.cube.side)
    poses = _poses(views)
    rotation = np.eye(3) if posed.z_up else _rotation_to_z_up(-poses[:, 1, :3].mean(axis=0))
    everywhere = [np.ones(view.image.shape[:2], np.float32) for view in views]
    boxes = [_box(mask) for mask in masks or everywhere]
    middles = np.array([[(a + b) / 2, (c + d) / 2, 1.0] for a, b, c, d in boxes])
    intrinsics = np.stack([view.intrinsics for view in views])
    rays = np.einsum("nji,njk,nk->ni", poses[:, :, :3], np.linalg.inv(intrinsics), middles)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    centre = common_point(camera_centres(poses), rays)
    depths = poses[:, 2, :3] @ centre + poses[:, 2, 3]
    if depths.min() <= 0:
        raise ValueError(
            f"the views' middles meet behind the camera of {views[int(depths.argmin())].name}: "
            "the cameras do not look at one object, or have other axes than the format's"
        )
    lengths = np.array([max(b - a, d - c) for a, b, c, d in boxes])
    sides = lengths / intrinsics[:, 0, 0] * depths
    if masks is None:
        return Placement(rotation, centre, _RIG_WIDTH / float(np.median(sides)))
    placement = Placement(rotation, centre, 1 / (math.sqrt(2) * float(sides.max())))
    small = [_small_mask(view, mask) for view, mask in zip(views, masks, strict=True)]
    for _ in range(2):
        placement = _fit_hull(placement, views, small)
    return placement


def _rotation_to_z_up(up: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that turns a direction, such as the images' upwards, to z."""
    length = np.linalg.norm(up)
    if length < 1e-3:  # the images are turned to all sides
        return np.eye(3)
    axis = np.cross(up / length, [0.0, 0.0, 1.0])
    sine, angle = np.linalg.norm(axis), np.arccos(np.clip(up[2] / length, -1, 1))
    if sine < 1e-9:
        return np.eye(3) if up[2] > 0 else np.diag([1.0, -1.0, -1.0])
    return Rotation.from_rotvec(axis / sine * angle).as_matrix()


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, right, top and bottom, in pixels from the image's corner, of a mask with an object."""
    rows, columns = np.nonzero(mask >= 0.5)
    return int(columns.min()), int(columns.max()) + 1, int(rows.min()), int(rows.max()) + 1


def _small_mask(view: PosedView, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mask reduced to `_MASK_SIZE`, bool, and its intrinsics."""
    reduced = min(1.0, _MASK_SIZE / max(mask.shape))
    size = tuple(max(1, round(side * reduced)) for side in mask.shape[::-1])
    small = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    scale = np.array([[size[0] / mask.shape[1]], [size[1] / mask.shape[0]], [1.0]])
    return np.asarray(small) >= 0.3, view.intrinsics * scale  # low, so that thin parts stay


def _fit_hull(
    placement: Placement, views: Sequence[PosedView], masks: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Placement:
    """Move and scale a placement so that the masks' hull is in the middle, its longest side 1.

    A few masks may be wrong: the hull is what all others have in common.
    """
    poses = placement.poses(_poses(views))
    layers = []
    for pose, (mask, intrinsics) in zip(poses, masks, strict=True):
        camera = _to_cameras(intrinsics[None], pose[None], len(mask))
        layers.append(visual_hull(mask[None], camera, _CELLS))
    wrong = int(_WRONG_MASKS * len(layers))
    hull = np.partition(np.stack(layers), -1 - wrong, axis=0)[-1 - wrong]
    if not (hull < 0).any():
        raise ValueError(
            "the masks have no volume in common: the images are not of one object by these "
            "cameras, the cameras have other axes than the format's, or the masks are wrong"
        )
    closed = close_underside(hull, _to_cameras(np.stack([k for _, k in masks]), poses, 1))
    cells = np.argwhere(closed < 0)
    centres = cell_centres(_CELLS)
    spacing = centres[1] - centres[0]
    low, high = centres[cells.min(axis=0)] - spacing / 2, centres[cells.max(axis=0)] + spacing / 2
    middle = placement.to_given() @ [*(low + high) / 2, 1.0]
    return Placement(placement.rotation, middle[:3], placement.scale / float((high - low).max()))


def _cut_out(
    views: Sequence[PosedView],
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray] | None,
    placement: Placement,
) -> Views:
    poses = placement.poses(_poses(views))
    depths = poses[:, 2, 3]
    if np.abs(camera_centres(poses)).max(axis=1).min() <= OBJECT_HALF_SIDE or depths.min() <= 0:
        raise ValueError("a camera is inside of the object's cube, or looks away from it")
    windows = []
    for k, view in enumerate(views):
        middle = view.intrinsics @ poses[k, :, 3]
        x, y = middle[:2] / middle[2]
        half = _RIG_WIDTH / 2 * view.intrinsics[0, 0] / depths[k]
        if masks is not None:
            a, b, c, d = _box(masks[k])
            half = max(half, _MARGIN * max(x - a, b - x, y - c, d - y))
        windows.append((x - half, y - half, 2 * half))
    most = min(MOST_PIXELS, math.sqrt(VIEW_PIXELS / len(views)), np.median(windows, axis=0)[2])
    size = max(16, int(most) // 16 * 16)
    intrinsics = []
    for view, (left, top, side) in zip(views, windows, strict=True):
        shift = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
        intrinsics.append(np.diag([size / side, size / side, 1.0]) @ shift @ view.intrinsics)
    cut = [
        np.stack([_cut(c, window, size, 1.0) for c in np.moveaxis(image, -1, 0)], axis=-1)
        for image, window in zip(images, windows, strict=True)
    ]
    cut_masks = None
    if masks is not None:
        pairs = zip(masks, windows, strict=True)
        cut_masks = np.stack([_cut(mask, window, size, 0.0) for mask, window in pairs])
    cameras = _to_cameras(np.stack(intrinsics), poses, size)
    return Views(np.stack(cut), cut_masks, cameras, to_given=placement.to_given())


def _cut(
    channel: np.ndarray, window: tuple[float, float, float], size: int, outside: float
) -> np.ndarray:
    """Resample a square window (left, top, side) of a channel (H, W) to `size` pixels a side."""
    left, top, side = window
    height, width = channel.shape
    most = max(-left, -top, left + side - width, top + side - height)
    pad = max(0, math.ceil(most))
    padded = Image.fromarray(np.pad(channel.astype(np.float32), pad, constant_values=outside))
    box = (left + pad, top + pad, left + side + pad, top + side + pad)
    resized = padded.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.clip(np.asarray(resized), 0.0, 1.0)
