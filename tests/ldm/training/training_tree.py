"""Small training sets for the tests."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ldm.config import SyncDreamerConfig
from ldm.data.samples import TrainingBatch


def png(seed: int, size: int = 16, mode: str = "RGBA") -> bytes:
    """An image of random pixels, alpha 0, 255 and between."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (size, size, 4), dtype=np.uint8)
    pixels[: size // 2, :, 3] = np.where(pixels[: size // 2, :, 3] > 127, 255, 0)
    return encode_png(pixels, mode)


def encode_png(pixels: np.ndarray, mode: str = "RGBA") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def elevations(number: int, num_views: int) -> np.ndarray:
    return np.linspace(-0.1, 0.6, num_views) + 0.001 * number


def make_tree(
    root: Path, uids: list[str], num_views: int = 16, size: int = 16,
    picture: Callable[[int, str, int], bytes] | None = None,
    angles: Callable[[int, int], np.ndarray] = elevations,
) -> Path:  # fmt: skip
    """Write a training set as `render_batch.py` leaves it; `picture` of object, kind and view."""
    for number, uid in enumerate(uids):
        for kind in ("target", "input"):
            folder = root / kind / uid
            folder.mkdir(parents=True)
            for view in range(num_views):
                seed = 1000 * number + 2 * view + (kind == "input")
                content = picture(number, kind, view) if picture else png(seed, size)
                (folder / f"{view:03d}.png").write_bytes(content)
        meta = [np.eye(3), np.zeros(num_views), angles(number, num_views)]
        meta += [np.full(num_views, 1.5), np.zeros((num_views, 3, 4))]
        (root / "input" / uid / "meta.pkl").write_bytes(pickle.dumps(meta))
    (root / "uid_set.pkl").write_bytes(pickle.dumps(uids))
    return root


def random_batch(config: SyncDreamerConfig, count: int) -> TrainingBatch:
    """A batch of random pixels, with the keys of its images."""
    generator = torch.Generator().manual_seed(1)
    uids = [f"object{n}" for n in range(count)]
    batch = TrainingBatch.empty(uids, config.cameras.num_views, config.cameras.image_size)
    for images in (batch.target_images, batch.input_images):
        images.random_(0, 256, generator=generator)
    batch.input_elevations[:] = torch.linspace(0.0, 0.5, count)
    return batch.with_image_keys()
