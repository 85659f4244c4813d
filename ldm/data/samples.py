"""Training items and batches, and decoding of PNG views into them.

An object has two sets of N views with the same azimuths: targets (all from 30 degrees above) and
inputs (each from a random elevation, in `meta.pkl`). An item is the object seen from a random input
view k: the targets rolled so that k comes first, input view k and its elevation. k depends on
(seed, epoch, uid) only.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

MAX_FILE_BYTES = 32 * 2**20
"""Limit for image and meta files; a view of 256 pixels takes about 40 kB."""
MAX_IMAGE_SIDE = 2048
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG file: length 0, name, checksum."""


@contextmanager
def located(place: str) -> Iterator[None]:
    """Begin the message of a ValueError or OSError with the object or file that it is about."""
    try:
        yield
    except (ValueError, OSError) as error:
        kinds = (FileNotFoundError, OSError, ValueError)
        kind = next(kind for kind in kinds if isinstance(error, kind))
        raise kind(f"{place}: {error}") from error


@dataclass(frozen=True)
class TrainingItem:
    """One object with one of its input views."""

    target_images: Tensor  # uint8, (N, 3, H, W); view 0 has the input's azimuth
    input_image: Tensor  # uint8, (3, H, W)
    input_elevation: Tensor  # radians, float32, ()
    uid: str


@dataclass(frozen=True)
class TrainingBatch:
    """B items. The images stay 8-bit until they are on the model's device, for faster copies."""

    target_images: Tensor  # uint8, (B, N, 3, H, W)
    input_images: Tensor  # uint8, (B, 3, H, W)
    input_elevations: Tensor  # radians, float32, (B,)
    uids: tuple[str, ...]
    # of each object's N target images and its input image, for the latent cache; else empty
    image_keys: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def empty(cls, uids: Sequence[str], num_views: int, image_size: int) -> TrainingBatch:
        """Allocate a batch for B objects."""
        shape = (len(uids), num_views, 3, image_size, image_size)
        targets = torch.empty(shape, dtype=torch.uint8)
        elevations = torch.empty(len(uids))
        return cls(targets, torch.empty_like(targets[:, 0]), elevations, tuple(uids))

    def item(self, index: int) -> TrainingItem:
        """Return item `index`; its tensors are views of this batch's."""
        targets, elevation = self.target_images[index], self.input_elevations[index]
        return TrainingItem(targets, self.input_images[index], elevation, self.uids[index])

    def share_memory(self) -> TrainingBatch:
        """Move the tensors to memory shared between processes; later writes need no copy."""
        return self._convert(Tensor.share_memory_)

    def __len__(self) -> int:
        return len(self.uids)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> TrainingBatch:
        """Copy to a device; also called by Lightning."""
        return self._convert(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TrainingBatch:
        """Copy to page-locked memory, for faster copies to a GPU; called by `DataLoader`."""
        return self._convert(Tensor.pin_memory)

    def _convert(self, function: Callable[[Tensor], Tensor]) -> TrainingBatch:
        tensors = (self.target_images, self.input_images, self.input_elevations)
        targets, inputs, elevations = map(function, tensors)
        return TrainingBatch(targets, inputs, elevations, self.uids, self.image_keys)

    def with_image_keys(self) -> TrainingBatch:
        """Compute `image_keys`; the images must be on the CPU."""
        images = torch.cat([self.target_images, self.input_images[:, None]], dim=1)
        keys = tuple(tuple(image_key(image) for image in views) for views in images)
        return replace(self, image_keys=keys)


def image_key(image: Tensor) -> str:
    """Hash the pixels of a uint8 image on the CPU."""
    return hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=16).hexdigest()


def to_model_range(images: Tensor) -> Tensor:
    """Convert uint8 images to float32 in [-1, 1]."""
    return images.float() / 255.0 * 2.0 - 1.0


def pick_input_view(seed: int, epoch: int, uid: str, num_views: int = 16) -> int:
    """Pick the random input view of an object in an epoch: an index from 0 to N - 1."""
    digest = hashlib.blake2b(f"{seed} {epoch} {uid}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % num_views


@dataclass(frozen=True)
class EncodedFile:
    """Content of a PNG or meta file, and its path or URL for error messages."""

    location: str
    content: bytes | memoryview


@dataclass(frozen=True)
class ObjectFiles:
    """PNG files of an item, before decoding."""

    uid: str
    targets: tuple[EncodedFile, ...]  # the N target views, ordered by azimuth
    input: EncodedFile
    elevation: float  # of the input view, radians


class ObjectDataset(Protocol):
    """Training objects, in folders or shards."""

    uids: np.ndarray  # bytes, (n,); a list of 800 000 strings would be copied by every worker
    # numbers of consecutive objects that are stored together; they sum to n
    group_sizes: Sequence[int]

    def read(self, index: int, view: int, num_views: int) -> ObjectFiles:
        """Read the target views and input view `view` of object `index`; errors name the uid."""


def decode_item(files: ObjectFiles, view: int, image_size: int) -> TrainingItem:
    """Decode an object's views and put them on white, target view k = `view` first.

    Files of another size than `image_size` are resampled (bicubic). ValueError names the uid and
    the file that is damaged, has no alpha channel, is not square or as large as the other views.
    """
    targets = torch.empty(len(files.targets), 3, image_size, image_size, dtype=torch.uint8)
    item = TrainingItem(targets, torch.empty_like(targets[0]), torch.empty(()), files.uid)
    decode_item_into(item, files, view)
    return item


def decode_item_into(item: TrainingItem, files: ObjectFiles, view: int) -> None:
    """Decode an object's views into the tensors of `item`; see `decode_item`."""
    images = [*item.target_images.numpy(), item.input_image.numpy()]
    rolled = (*files.targets[view:], *files.targets[:view], files.input)
    side = None
    for file, image in zip(rolled, images, strict=True):
        with located(f"object {files.uid}: {file.location}"):
            rgba = decode_rgba(file.content, side)
        side = math.isqrt(len(rgba) // 4)
        if image.shape[1:] == (side, side):
            _composite_white(rgba, image)
        else:
            whole = _composite_white(rgba, np.empty((3, side, side), np.uint8))
            image[:] = _resize(whole, image.shape[1])
    item.input_elevation.fill_(files.elevation)


def check_views(files: Iterable[EncodedFile]) -> None:
    """Raise ValueError, naming the file, unless an object's views are what training accepts."""
    side = None
    for file in files:
        with located(file.location):
            side = check_png(file.content, side)


def check_png(content: bytes | memoryview, side: int | None = None) -> int:
    """Raise ValueError unless this is a complete, undamaged, square PNG image with alpha.

    Returns its width, which has to be `side`, that of the views before it. All checksums are
    compared, unlike in Pillow's `load`, which ignores those of the pixels.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=["PNG"])
    except UnidentifiedImageError:
        raise ValueError("is not a PNG image") from None
    except Exception as error:  # crafted chunks make Pillow raise IndexError, struct.error, ...
        raise ValueError(f"the image is damaged ({error})") from error
    if image.width != image.height or not 0 < image.width <= MAX_IMAGE_SIDE:
        size = f"{image.width} x {image.height}"
        raise ValueError(f"has {size} pixels, expected a square of at most {MAX_IMAGE_SIDE}")
    try:
        image.verify()
    except Exception as error:
        raise ValueError(f"the image is damaged ({error})") from error
    if PNG_END not in bytes(content):  # which `verify` only looks for the name of
        raise ValueError("the image is damaged: its end is incomplete")
    if image.mode not in ("RGBA", "LA") and "transparency" not in image.info:
        raise ValueError(f"has no alpha channel (mode {image.mode}), expected RGBA")
    if side is not None and image.width != side:
        raise ValueError(f"is {image.width} pixels wide, the views before it {side}")
    return image.width


def decode_rgba(content: bytes | memoryview, side: int | None = None) -> bytes:
    """Decode a square PNG image with an alpha channel to its RGBA bytes, S x S x 4.

    ValueError if it is not what `check_png` accepts.
    """
    check_png(content, side)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            return image.convert("RGBA").tobytes()
    except Exception as error:  # crafted chunks make Pillow raise IndexError, struct.error, ...
        raise ValueError(f"the image is damaged ({error})") from error


@lru_cache(maxsize=1)
def white_blend_table() -> np.ndarray:
    """Tabulate every value over white for every alpha, uint8, (256 alphas, 256 values).

    Compat: truncated, so 95 of the 256 opaque values become smaller by one.
    """
    value = np.arange(256, dtype=np.float32) / np.float32(255)
    alpha = value[:, None]
    return ((value * alpha + 1 - alpha) * 255).astype(np.uint8)


def _composite_white(rgba: bytes, out: np.ndarray) -> np.ndarray:
    """Composite RGBA pixels over white, S x S x 4 bytes -> uint8 (3, S, S), into `out`."""
    # Nearly all pixels are opaque or transparent: all are mapped as if opaque, the rest corrected.
    opaque = np.frombuffer(rgba.translate(white_blend_table()[255].tobytes()), np.uint8)
    out[:] = opaque.reshape(*out.shape[1:], 4)[:, :, :3].transpose(2, 0, 1)
    pixels = np.frombuffer(rgba, np.uint8).reshape(-1, 4)
    alpha = pixels[:, 3]
    np.copyto(out, 255, where=(alpha == 0).reshape(out.shape[1:]))
    between = np.flatnonzero(alpha - np.uint8(1) < 254)  # 0 wraps around to 255
    out.reshape(3, -1)[:, between] = white_blend_table()[alpha[between], pixels[between, :3].T]
    return out


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resample an image, uint8, (3, S, S) -> (3, size, size)."""
    pixels = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return np.asarray(pixels.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def check_elevations(elevations: object, num_views: int) -> np.ndarray:
    """Convert elevations in radians to float64 (N,), or raise ValueError."""
    try:
        values = np.asarray(elevations, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("the elevations are not numbers") from None
    if values.shape != (num_views,):
        raise ValueError(f"expected {num_views} elevations, got an array of shape {values.shape}")
    if not (np.abs(values) <= math.pi / 2).all():
        raise ValueError("the elevations are not all radians from -pi/2 to pi/2")
    return values
