"""Make the bundled example for the evaluation commands, without any other data.

The object is the toy of `docs.toy` in more detailed colours: true views, true depth maps and the
true mesh. The prediction is a degraded version of the same toy, not a model's output. Run from the
project's folder (about 2 minutes on one CPU core; needs scikit-image):

    python -m docs.make_eval_examples
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from docs.make_figures import ROOT, on_white
from docs.toy import (
    BOUNDS,
    CREAM,
    GOLD,
    NAVY,
    RED,
    TEAL,
    Distance,
    Vector,
    part_colour,
    render_depth,
    render_pose,
    surface_distance,
)
from evaluation.depth import write_depth_map
from multiview.cameras import NUM_VIEWS, PIXEL_CENTRE, REFERENCE_IMAGE_SIZE, orbit_cameras

NAME = "locomotive"
ELEVATION = 30.0

TRUE_GRID = 1 / 75  # marching cubes cells, in units of the toy's length
STAND_IN_GRID = 1 / 68
GRID_PHASE = np.array([0.37, 0.05, 0.8])  # cells; a row of samples meets the plough's sharp tip
STAND_IN_ROTATION = 2.0  # degrees about z
STAND_IN_SMOOTHING = 0.011  # standard deviation, world units
STAND_IN_INFLATION = 0.007
STAND_IN_BLUR = 1.1  # pixels
STAND_IN_SATURATION = 0.85

SKY, ROSE, MINT = (0.16, 0.42, 0.62), (0.80, 0.30, 0.26), (0.30, 0.60, 0.42)


@dataclass(frozen=True)
class Mesh:
    """Triangles, counter-clockwise seen from outside.

    Attributes:
        vertices: (V, 3).
        faces: indices of vertices, (F, 3).
    """

    vertices: np.ndarray
    faces: np.ndarray


@dataclass(frozen=True)
class Placement:
    """Transform from the toy's frame to the world: `scale * rotation @ (point - centre)`.

    Attributes:
        centre: (3,).
        scale: world units per unit of the toy.
        rotation: about z, (3, 3).
    """

    centre: np.ndarray
    scale: float
    rotation: np.ndarray

    def rotated(self, degrees: float) -> Placement:
        """Return this placement, rotated about the world's z axis."""
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        return Placement(self.centre, self.scale, rotation @ self.rotation)

    def apply(self, mesh: Mesh) -> Mesh:
        """Transform a mesh from the toy's frame to the world."""
        return Mesh(self.scale * (mesh.vertices - self.centre) @ self.rotation.T, mesh.faces)

    def pose_in_toy_frame(self, world_to_camera: np.ndarray) -> np.ndarray:
        """Return the pose in the toy's frame of a camera in the world, (3, 4).

        Depths times `scale` are those in the world.
        """
        rotation = world_to_camera[:, :3] @ self.rotation
        translation = world_to_camera[:, 3] / self.scale - rotation @ self.centre
        return np.column_stack([rotation, translation])


def centred(mesh: Mesh) -> Placement:
    """Return the placement that centres a mesh's bounding box and scales its longest side to 1."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    return Placement((low + high) / 2, 1 / float((high - low).max()), np.eye(3))


def random_of_cell(*cell: np.ndarray) -> np.ndarray:
    """Return a random number in [0, 1) for each cell of a grid, given by integer coordinates."""
    table = np.random.default_rng(16).random(1021)
    primes = (7919, 104729, 611953)
    mixed = sum(c.astype(np.int64) * prime for c, prime in zip(cell, primes, strict=False))
    return table[mixed % len(table)]


def _one_of(colours: Sequence[Vector], choice: np.ndarray) -> np.ndarray:
    """Pick colours (3, N) by numbers in [0, 1)."""
    return np.array(colours).T[:, (choice * len(colours)).astype(int)]


def _shingles(p: np.ndarray) -> np.ndarray:
    """Return the roof's colours: staggered rows of shingles with dark joints."""
    row = np.floor(p[1] / 0.05)
    along = p[0] / 0.055 + 0.5 * (row % 2)
    tile = random_of_cell(np.floor(along), row)
    colour = _one_of((CREAM, CREAM, SKY, GOLD, CREAM, ROSE, MINT), tile)
    joint = (along % 1 < 0.09) | ((p[1] / 0.05) % 1 < 0.1)
    return np.where(joint, np.array(NAVY)[:, None], colour)


def _confetti(p: np.ndarray) -> np.ndarray:
    """Return the boiler's colours: dots of several sizes around its axis."""
    axis_z = -0.0275  # of the boiler, in the world
    u, v = p[0] / 0.052, np.arctan2(p[1], p[2] - axis_z) / (2 * np.pi) * 20
    cell_u, cell_v = np.floor(u), np.floor(v)
    shifts = (random_of_cell(cell_u, cell_v, np.full_like(u, k)) - 0.5 for k in (1, 2))
    du, dv = ((w % 1) - 0.5 - 0.36 * s for w, s in zip((u, v), shifts, strict=True))
    size = random_of_cell(cell_u, cell_v, np.full_like(u, 3))
    dots = _one_of((CREAM, GOLD, ROSE, SKY, CREAM), random_of_cell(cell_u, cell_v))
    inside = np.hypot(du, dv) < 0.14 + 0.18 * size
    return np.where(inside, dots, np.array(TEAL)[:, None])


def _boards(p: np.ndarray) -> np.ndarray:
    """Return the cab's and plough's colours: upright boards of several reds with nails."""
    across = (p[0] + p[1]) / 0.034
    board = np.floor(across)
    shade = 0.75 + 0.6 * random_of_cell(board)
    colour = np.array(RED)[:, None] * shade
    height = p[2] / 0.06 + random_of_cell(board, board)
    nail = np.hypot((across % 1) - 0.5, ((height % 1) - 0.5) * 1.8) < 0.2
    colour = np.where(across % 1 < 0.12, np.array(NAVY)[:, None], colour)
    return np.where(nail, np.array(CREAM)[:, None], colour)


def _rivets(p: np.ndarray) -> np.ndarray:
    """Return the frame's colours: rows of rivets, some of them missing."""
    u, v = p[0] / 0.032, (p[1] + p[2]) / 0.032
    there = random_of_cell(np.floor(u), np.floor(v)) < 0.6
    inside = np.hypot((u % 1) - 0.5, (v % 1) - 0.5) < 0.27
    return np.where(inside & there, np.array(GOLD)[:, None], np.array(NAVY)[:, None])


def painted(p: np.ndarray) -> np.ndarray:
    """Return the toy's colours at world points, with patterns on its large parts; both (3, N)."""
    plain = part_colour(p)
    large_red = (p[0] < 0.2) | (p[2] < -0.2)  # neither chimney nor hubs
    hub = (np.abs(p[1]) > 0.2) & (p[2] < -0.1)
    patterns = (
        (CREAM, _shingles, (p[2] > 0.18) & (p[0] < 0)),
        (TEAL, _confetti, np.ones(p.shape[1], dtype=bool)),
        (RED, _boards, large_red & ~hub & (p[2] < 0.25)),
        (NAVY, _rivets, p[2] < -0.15),
    )
    colour = plain.copy()
    for part, pattern, where in patterns:
        covered = where & (plain == np.array(part, dtype=plain.dtype)[:, None]).all(axis=0)
        colour[:, covered] = pattern(p[:, covered])
    return colour


def distance_grid(distance: Distance, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Sample a distance function around the toy.

    Returns:
        Distances (X, Y, Z) and the position of the first sample (3,).
    """
    counts = np.ceil((BOUNDS + 0.04) / cell).astype(int)
    first = -(counts - GRID_PHASE) * cell
    axes = (f + cell * np.arange(2 * n) for f, n in zip(first, counts, strict=True))
    x, y, z = (axis.astype(np.float32) for axis in axes)
    slices = [distance(np.stack(np.meshgrid(a, y, z)).reshape(3, -1)) for a in x[:, None]]
    return np.reshape(slices, (len(x), len(y), len(z))), first


def surface(values: np.ndarray, first: np.ndarray, cell: float) -> Mesh:
    """Extract the surface by marching cubes, without enclosed hollows and slivers."""
    from skimage.measure import label, marching_cubes

    outside = label(values > 0, connectivity=1)
    values = np.where((outside > 0) & (outside != outside[0, 0, 0]), -cell, values)
    margin = 0.08 * cell  # keeps vertices away from the grid's corners, where they would meet
    values = np.where(np.abs(values) < margin, np.copysign(margin, values), values)
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(cell,) * 3)
    return Mesh(vertices.astype(np.float64) + first, faces)


def true_mesh() -> Mesh:
    """Return the toy's surface."""
    return surface(*distance_grid(surface_distance, TRUE_GRID), TRUE_GRID)


def stand_in_mesh() -> Mesh:
    """Return a smoothed, slightly inflated surface, like that of a reconstruction."""
    from skimage.filters import gaussian

    values, first = distance_grid(surface_distance, STAND_IN_GRID)
    smooth = gaussian(values, STAND_IN_SMOOTHING / STAND_IN_GRID)
    return surface(smooth - STAND_IN_INFLATION, first, STAND_IN_GRID)


def stand_in_view(view: Image.Image) -> Image.Image:
    """Return a blurred and paler view, RGB on white, as from `generate.py`."""
    pale = ImageEnhance.Color(on_white(view)).enhance(STAND_IN_SATURATION)
    return pale.filter(ImageFilter.GaussianBlur(STAND_IN_BLUR))


def write_obj(mesh: Mesh, path: Path) -> None:
    """Write a mesh as Wavefront OBJ, without a material."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# The toy of docs/toy.py: {len(mesh.vertices)} vertices, {len(mesh.faces)} faces"]
    lines += ["v {:.5f} {:.5f} {:.5f}".format(*vertex) for vertex in mesh.vertices]
    lines += ["f {} {} {}".format(*face) for face in mesh.faces + 1]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def write_ply(mesh: Mesh, colours: np.ndarray, path: Path) -> None:
    """Write a mesh as binary PLY.

    Args:
        mesh: to write.
        colours: of the vertices, (V, 3) uint8.
        path: `.ply`.
    """
    vertices = np.empty(len(mesh.vertices), dtype=[("place", "<f4", 3), ("colour", "u1", 3)])
    vertices["place"], vertices["colour"] = mesh.vertices, colours
    faces = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(header).encode() + vertices.tobytes() + faces.tobytes())


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def write_views(out: Path, placement: Placement) -> None:
    """Write the true views, their depth maps and the stand-in's views."""
    stand_in = placement.rotated(STAND_IN_ROTATION)
    size = REFERENCE_IMAGE_SIZE
    for i, world_to_camera in enumerate(orbit_cameras(NUM_VIEWS, ELEVATION).world_to_camera):
        pose = placement.pose_in_toy_frame(world_to_camera)
        view = render_pose(pose, size, 3, PIXEL_CENTRE, painted)
        save(view, out / f"{NAME}-gt" / f"{i:03d}.png")
        depth = placement.scale * render_depth(pose, size, PIXEL_CENTRE)
        write_depth_map(out / f"{NAME}-gt" / f"{i:03d}-depth.png", depth)
        pose = stand_in.pose_in_toy_frame(world_to_camera)
        view = stand_in_view(render_pose(pose, size, 2, PIXEL_CENTRE, painted))
        save(view, out / f"{NAME}-pr" / f"{i:03d}.png")
        print(f"view {i + 1} of {NUM_VIEWS}")


def main(argv: Sequence[str] | None = None) -> None:
    """Write all files of the example."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "eval_examples", help="folder to write to"
    )
    out = parser.parse_args(argv).out
    mesh = true_mesh()
    placement = centred(mesh)
    write_obj(placement.apply(mesh), out / f"{NAME}-mesh" / "meshes" / "model.obj")
    mesh = stand_in_mesh()
    colours = (np.clip(painted(mesh.vertices.T), 0, 1) ** (1 / 2.2) * 255).round()
    rotated = placement.rotated(STAND_IN_ROTATION)
    write_ply(rotated.apply(mesh), colours.T.astype(np.uint8), out / f"{NAME}-pr" / "mesh.ply")
    write_views(out, placement)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    print(f"{out}: {len(files)} files, {sum(path.stat().st_size for path in files)} bytes")


if __name__ == "__main__":
    main()
