"""The camera rig of all stages: a ring of cameras around the object, in closed form.

World: z up, the object centred at the origin with its longest bounding-box side equal to 1.
Cameras: OpenCV axes (x right, y down, z into the scene), poses are world-to-camera `[R | t]`.
NumPy only, so that Blender's own Python can import this file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

NUM_VIEWS = 16
"""Views of an object in the paper's protocol."""
VIEWS_ELEVATION_DEG = 30.0
"""Elevation of all views in the paper's protocol."""
CAMERA_DISTANCE = 1.5
"""From a camera to the origin, in world units."""
OBJECT_HALF_SIDE = 0.6
"""Objects lie inside the cube |x|, |y|, |z| <= this: half of their longest side, and some room."""
PIXEL_CENTRE = 0.5
"""Image coordinates of the centre of pixel (0, 0) where the principal point is at half the image
size: renderers sample there. The networks of the published code take whole coordinates."""
REFERENCE_IMAGE_SIZE = 256
"""Pixels a side for which the published intrinsics are written; they scale with the image."""
FOCAL_LENGTH = 280.0
"""Focal length in pixels at `REFERENCE_IMAGE_SIZE`: a 35 mm lens on a 32 mm sensor."""
Z_UP_TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""From the world to glTF's axes: (x, y, z) becomes (x, z, -y). The transpose leads back."""


@dataclass(frozen=True)
class Cameras:
    """N pinhole cameras.

    Attributes:
        intrinsics: pixels, (N, 3, 3); the rig's principal point is at half the image size.
        world_to_camera: `[R | t]`, (N, 3, 4).
        azimuths: radians in [-pi, pi), (N,).
        elevations: radians, positive looks down on the object, (N,).
    """

    intrinsics: np.ndarray
    world_to_camera: np.ndarray
    azimuths: np.ndarray
    elevations: np.ndarray

    def directions(self) -> np.ndarray:
        """Unit vectors from the world's origin to the cameras, (N, 3)."""
        rotations, translations = self.world_to_camera[:, :, :3], self.world_to_camera[:, :, 3]
        centres = -np.einsum("nji,nj->ni", rotations, translations)
        return centres / np.linalg.norm(centres, axis=1, keepdims=True)

    def scaled(self, factor: float) -> Cameras:
        """Return the same cameras for images `factor` times as large (K's first two rows scale)."""
        scale = np.array([factor, factor, 1.0])[:, None]
        return replace(self, intrinsics=self.intrinsics * scale)


def orbit_pose(elevation: float, azimuth: float, distance: float) -> np.ndarray:
    """World-to-camera pose `[R | t]`, (3, 4) float64, of a camera looking at the origin, z up.

    Angles are in radians: elevation in [-pi/2, pi/2], azimuth from the x axis towards the y axis.
    """
    sin_e, cos_e = np.sin(elevation), np.cos(elevation)
    sin_a, cos_a = np.sin(azimuth), np.cos(azimuth)
    right = [-sin_a, cos_a, 0.0]
    down = [sin_e * cos_a, sin_e * sin_a, -cos_e]
    forward = [-cos_e * cos_a, -cos_e * sin_a, -sin_e]
    return np.column_stack([np.array([right, down, forward]), [0.0, 0.0, distance]])


def orbit_cameras(
    num_views: int = NUM_VIEWS,
    elevation_deg: float | np.ndarray = VIEWS_ELEVATION_DEG,
    distance: float = CAMERA_DISTANCE,
    image_size: int = REFERENCE_IMAGE_SIZE,
) -> Cameras:
    """Cameras at equal azimuth steps, on a ring of constant elevation (paper Sec. 4.1) or not.

    `elevation_deg` is above the horizon; one, or one for each of the N views. Camera 0 is at
    azimuth 0; the intrinsics scale with `image_size`, pixels a side.
    """
    azimuths = np.arange(num_views) / num_views * 2 * np.pi
    elevations = np.broadcast_to(np.deg2rad(elevation_deg), num_views).astype(np.float64)
    angles = zip(elevations, azimuths, strict=True)
    f, c = FOCAL_LENGTH, REFERENCE_IMAGE_SIZE / 2
    intrinsics = np.array([[f, 0.0, c], [0.0, f, c], [0.0, 0.0, 1.0]])
    cameras = Cameras(
        intrinsics=np.repeat(intrinsics[None], num_views, axis=0),
        world_to_camera=np.stack([orbit_pose(e, a, distance) for e, a in angles]),
        azimuths=(azimuths + np.pi) % (2 * np.pi) - np.pi,
        elevations=elevations,
    )
    return cameras.scaled(image_size / REFERENCE_IMAGE_SIZE)
