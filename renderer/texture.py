"""Colours for a mesh out of the views that show it: of its vertices, or as a texture.

Every point of the surface takes its colour from the few views that see it best: facing it, not
hidden, and away from silhouettes, where pixels mix the object with what is behind it. Views that
disagree with the others, as generated ones do here and there, count less. What no view sees is
filled from the surface around it.
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
from multiview.cameras import Cameras
from renderer.mesh import Fragments, rasterise, rasterise_mesh, sample_bilinear, simplify

if TYPE_CHECKING:
    from trimesh import Trimesh

FACING_POWER = 8
"""Views count with this power of the cosine between the normal and the direction to the camera."""
FACING_LEAST = 0.1
"""Views with a smaller cosine count nothing."""
BEST_VIEWS = 3
"""At most so many views are mixed in a point."""
SAFE_DISTANCE = (0.75, 5.0)
"""Pixels nearer to a silhouette than the first, which mix in what is behind it, count nothing; from
the second on, for images of 256 pixels and scaled for others, they count in full: shapes are not
exact."""
DISAGREEMENT = 0.15
"""Distance to the colour that the views agree on at which a view counts markedly less."""
FRONT_PREFERENCE = 0.3
"""How much more the front view counts than the back view: one of many equally good views is
preferred over a large area, where it would change from point to point."""
SEEN_WELL = 3e-4
"""Sum of the weights at which a point's own colour and the filled-in colour count the same."""
CHUNK = 1 << 18
"""Points whose colours are mixed at once."""


@dataclass(frozen=True)
class ProjectedViews:
    """Views, and what tells which points of a mesh they show.

    Attributes:
        colors: in [0, 1], (N, 3, S, S) float32.
        depth_and_trust: camera-z of the mesh, far away where it is not seen, and in [0, 1] how
            far the pixel is to be trusted, (N, 2, D, D) float32.
        cameras: N; their intrinsics are those of S x S images.
        tolerance: a point this much behind the depth is hidden.
    """

    colors: torch.Tensor
    depth_and_trust: torch.Tensor
    cameras: Cameras
    tolerance: float


def project_views(
    mesh: Trimesh, views: np.ndarray, masks: np.ndarray | None, cameras: Cameras
) -> ProjectedViews:
    """Find out what each view shows of a mesh, and which of its pixels can be trusted.

    Args:
        mesh: in the world of the cameras.
        views: in [0, 1], (N, S, S, 3).
        masks: where the object is, bool or in [0, 1], (N, S, S); None: where the mesh is.
        cameras: N, for S x S images.

    Raises:
        ValueError: the shapes do not fit together.
    """
    from scipy import ndimage

    shape = (len(cameras.intrinsics), views.shape[1], views.shape[1])
    if views.shape != (*shape, 3) or (masks is not None and masks.shape != shape):
        got = f"views {views.shape}, masks {None if masks is None else masks.shape}"
        raise ValueError(f"expected square views (N, S, S, 3) of {shape[0]} cameras, got {got}")
    size = views.shape[1]
    fine = 2 * size  # depth is sharper than the views, so that fewer points at edges are unsure
    pixel = 1.5 / cameras.intrinsics[0, 0, 0]  # a pixel's side in the world, at the object
    none, full = 2 * SAFE_DISTANCE[0], 2 * SAFE_DISTANCE[1] * max(size / 256, 0.5)
    layers = []
    for index in range(len(views)):
        intrinsics = np.diag([2.0, 2.0, 1.0]) @ cameras.intrinsics[index]
        seen = rasterise_mesh(mesh, intrinsics, cameras.world_to_camera[index], fine)
        depth = np.full(fine * fine, 9.0)
        depth[seen.pixels] = seen.depth
        depth = depth.reshape(fine, fine)
        nearest, farthest = (
            f(depth, size=3) for f in (ndimage.minimum_filter, ndimage.maximum_filter)
        )
        clean = farthest - nearest < 5 * pixel
        clean &= depth < 9
        if masks is not None:
            clean &= np.kron(masks[index] > 0.5, np.ones((2, 2), dtype=bool))
        clean[[0, -1]] = clean[:, [0, -1]] = False
        distance = ndimage.distance_transform_edt(clean)
        layers.append(np.stack([farthest, np.clip((distance - none) / (full - none), 0, 1) ** 2]))
    return ProjectedViews(
        torch.from_numpy(np.moveaxis(views, -1, 1).astype(np.float32)),
        torch.from_numpy(np.stack(layers).astype(np.float32)),
        cameras,
        tolerance=2 * pixel,
    )


def blend_colors(
    projected: ProjectedViews, points: np.ndarray, normals: np.ndarray, flat_normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mix the colours of points from the views that see them best.

    Args:
        projected: N views.
        points: in the world, (P, 3).
        normals: of the surface, smooth, unit length, (P, 3).
        flat_normals: of the faces; a view counts by the one that it sees less of, (P, 3).

    Returns:
        colours in [0, 1], (P, 3), and how well each point is seen, at least 0, (P,); both float32.
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
    color = torch.zeros(len(projected.colors), len(points), 3)
    weight = torch.zeros(len(projected.colors), len(points))
    for index in range(len(projected.colors)):
        pose = torch.from_numpy(cameras.world_to_camera[index]).float()
        towards = -(pose[:, :3].T @ pose[:, 3]) - points
        facing = torch.minimum((towards * normals).sum(1), (towards * flat_normals).sum(1))
        facing = facing / towards.norm(dim=1)
        front = (facing > FACING_LEAST).nonzero()[:, 0]
        in_camera = points[front] @ pose[:, :3].T + pose[:, 3]
        homogeneous = in_camera @ torch.from_numpy(cameras.intrinsics[index]).float().T
        places = homogeneous[:, :2] / homogeneous[:, 2:] / size * 2 - 1  # (P, 2) in [-1, 1]
        color[index, front] = sample_bilinear(projected.colors[index], places)
        depth, trust = sample_bilinear(projected.depth_and_trust[index], places).unbind(dim=1)
        shown = trust * (in_camera[:, 2] < depth + projected.tolerance)
        preferred = 1 + FRONT_PREFERENCE * np.cos(cameras.azimuths[index])
        weight[index, front] = preferred * shown * facing[front] ** FACING_POWER

    total = weight.sum(dim=0)
    votes = weight**0.25  # views from the side may not give the colour, but have a say in it
    agreed = (votes[..., None] * color).sum(dim=0) / votes.sum(dim=0).clamp(min=1e-12)[:, None]
    apart = (color - agreed).square().sum(dim=-1)
    weight *= torch.exp(-apart / (2 * DISAGREEMENT**2))
    if len(weight) > BEST_VIEWS:
        best, which = weight.topk(BEST_VIEWS + 1, dim=0)
        # Less the first that is left out: views come in with weight 0, so that none shows an edge.
        weight = best[:-1] - 0.99 * best[-1:]
        color = color.gather(0, which[:-1, :, None].expand(-1, -1, 3))
    mixed = (weight[..., None] * color).sum(dim=0) / weight.sum(dim=0).clamp(min=1e-12)[:, None]
    return mixed, total


def _visibility_weight(seen: np.ndarray) -> np.ndarray:
    """How much of its own colour, against the filled-in one, a point so well seen gets."""
    return 1 - 1 / (1 + (seen / SEEN_WELL) ** 2)


def fill_unseen(mesh: Trimesh, colors: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Let colours flow along the surface to where no view sees it well.

    Solves a screened Laplace equation on the edges of the mesh: what is well seen keeps its
    colour, the rest is as smooth as it can be.

    Args:
        mesh: V vertices.
        colors: in [0, 1], (V, 3).
        seen: how well, at least 0, (V,).

    Returns:
        colours of all vertices, in [0, 1], (V, 3) float64.
    """
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import cg

    count = len(mesh.vertices)
    pairs = np.concatenate([mesh.edges_unique, mesh.edges_unique[:, ::-1]])
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    trust = _visibility_weight(seen)
    mean = trust @ colors / trust.sum() if trust.any() else np.full(3, 0.5)
    anchored = trust / (1 - trust + 0.01)
    lonely = 1e-6  # of pieces that no view sees: they take the mean colour
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
    """Colours of the vertices of a mesh, taken from views.

    Args:
        mesh: V vertices, in the world of the cameras.
        views: in [0, 1], (N, S, S, 3).
        masks: where the object is, bool or in [0, 1], (N, S, S); None: where the mesh is.
        cameras: N, for S x S images.

    Returns:
        in [0, 1], (V, 3).
    """
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
    """Give a mesh a texture out of the views that show it.

    Args:
        mesh: in the world of the cameras.
        views: in [0, 1], (N, S, S, 3).
        masks: where the object is, bool or in [0, 1], (N, S, S); None: where the mesh is.
        cameras: N, for S x S images.
        size: pixels a side of the texture.
        faces: the mesh is simplified to about so many, for it takes long to unwrap more.

    Returns:
        the simplified mesh, its vertices doubled at the seams of the texture, with smooth normals
        and a `TextureVisuals` of one matte PBR material.
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
    return _textured(points[origin], corners, normals[origin], uv, _paint(texels, colors, size))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (V, 3) at length 1; upwards where there is no direction, as files need one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-9, vectors / lengths.clip(1e-9), [0.0, 0.0, 1.0])


def _unwrap(mesh: Trimesh, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a mesh into charts that lie flat in the unit square.

    Returns:
        the vertex of the mesh that each vertex of the charts comes from, (W,); the charts' faces
        in the order of the mesh's, (F, 3); places with v downwards, (W, 2).
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
    """Put colours into an image; what lies between the charts takes the nearest one's colour."""
    from scipy import ndimage

    image = np.zeros((size * size, 3))
    empty = np.ones(size * size, dtype=bool)
    image[texels.pixels], empty[texels.pixels] = colors, False
    nearest = ndimage.distance_transform_edt(
        empty.reshape(size, size), return_distances=False, return_indices=True
    )
    painted = image.reshape(size, size, 3)[tuple(nearest)]
    return Image.fromarray(np.round(painted * 255).astype(np.uint8))


def _textured(
    points: np.ndarray, faces: np.ndarray, normals: np.ndarray, uv: np.ndarray, image: Image.Image
) -> Trimesh:
    trimesh = import_optional("trimesh", "texturing meshes")
    material = trimesh.visual.material.PBRMaterial(
        name="views",
        baseColorTexture=image,
        metallicFactor=0.0,
        roughnessFactor=0.9,
        doubleSided=False,
    )
    upwards = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)  # trimesh has v = 0 at the bottom
    visual = trimesh.visual.TextureVisuals(uv=upwards, material=material)
    return trimesh.Trimesh(points, faces, vertex_normals=normals, visual=visual, process=False)


def write_glb(path: Path, mesh: Trimesh) -> None:
    """Write a textured mesh as one self-contained glTF file.

    Args:
        path: of the .glb; written whole or not at all.
        mesh: textured, z up. The file has y up, as glTF demands: (x, y, z) becomes (x, z, -y), and
            importers for which z is up turn it back.
    """
    trimesh = import_optional("trimesh", "texturing meshes")
    y_up = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    turned = trimesh.Trimesh(
        mesh.vertices @ y_up.T,
        mesh.faces,
        vertex_normals=mesh.vertex_normals @ y_up.T,
        visual=mesh.visual,
        process=False,
    )
    content = turned.export(file_type="glb", include_normals=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
