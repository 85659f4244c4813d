"""Render coloured meshes to images and videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from common.files import atomic_write
from common.optional import import_optional
from multiview.cameras import Cameras, orbit_cameras
from multiview.rasterise import Fragments, rasterise_mesh
from renderer.mesh import sample_bilinear

if TYPE_CHECKING:
    from trimesh import Trimesh

SUPERSAMPLING = 2
"""Samples per pixel along each axis."""
AT_ONCE = 16
"""Images that are rendered before the first of them is yielded; bounds the memory."""


def render(mesh: Trimesh, cameras: Cameras, size: int) -> Iterator[np.ndarray]:
    """Render a mesh with texture or vertex colours, unlit and on white, for size x size images.

    Backs of faces are not shown.

    Yields:
        RGBA in [0, 1], alpha not premultiplied, (size, size, 4) float32, for each camera.
    """
    fine = size * SUPERSAMPLING
    scale = np.diag([SUPERSAMPLING, SUPERSAMPLING, 1.0])
    shade = surface_colors(mesh)
    rows, columns = np.mgrid[:fine, :fine] // SUPERSAMPLING
    pixel_of = (rows * size + columns).ravel()  # of each sample

    def draw(camera: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        intrinsics, pose = camera
        seen = rasterise_mesh(mesh, scale @ intrinsics, pose, fine, one_sided=True)
        pixels = pixel_of[seen.pixels]
        image = np.empty((size * size, 4), dtype=np.float32)
        image[:, 3] = np.bincount(pixels, minlength=size * size) / SUPERSAMPLING**2
        for channel, darker in enumerate(shade(seen).T - 1):
            sums = np.bincount(pixels, darker, minlength=size * size)
            image[:, channel] = 1 + sums / SUPERSAMPLING**2
        return image.reshape(size, size, 4)

    rig = zip(cameras.intrinsics, cameras.world_to_camera, strict=True)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        while some := list(islice(rig, AT_ONCE)):
            yield from pool.map(draw, some)


def surface_colors(mesh: Trimesh) -> Callable[[Fragments], np.ndarray]:
    """Return a function that gives fragments of a mesh their unlit colours, in [0, 1], (P, 3)."""
    faces, visual = mesh.faces.view(np.ndarray), cast(Any, mesh.visual)
    if visual.kind != "texture":
        colors = visual.vertex_colors[:, :3] / np.float32(255)
        return lambda seen: seen.interpolate(colors, faces)
    texture = np.asarray(visual.material.baseColorTexture.convert("RGB")).astype(np.float32) / 255
    channels = torch.from_numpy(texture).permute(2, 0, 1).contiguous()
    places = visual.uv * [2, -2] + [-1, 1]  # v = 0 is at the bottom

    def shade(seen: Fragments) -> np.ndarray:
        positions = torch.from_numpy(seen.interpolate(places, faces).astype(np.float32))
        return sample_bilinear(channels, positions).numpy()

    return shade


def orbit_frames(
    mesh: Trimesh, num: int = 180, elevation_deg: float = 30.0, size: int = 512
) -> Iterator[np.ndarray]:
    """Yield `num` frames, uint8 (size, size, 3) on white, of a full turn around a coloured mesh.

    The elevation, above the horizon, is constant; the azimuth starts at 0.
    """
    cameras = orbit_cameras(num, elevation_deg=elevation_deg, image_size=size)
    for image in render(mesh, cameras, size):
        yield np.round(image[..., :3] * 255).astype(np.uint8)


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int = 30) -> None:
    """Write an MP4 video that browsers and editors play (H.264, yuv420p), atomically.

    Frames are uint8 (H, W, 3), all of one size; odd sides are padded with a white line of pixels.

    Raises:
        ImportError: the package with the encoder is not installed.
        ValueError: there are no frames, or they are not uint8 images of one size.
    """
    import_optional("imageio_ffmpeg", "writing videos")
    imageio = import_optional("imageio.v2", "writing videos")
    pending = iter(frames)
    first = next(pending, None)
    if first is None:
        raise ValueError(f"{path}: a video needs at least one frame")
    odd = [(0, first.shape[0] % 2), (0, first.shape[1] % 2), (0, 0)]
    codec = {"codec": "libx264", "pixelformat": "yuv420p", "quality": 8, "macro_block_size": 2}
    codec["output_params"] = ["-movflags", "+faststart"]
    with (
        atomic_write(path) as temporary,
        closing(imageio.get_writer(temporary, "FFMPEG", "I", fps=fps, **codec)) as writer,
    ):
        for frame in chain([first], pending):
            if frame.shape != first.shape or frame.dtype != np.uint8:
                got = f"{frame.dtype} {frame.shape}"
                raise ValueError(f"{path}: expected uint8 frames of shape {first.shape}, got {got}")
            writer.append_data(np.pad(frame, odd, constant_values=255))
