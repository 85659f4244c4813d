"""A textured mesh as 3D Gaussians (Kerbl et al., 3D Gaussian splatting, 2023)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.files import atomic_write
from renderer.formats.samples import spread_evenly
from renderer.texture import turned
from renderer.video import surface_colors

if TYPE_CHECKING:
    from trimesh import Trimesh

SPLATS = 100_000
WIDTH, THICKNESS = 0.7, 0.1
"""Standard deviations along the surface and across it, in distances between neighbours."""
OPACITY = 0.95
SH_BAND_0 = 0.28209479177387814
"""The constant spherical harmonic, 1 / (2 sqrt(pi))."""
Z_UP_TO_Y_DOWN = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Viewers of Gaussians have y down, since those are trained in the axes of a camera."""
PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


def write_splat(path: Path, mesh: Trimesh, count: int = SPLATS) -> None:
    """Write a binary .ply of flat Gaussians on the surface, of one colour each, y down.

    As programs that train them do: logarithms of the standard deviations, logits of the opacity,
    coefficients of the spherical harmonic of degree 0, rotations as quaternions (w, x, y, z).
    """
    mesh = turned(mesh, Z_UP_TO_Y_DOWN)
    at = spread_evenly(mesh, count)
    colors, normals = surface_colors(mesh)(at), np.asarray(mesh.face_normals)[at.faces]
    x, y, z = normals.T
    # takes the z axis to the normal; where that is -z, half a turn about x
    rotations = np.stack([1 + z, -y, x, np.zeros(count)], axis=1)
    rotations[z < -1 + 1e-9] = [0.0, 1.0, 0.0, 0.0]
    rotations /= np.linalg.norm(rotations, axis=1, keepdims=True)
    neighbours = np.sqrt(mesh.area / count)
    table = np.zeros((count, len(PROPERTIES)), dtype="<f4")
    table[:, 0:3] = at.interpolate(np.asarray(mesh.vertices), mesh.faces)
    table[:, 3:6] = normals
    table[:, 6:9] = (colors - 0.5) / SH_BAND_0
    table[:, 9] = np.log(OPACITY / (1 - OPACITY))
    table[:, 10:13] = np.log(neighbours * np.array([WIDTH, WIDTH, THICKNESS]))
    table[:, 13:17] = rotations
    lines = [f"property float {name}\n" for name in PROPERTIES]
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n{''.join(lines)}"
    with atomic_write(path) as temporary:
        temporary.write_bytes(header.encode() + b"end_header\n" + table.tobytes())
