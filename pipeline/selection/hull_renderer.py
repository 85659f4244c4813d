"""A coarse coloured visual hull of an object's views, and pictures of it: in tenths of a second.

No training: the hull of the masks on a lattice, and for every pixel of a new picture the colours of
the views that look from nearly the same side and see the place. It is not good enough to be looked
at, but to tell whether views fit together, or from where a picture was taken.

Shape letters: N views, S pixels a side, V lattice points a side, P points, D samples a line of
sight. Pixels are counted from the image's edge: the middle of the first one is at 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiview.cameras import Cameras
from multiview.segmentation import segment_white
from multiview.visual_hull import (
    HALF_SIDE,
    PIXEL_CENTRE,
    cell_centres,
    silhouette_distance,
)

SAMPLES = 56
"""Along a line of sight through the lattice."""
OCCLUDED = 0.05
"""World units: a place that is deeper than what a view shows there by more is hidden from it."""
SAME_SIDE = 20.0
"""How fast a view's weight falls with the angle between its line of sight and the picture's: the
logarithm of its weight is this times the cosine minus one, so -1.2 at 20 degrees."""
SOURCES = 5
"""Views that a picture is painted by: those that look from nearest to its side."""
SLOPE = 1e-6
"""Lines of sight are not more parallel than this to the lattice's sides, nor begin nearer."""
HIDDEN = 1e-5
"""Weight of views to which a place is hidden, for places that no view sees."""


@dataclass(frozen=True)
class QuickViews:
    """Views made small, with their masks.

    Attributes:
        colours: on white, in [0, 1], (N, 3, S, S) float32.
        masks: how much of each pixel is the object, in [0, 1], (N, S, S) float32.
        cameras: N, for S x S images.
    """

    colours: Tensor
    masks: Tensor
    cameras: Cameras

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def size(self) -> int:
        """S."""
        return self.masks.shape[-1]

    def subset(self, numbers: Sequence[int]) -> QuickViews:
        """Some of the views."""
        index = list(numbers)
        cameras = Cameras(
            self.cameras.intrinsics[index],
            self.cameras.world_to_camera[index],
            self.cameras.azimuths[index],
            self.cameras.elevations[index],
        )
        return QuickViews(self.colours[index], self.masks[index], cameras)


@dataclass(frozen=True)
class Picture:
    """The hull as a camera sees it.

    Attributes:
        alpha: in [0, 1], soft at the outline, (S, S).
        depth: camera-z of the surface, infinite where there is none, (S, S).
        colours: on white, in [0, 1], (3, S, S).
    """

    alpha: Tensor
    depth: Tensor
    colours: Tensor


@dataclass(frozen=True)
class QuickHull:
    """A shape and the views that it is painted with.

    Attributes:
        views: N.
        field: signed distance, world units, (V, V, V).
    """

    views: QuickViews
    field: Tensor

    @cached_property
    def _depths(self) -> dict[int, Tensor]:
        """What each view sees of the shape, filled as it is needed."""
        return {}

    def depth(self, k: int) -> Tensor:
        """Camera-z of the shape as view k sees it, (S, S)."""
        if k not in self._depths:
            cameras = self.views.cameras
            self._depths[k] = look(
                self.field, cameras.intrinsics[k], cameras.world_to_camera[k], self.views.size
            )[1]
        return self._depths[k]

    def picture(self, intrinsics: np.ndarray, pose: np.ndarray, size: int) -> Picture:
        """Show it to a camera, painted by the views that look from nearly the same side.

        Args:
            intrinsics: (3, 3), for `size` x `size` images.
            pose: world-to-camera `[R | t]`, (3, 4).
            size: pixels a side.
        """
        facing = self.views.cameras.world_to_camera[:, 2, :3] @ pose[2, :3]
        near = [int(k) for k in np.argsort(-facing, kind="stable")[:SOURCES]]
        alpha, depth = look(self.field, intrinsics, pose, size)
        sources = self.views.subset(near)
        return paint(alpha, depth, intrinsics, pose, sources, [self.depth(k) for k in near])


def quick_views(
    images: np.ndarray, cameras: Cameras, size: int, masks: np.ndarray | None = None
) -> QuickViews:
    """Make views small and find the object in them.

    Args:
        images: on white, uint8 or float in [0, 1], (N, H, H, 3).
        cameras: N, for H x H images.
        size: pixels a side at most; smaller views stay as they are.
        masks: in [0, 1], (N, H, H); found by the white of the background if not given.

    Raises:
        ValueError: the shapes do not fit, or there is no object in a view.
    """
    count, side = images.shape[:2]
    if images.shape != (count, side, side, 3) or count != len(cameras.intrinsics):
        raise ValueError(
            f"expected a square RGB view for each camera, got views of shape {images.shape} and "
            f"{len(cameras.intrinsics)} cameras"
        )
    scaled = images.astype(np.float32) / 255 if images.dtype == np.uint8 else images
    if masks is None:
        masks = np.stack([segment_white(view) for view in scaled])
    colours = torch.from_numpy(np.ascontiguousarray(scaled, np.float32)).movedim(-1, 1)
    alpha = torch.from_numpy(np.ascontiguousarray(masks, np.float32))
    if size < side:
        colours = F.interpolate(colours, (size, size), mode="area")
        alpha = F.interpolate(alpha[:, None], (size, size), mode="area")[:, 0]
        cameras = cameras.scaled(size / side)
    empty = [str(k) for k, mask in enumerate(alpha) if not (mask >= 0.5).any()]
    if empty:
        raise ValueError(f"there is no object in the views {', '.join(empty)}")
    return QuickViews(colours, alpha, cameras)


def carve(views: QuickViews, resolution: int) -> Tensor:
    """How far lattice points are outside of each view's silhouette.

    The hull of some of the views is where the largest of their distances is negative.

    Args:
        views: N.
        resolution: V.

    Returns:
        world units, negative inside, indexed x, y, z, (N, V, V, V) float32.
    """
    centres = torch.from_numpy(cell_centres(resolution)).float()
    x, y, z = centres[:, None, None], centres[:, None], centres
    distances = torch.empty(len(views), resolution, resolution, resolution)
    matrices = views.cameras.intrinsics @ views.cameras.world_to_camera
    for k, mask in enumerate(views.masks):
        column, row, depth = (float(a) * x + float(b) * y + (float(c) * z + float(d))
                              for a, b, c, d in matrices[k])  # fmt: skip
        places = torch.stack([column / depth, row / depth], dim=-1) * (2 / views.size) - 1
        outline = torch.from_numpy(_outline(mask.numpy()))
        found = F.grid_sample(
            outline[None, None], places.reshape(1, resolution, -1, 2), padding_mode="border",
            align_corners=False,
        )  # fmt: skip
        focal = float(views.cameras.intrinsics[k, 0, 0])
        distances[k] = found.reshape(depth.shape) * depth / focal
    return distances


def _outline(mask: np.ndarray) -> np.ndarray:
    """Signed distance to a soft mask's outline, pixels, (S, S): within a pixel it follows alpha."""
    solid = mask >= 0.5
    if solid.all():
        return np.full(mask.shape, -float(len(mask)), np.float32)
    distance = silhouette_distance(solid)
    near = np.abs(distance) <= 0.5
    return np.where(near, 0.5 - mask, distance).astype(np.float32)


def look(
    field: Tensor, intrinsics: np.ndarray, pose: np.ndarray, size: int
) -> tuple[Tensor, Tensor]:
    """Outline and depth of a lattice's shape as a camera sees it.

    Args:
        field: signed distance, world units, (V, V, V).
        intrinsics: (3, 3), for S x S images.
        pose: world-to-camera `[R | t]`, (3, 4).
        size: S.

    Returns:
        alpha in [0, 1] and camera-z of the surface (infinite where there is none), (S, S) each.
    """
    middle = torch.arange(size) + PIXEL_CENTRE
    focal, centre = float(intrinsics[0, 0]), float(intrinsics[0, 2])
    right = (middle - centre) / focal
    rotation = torch.from_numpy(pose[:, :3]).float()
    origin = -rotation.T @ torch.from_numpy(pose[:, 3]).float()
    sights = torch.stack(
        [right.expand(size, size), right[:, None].expand(size, size), torch.ones(size, size)], -1
    )
    directions = (sights @ rotation).reshape(-1, 3)
    alpha, depth = torch.zeros(size * size), torch.full((size * size,), torch.inf)
    crossing = _crossing(field, origin, directions)
    if crossing is None:
        return alpha.reshape(size, size), depth.reshape(size, size)
    chosen, nearest, farthest = crossing
    depths = torch.linspace(nearest, farthest, SAMPLES)

    points = origin + depths[:, None, None] * directions[chosen]  # (D, P, 3)
    values = _sample(field, points)
    lowest = values.min(dim=0)
    pixel = depths[lowest.indices] / focal
    alpha[chosen] = (0.5 - lowest.values / pixel).clamp(0, 1)
    solid = values < 0.5 * pixel
    first = solid.int().argmax(dim=0)
    before = (first - 1).clamp_min(0)
    here = values.gather(0, first[None])[0]
    there = values.gather(0, before[None])[0]
    share = (there / (there - here).clamp_min(1e-6)).clamp(0, 1)
    surface = torch.where(
        first > 0, depths[before] + share * (depths[first] - depths[before]), depths[first]
    )
    depth[chosen] = torch.where(solid.any(dim=0), surface, torch.inf)
    return alpha.reshape(size, size), depth.reshape(size, size)


def _crossing(
    field: Tensor, origin: Tensor, directions: Tensor
) -> tuple[Tensor, float, float] | None:
    """Which lines of sight cross the shape's box, and between which depths.

    Args:
        field: signed distance, (V, V, V).
        origin: of the camera, (3,).
        directions: of all lines of sight, at depth 1, (P, 3).

    Returns:
        their numbers, the nearest and the farthest depth; None where there are none.
    """
    inside = (field < 2 * 2 * HALF_SIDE / len(field)).nonzero()
    if not len(inside):
        return None
    centres = torch.from_numpy(cell_centres(len(field))).float()
    slope = torch.where(directions.abs() > SLOPE, directions, SLOPE)
    first = (centres[inside.amin(dim=0)] - origin) / slope
    second = (centres[inside.amax(dim=0)] - origin) / slope
    enter = torch.minimum(first, second).amax(dim=1).clamp_min(SLOPE)
    leave = torch.maximum(first, second).amin(dim=1)
    chosen = (enter < leave).nonzero()[:, 0]
    if not len(chosen):
        return None
    return chosen, float(enter[chosen].min()), float(leave[chosen].max())


def _sample(field: Tensor, points: Tensor) -> Tensor:
    """Values of a lattice (V, V, V) at points (D, P, 3), beyond it those of its border."""
    places = points.flip(-1) / HALF_SIDE  # grid_sample takes z, y, x of a field indexed x, y, z
    return F.grid_sample(
        field[None, None], places[None, None], padding_mode="border", align_corners=False
    )[0, 0, 0]


def paint(
    alpha: Tensor,
    depth: Tensor,
    intrinsics: np.ndarray,
    pose: np.ndarray,
    views: QuickViews,
    depths: Sequence[Tensor],
) -> Picture:
    """Give a picture of the hull the colours of views.

    Args:
        alpha: of the picture, see `look`, (S, S).
        depth: of the picture, see `look`, (S, S).
        intrinsics: of the picture's camera, (3, 3).
        pose: of the picture's camera, (3, 4).
        views: whose colours are taken.
        depths: of the hull as each of these views sees it, (S', S') each.
    """
    size = len(alpha)
    colours = torch.ones(3, size, size)
    rows, columns = torch.isfinite(depth).nonzero(as_tuple=True)
    if not len(rows):
        return Picture(alpha, depth, colours)
    focal, centre = float(intrinsics[0, 0]), float(intrinsics[0, 2])
    z = depth[rows, columns]
    x = (columns + PIXEL_CENTRE - centre) / focal * z
    y = (rows + PIXEL_CENTRE - centre) / focal * z
    rotation, shift = torch.from_numpy(pose[:, :3]).float(), torch.from_numpy(pose[:, 3]).float()
    points = (torch.stack([x, y, z], dim=-1) - shift) @ rotation
    sight = F.normalize(points + rotation.T @ shift, dim=-1)

    total, weights = torch.zeros(len(points), 3), torch.zeros(len(points))
    for k, hull_depth in enumerate(depths):
        colour, weight = _seen_by(views, k, points, sight, hull_depth)
        total += colour * weight[:, None]
        weights += weight
    painted = total / weights.clamp_min(1e-12)[:, None]
    colours[:, rows, columns] = painted.T * alpha[rows, columns] + 1 - alpha[rows, columns]
    return Picture(alpha, depth, colours)


def _seen_by(
    views: QuickViews, k: int, points: Tensor, sight: Tensor, hull_depth: Tensor
) -> tuple[Tensor, Tensor]:
    """Colours (P, 3) that view k shows at points (P, 3), and how much they are worth, (P,)."""
    pose = torch.from_numpy(views.cameras.world_to_camera[k]).float()
    matrix = torch.from_numpy(views.cameras.intrinsics[k]).float()
    in_camera = points @ pose[:, :3].T + pose[:, 3]
    pixels = in_camera @ matrix.T
    places = pixels[:, :2] / pixels[:, 2:]
    layers = torch.cat([views.colours[k], views.masks[k][None]])
    normalised = (places / views.size * 2 - 1)[None, None]
    found = F.grid_sample(layers[None], normalised, padding_mode="border", align_corners=False)
    colour, alpha = found[0, :3, 0].T, found[0, 3, 0]
    column, row = places.long().clamp(0, views.size - 1).unbind(dim=-1)
    visible = in_camera[:, 2] < hull_depth[row, column] + OCCLUDED
    own = F.normalize(in_camera, dim=-1) @ pose[:, :3]
    side = (SAME_SIDE * ((own * sight).sum(dim=-1) - 1)).exp()
    weight = side * alpha.square() * torch.where(visible, 1.0, HIDDEN)
    return colour, weight + 1e-12
