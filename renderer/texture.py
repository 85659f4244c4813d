"""Colour a mesh from the views, as vertex colours or as a texture.

Every point takes its colour from the few views that see it best: frontally, not occluded, away from
silhouettes, where pixels mix in the background. Views that disagree with the others get less
weight. The smooth part of a colour is blended, which leaves no seams, and the detail is that of the
best view alone, which keeps it sharp where the views do not match exactly (two bands of Burt &
Adelson 1983). Parts that no view sees are filled in from the surface around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from common.files import atomic_write
from common.optional import import_optional
from multiview.cameras import Z_UP_TO_Y_UP, Cameras
from multiview.projection import project
from multiview.rasterise import Fragments, rasterise, rasterise_mesh
from renderer.mesh import sample_bilinear, simplify

if TYPE_CHECKING:
    from trimesh import Trimesh

FACING_POWER = 8
"""Power of the cosine between normal and direction to the camera in a view's weight."""
MIN_FACING = 0.1
"""Views with a smaller cosine have weight 0."""
BEST_VIEWS = 3
"""Largest number of views whose smooth colours are blended at a point."""
DETAIL_SIZE = 3.0
"""Standard deviation of the filter that smooths the views, pixels of a view of 256 pixels."""
DETAIL_POWER = 16
"""Power of a view's weight, as a share of the best view's, by which its detail counts."""
SAFE_DISTANCE = (0.75, 5.0)
"""Distances to a silhouette, in pixels, below which a pixel has weight 0 (as it mixes in the
background), and from which it has full weight (as shapes are not exact). The second one is for
images of 256 pixels, and scaled for others."""
WHITE = (0.85, 0.97)
"""Pixels whose channels are all above these look a little, or fully, like the background."""
WHITE_WEIGHT = 0.1
"""Share of the weight that such pixels have: masks may contain some background."""
DISAGREEMENT = 0.15
"""Standard deviation of the weight by a view's distance to the colour that the views agree on."""
FRONT_PREFERENCE = 0.3
"""Weight of the front view is 1 + this, of the back view 1 - this: a tie between equally good
views is broken in favour of one view over large areas."""
HALF_VISIBLE = 3e-4
"""Sum of weights at which a point's own colour and the filled-in colour are mixed equally."""
CHUNK = 1 << 18
"""Points that are blended at once."""


@dataclass(frozen=True)
class ProjectedViews:
    """Views with depth and confidence maps of a mesh that is projected into them.

    Attributes:
        colors: smooth colours in [0, 1], and what they lack to the view's, (N, 6, S, S) float32.
        depth_and_trust: camera-z of the mesh, large where it is not seen, and confidence of the
            pixel in [0, 1], (N, 2, D, D) float32.
        cameras: N, for S x S images.
        tolerance: a point further than this behind the depth is occluded, (N,).
    """

    colors: torch.Tensor
    depth_and_trust: torch.Tensor
    cameras: Cameras
    tolerance: np.ndarray


def project_views(
    mesh: Trimesh, views: np.ndarray, masks: np.ndarray | None, cameras: Cameras
) -> ProjectedViews:
    """Project a mesh into the views (N, S, S, 3), and rate the confidence of their pixels.

    Masks are bool or in [0, 1], (N, S, S); None takes the mesh's silhouettes.

    Raises:
        ValueError: the shapes do not fit together.
    """
    from scipy import ndimage

    shape = (len(cameras.intrinsics), views.shape[1], views.shape[1])
    if views.shape != (*shape, 3) or (masks is not None and masks.shape != shape):
        got = f"views {views.shape}, masks {None if masks is None else masks.shape}"
        raise ValueError(f"expected square views (N, S, S, 3) of {shape[0]} cameras, got {got}")
    size = views.shape[1]
    fine = 2 * size  # depth is sharper than the views: fewer uncertain points at edges
    distances = np.linalg.norm(cameras.world_to_camera[:, :, 3], axis=1)
    pixels = distances / cameras.intrinsics[:, 0, 0]  # a pixel's side in the world, at the object
    none, full = 2 * SAFE_DISTANCE[0], 2 * SAFE_DISTANCE[1] * max(size / 256, 0.5)
    layers, colors = [], []
    for index in range(len(views)):
        intrinsics = np.diag([2.0, 2.0, 1.0]) @ cameras.intrinsics[index]
        seen = rasterise_mesh(mesh, intrinsics, cameras.world_to_camera[index], fine)
        background = 6 * distances[index]
        depth = np.full(fine * fine, background)
        depth[seen.pixels] = seen.depth
        depth = depth.reshape(fine, fine)
        farthest = ndimage.maximum_filter(depth, size=3)
        clean = farthest - ndimage.minimum_filter(depth, size=3) < 5 * pixels[index]
        clean &= depth < background
        if masks is not None:
            clean &= np.kron(masks[index] > 0.5, np.ones((2, 2), dtype=bool))
        clean[[0, -1]] = clean[:, [0, -1]] = False
        distance = ndimage.distance_transform_edt(clean)
        trust = np.clip((distance - none) / (full - none), 0, 1) ** 2
        white = np.clip((views[index].min(axis=-1) - WHITE[0]) / (WHITE[1] - WHITE[0]), 0, 1)
        trust *= np.kron(1 - (1 - WHITE_WEIGHT) * white, np.ones((2, 2)))
        layers.append(np.stack([farthest, trust]))
        inside = clean.reshape(size, 2, size, 2).all(axis=(1, 3))
        smooth = _smooth(views[index], inside, DETAIL_SIZE * size / 256)
        colors.append(np.concatenate([smooth, views[index] - smooth], axis=-1))
    return ProjectedViews(
        torch.from_numpy(np.moveaxis(np.stack(colors), -1, 1).astype(np.float32)),
        torch.from_numpy(np.stack(layers).astype(np.float32)),
        cameras,
        tolerance=2 * pixels,
    )


def _smooth(image: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth an image (S, S, 3) by a Gaussian over the pixels `inside`, (S, S), alone."""
    from scipy import ndimage

    layers = np.dstack([image * inside[..., None], inside]).astype(np.float32)
    layers = ndimage.gaussian_filter(layers, (sigma, sigma, 0), truncate=3)
    share = layers[..., 3:]
    return np.where(share > 1e-3, layers[..., :3] / share.clip(1e-3), image)


def blend_colors(
    projected: ProjectedViews, points: np.ndarray, normals: np.ndarray, flat_normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Blend the colours of points (P, 3) from the views that see them best.

    Normals are smooth, of unit length; of them and of the flat ones, of the faces, the less frontal
    one counts.

    Returns:
        colours in [0, 1], (P, 3), and the sum of weights, (P,); both float32.
    """
    colors = np.zeros((len(points), 3), dtype=np.float32)
    seen = np.zeros(len(points), dtype=np.float32)
    for start in range(0, len(points), CHUNK):
        part = slice(start, start + CHUNK)
        tensors = [
            torch.from_numpy(np.ascontiguousarray(array[part], dtype=np.float32))
            for array in (points, normals, flat_normals)
        ]
        mixed, total = _mix(projected, *tensors)
        colors[part], seen[part] = mixed.numpy(), total.numpy()
    return colors, seen


def _mix(
    projected: ProjectedViews,
    points: torch.Tensor,
    normals: torch.Tensor,
    flat_normals: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    cameras, size = projected.cameras, projected.colors.shape[-1]
    color = torch.zeros(len(projected.colors), len(points), 6)
    weight = torch.zeros(len(projected.colors), len(points))
    for index in range(len(projected.colors)):
        pose = torch.from_numpy(cameras.world_to_camera[index]).float()
        towards = -(pose[:, :3].T @ pose[:, 3]) - points
        facing = (towards * normals).sum(1) / towards.norm(dim=1)
        flat = (towards * flat_normals).sum(1) / towards.norm(dim=1)
        front = (torch.minimum(facing, flat) > MIN_FACING).nonzero()[:, 0]
        intrinsics = torch.from_numpy(cameras.intrinsics[index]).float()
        pixels, distance = project(points[front], intrinsics, pose)
        positions = pixels / size * 2 - 1  # (P, 2) in [-1, 1]
        color[index, front] = sample_bilinear(projected.colors[index], positions)
        depth, trust = sample_bilinear(projected.depth_and_trust[index], positions).unbind(dim=1)
        shown = trust * (distance < depth + projected.tolerance[index])
        preferred = 1 + FRONT_PREFERENCE * np.cos(cameras.azimuths[index])
        weight[index, front] = preferred * shown * facing[front] ** FACING_POWER

    color, detail = color.split(3, dim=-1)
    total = weight.sum(dim=0)
    votes = weight**0.25  # oblique views hardly give the colour, but help to agree on it
    agreed = (votes[..., None] * color).sum(dim=0) / votes.sum(dim=0).clamp(min=1e-12)[:, None]
    apart = (color - agreed).square().sum(dim=-1)
    weight *= torch.exp(-apart / (2 * DISAGREEMENT**2))
    sharp = (weight / weight.amax(dim=0).clamp(min=1e-12)) ** DETAIL_POWER
    sharpest = (sharp[..., None] * detail).sum(dim=0) / sharp.sum(dim=0).clamp(min=1e-12)[:, None]
    shown = (weight > 0)[..., None]  # the sum of both stays between the colours of the views
    lowest = torch.where(shown, color + detail, 1.0).amin(dim=0)
    highest = torch.where(shown, color + detail, 0.0).amax(dim=0)
    if len(weight) > BEST_VIEWS:
        best, which = weight.topk(BEST_VIEWS + 1, dim=0)
        # Minus the next best: views enter with weight 0, so that there are no visible edges.
        weight = best[:-1] - 0.99 * best[-1:]
        color = color.gather(0, which[:-1, :, None].expand(-1, -1, 3))
    mixed = (weight[..., None] * color).sum(dim=0) / weight.sum(dim=0).clamp(min=1e-12)[:, None]
    return torch.minimum(torch.maximum(mixed + sharpest, lowest), highest), total


def _visibility_weight(seen: np.ndarray) -> np.ndarray:
    """Share of a point's own colour, against the filled-in colour, by its sum of weights."""
    return 1 - 1 / (1 + (seen / HALF_VISIBLE) ** 2)


def fill_unseen(mesh: Trimesh, colors: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Fill in colours where no view sees the surface well, (V, 3) float64 in [0, 1].

    Solves a screened Laplace equation on the edges of the mesh: well visible vertices keep their
    colours (V, 3), and the others are smooth. `seen` (V,) are sums of weights from `blend_colors`.
    """
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import cg

    count = len(mesh.vertices)
    pairs = np.concatenate([mesh.edges_unique, mesh.edges_unique[:, ::-1]])
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    trust = _visibility_weight(seen)
    mean = trust @ colors / trust.sum() if trust.any() else np.full(3, 0.5)
    anchored = trust / (1 - trust + 0.01)
    lonely = 1e-6  # pieces that no view sees take the mean colour
    diagonal = graph.sum(axis=1) + anchored + lonely
    system = (diags_array(diagonal) - graph).tocsr()
    start = trust[:, None] * colors + (1 - trust)[:, None] * mean
    wrong = anchored[:, None] * colors + lonely * mean - system @ start
    preconditioner = diags_array(1 / diagonal)
    changes = [cg(system, channel, maxiter=2000, M=preconditioner)[0] for channel in wrong.T]
    return np.clip(start + np.stack(changes, axis=1), 0, 1)


def sample_vertex_colors(
    mesh: Trimesh, views: np.ndarray, masks: np.ndarray | None, cameras: Cameras
) -> np.ndarray:
    """Vertex colours (V, 3) in [0, 1] of a mesh from views, see `project_views`."""
    normals = np.asarray(mesh.vertex_normals)
    projected = project_views(mesh, views, masks, cameras)
    return fill_unseen(mesh, *blend_colors(projected, np.asarray(mesh.vertices), normals, normals))


def bake(
    mesh: Trimesh,
    views: np.ndarray,
    masks: np.ndarray | None,
    cameras: Cameras,
    size: int = 1024,
    faces: int = 12_000,
) -> Trimesh:
    """Simplify to about `faces` faces, unwrap and texture a mesh from views, see `project_views`.

    The result has vertices duplicated at seams, smooth normals, and one matte PBR material with a
    texture of `size` pixels a side.
    """
    mesh = simplify(mesh, faces)
    projected = project_views(mesh, views, masks, cameras)
    points, normals = np.asarray(mesh.vertices), _unit(np.asarray(mesh.vertex_normals))
    filled = fill_unseen(mesh, *blend_colors(projected, points, normals, normals))

    origin, corners, uv = _unwrap(mesh, size)
    texels = rasterise(uv[corners] * size, size)
    colors, seen = blend_colors(
        projected,
        texels.interpolate(points[origin], corners),
        _unit(texels.interpolate(normals[origin], corners)),
        np.asarray(mesh.face_normals)[texels.faces],
    )
    own = _visibility_weight(seen)[:, None]
    colors = own * colors + (1 - own) * texels.interpolate(filled[origin], corners)
    return textured(points[origin], corners, normals[origin], uv, _paint(texels, colors, size))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (V, 3) normalised to length 1; (0, 0, 1) for zero vectors, as files need normals."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-9, vectors / lengths.clip(1e-9), [0.0, 0.0, 1.0])


def _unwrap(mesh: Trimesh, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unwrap a mesh into charts in the unit square.

    Returns:
        vertex of the mesh for each of the charts, (W,); faces of the charts, in the order of the
        mesh's, (F, 3); texture coordinates with v downwards, (W, 2).
    """
    xatlas = import_optional("xatlas", "texturing meshes")
    atlas = xatlas.Atlas()
    atlas.add_mesh(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding = size, 12  # pixels; the atlas comes out a third larger
    atlas.generate(pack_options=packing)
    origin, faces, uv = atlas[0]
    return origin.astype(np.int64), faces.astype(np.int64), uv.astype(np.float64)


def _paint(texels: Fragments, colors: np.ndarray, size: int) -> Image.Image:
    """Write texels into an image; pixels between the charts take the nearest texel's colour."""
    from scipy import ndimage

    image = np.zeros((size * size, 3))
    empty = np.ones(size * size, dtype=bool)
    image[texels.pixels], empty[texels.pixels] = np.clip(colors, 0, 1), False
    nearest = ndimage.distance_transform_edt(
        empty.reshape(size, size), return_distances=False, return_indices=True
    )
    painted = image.reshape(size, size, 3)[tuple(nearest)]
    return Image.fromarray(np.round(painted * 255).astype(np.uint8))


def textured(
    points: np.ndarray, faces: np.ndarray, normals: np.ndarray, uv: np.ndarray, image: Image.Image
) -> Trimesh:
    """A mesh with a matte material; texture coordinates (V, 2) with v downwards."""
    trimesh = import_optional("trimesh", "texturing meshes")
    matte = {"metallicFactor": 0.0, "roughnessFactor": 0.9, "doubleSided": False}
    material = trimesh.visual.material.PBRMaterial(name="views", baseColorTexture=image, **matte)
    upwards = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)  # trimesh has v = 0 at the bottom
    visual = trimesh.visual.TextureVisuals(uv=upwards, material=material)
    return trimesh.Trimesh(points, faces, vertex_normals=normals, visual=visual, process=False)


def turned(mesh: Trimesh, rotation: np.ndarray) -> Trimesh:
    """A mesh with its normals and colours, rotated."""
    trimesh = import_optional("trimesh", "texturing meshes")
    vertices, normals = mesh.vertices @ rotation.T, mesh.vertex_normals @ rotation.T
    given = {"vertex_normals": normals, "visual": mesh.visual, "process": False}
    return trimesh.Trimesh(vertices, mesh.faces, **given)


def write_glb(path: Path, mesh: Trimesh) -> None:
    """Write a textured mesh, z up, as one glTF file with y up."""
    content = turned(mesh, Z_UP_TO_Y_UP).export(file_type="glb", include_normals=True)
    assert isinstance(content, bytes)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
