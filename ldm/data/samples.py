"""What a training step gets of an object: items, batches, and how images become them.

An object has two sets of N views with the same azimuths: targets (all from 30 degrees above) and
inputs (each from an elevation of its own, in `meta.pkl`). An item is the object seen from a random
input view k: the targets rolled so that k comes first, input view k and its elevation. k follows
from (seed, epoch, uid) alone, so it is the same whatever the number of workers or processes, in a
resumed run, and from every source.

An `ObjectDataset` reads an object's files: `ldm.data.folder.FolderDataset` from the published tree,
`ldm.data.shard_dataset.ShardDataset` from tar shards. `ldm.data.loader` makes batches of either.
"""

from __future__ import annotations

import hashlib
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MAX_FILE_BYTES = 32 * 2**20
"""Larger image and meta files are not read: a view of 256 pixels has about 40 kB."""
MAX_IMAGE_SIDE = 2048


@dataclass(frozen=True)
class TrainingItem:
    """An object as a training step sees it.

    Attributes:
        target_images: uint8, (N, 3, H, W); view 0 has the input's azimuth.
        input_image: uint8, (3, H, W).
        input_elevation: radians, float32, ().
        uid: of the object.
    """

    target_images: Tensor
    input_image: Tensor
    input_elevation: Tensor
    uid: str


@dataclass(frozen=True)
class TrainingBatch:
    """B items. The images are 8-bit until they are where the model is: a quarter of the bytes.

    Attributes:
        target_images: uint8, (B, N, 3, H, W).
        input_images: uint8, (B, 3, H, W).
        input_elevations: radians, float32, (B,).
        uids: of the objects.
    """

    target_images: Tensor
    input_images: Tensor
    input_elevations: Tensor
    uids: tuple[str, ...]

    @classmethod
    def empty(cls, uids: Sequence[str], num_views: int, image_size: int) -> TrainingBatch:
        """Make room for the items of B objects."""
        shape = (len(uids), num_views, 3, image_size, image_size)
        targets = torch.empty(shape, dtype=torch.uint8)
        elevations = torch.empty(len(uids))
        return cls(targets, torch.empty_like(targets[:, 0]), elevations, tuple(uids))

    def item(self, index: int) -> TrainingItem:
        """Return item `index`; its tensors are parts of this batch's."""
        return TrainingItem(
            self.target_images[index],
            self.input_images[index],
            self.input_elevations[index],
            self.uids[index],
        )

    def share_memory(self) -> TrainingBatch:
        """Move to memory that another process can see; what is then written needs no copy."""
        for part in (self.target_images, self.input_images, self.input_elevations):
            part.share_memory_()
        return self

    def __len__(self) -> int:
        return len(self.uids)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> TrainingBatch:
        """Copy to a device; Lightning calls it too."""
        return TrainingBatch(
            self.target_images.to(device, non_blocking=non_blocking),
            self.input_images.to(device, non_blocking=non_blocking),
            self.input_elevations.to(device, non_blocking=non_blocking),
            self.uids,
        )

    def pin_memory(self) -> TrainingBatch:
        """Copy to memory that a GPU can fetch from by itself; DataLoader calls it."""
        return TrainingBatch(
            self.target_images.pin_memory(),
            self.input_images.pin_memory(),
            self.input_elevations.pin_memory(),
            self.uids,
        )


def to_model_range(images: Tensor) -> Tensor:
    """Convert uint8 images to the model's range, float32 in [-1, 1], the same shape."""
    return images.float() / 255.0 * 2.0 - 1.0


def pick_input_view(seed: int, epoch: int, uid: str, num_views: int = 16) -> int:
    """Draw the input view of an object in an epoch."""
    digest = hashlib.blake2b(f"{seed} {epoch} {uid}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % num_views


@dataclass(frozen=True)
class EncodedFile:
    """The content of a file, and where it was, for messages."""

    where: str
    content: bytes | memoryview


@dataclass(frozen=True)
class ObjectFiles:
    """What an item is made of, still compressed.

    Attributes:
        uid: of the object.
        targets: the N target views in the order of their azimuths.
        input: the one input view.
        elevation: of the input view, radians.
    """

    uid: str
    targets: tuple[EncodedFile, ...]
    input: EncodedFile
    elevation: float


class ObjectDataset(Protocol):
    """Where objects come from.

    Attributes:
        uids: as bytes (a list of 800 000 strings would be copied by every worker), (n,).
        groups: how many consecutive objects are stored together; the sum is n.
    """

    uids: np.ndarray
    groups: Sequence[int]

    def read(self, index: int, view: int, num_views: int) -> ObjectFiles:
        """Read object `index` as seen from input view `view`.

        Raises:
            ValueError, OSError: naming the uid and the file.
        """
        ...


def decode_item(files: ObjectFiles, view: int, image_size: int) -> TrainingItem:
    """Decode an object's views.

    Args:
        files: of the object.
        view: k, the target view that comes first.
        image_size: H = W of the result; files of another size are resampled (bicubic).

    Raises:
        ValueError: naming the uid and the file that is damaged, has no alpha channel, is not
            square or of another size than the object's other views.
    """
    targets = torch.empty(len(files.targets), 3, image_size, image_size, dtype=torch.uint8)
    item = TrainingItem(targets, torch.empty_like(targets[0]), torch.empty(()), files.uid)
    decode_item_into(item, files, view)
    return item


def decode_item_into(item: TrainingItem, files: ObjectFiles, view: int) -> None:
    """Decode an object's views into the tensors of `item`; see `decode_item`."""
    images = [*item.target_images.numpy(), item.input_image.numpy()]
    rolled = (*files.targets[view:], *files.targets[:view], files.input)
    first = 0
    for file, image in zip(rolled, images, strict=True):
        try:
            rgba = decode_rgba(file.content)
            side = math.isqrt(len(rgba) // 4)
            if first and side != first:
                raise ValueError(f"has {side} pixels a side, the views before it {first}")
        except ValueError as error:
            raise ValueError(f"object {files.uid}: {file.where}: {error}") from error
        first = side
        if image.shape[1:] == (side, side):
            _put_on_white(rgba, image)
        else:
            whole = _put_on_white(rgba, np.empty((3, side, side), np.uint8))
            image[:] = _resized(whole, image.shape[1])
    item.input_elevation.fill_(files.elevation)


def check_png(content: bytes | memoryview) -> None:
    """Raise ValueError unless this is a whole PNG file of a square image.

    All checksums are compared, which Pillow leaves out for pixels: a flipped bit is found.
    """
    view = memoryview(content)
    if bytes(view[:8]) != b"\x89PNG\r\n\x1a\n" or bytes(view[12:16]) != b"IHDR":
        raise ValueError("is not a PNG image")
    width, height = (int.from_bytes(view[at : at + 4], "big") for at in (16, 20))
    if width != height or not 0 < width <= MAX_IMAGE_SIDE:
        raise ValueError(
            f"has {width} x {height} pixels, expected a square of at most {MAX_IMAGE_SIDE}"
        )
    start, kind = 8, b""
    while kind != b"IEND":
        end = start + 12 + int.from_bytes(view[start : start + 4], "big")
        if start + 12 > len(view) or end > len(view):
            raise ValueError("the image is cut off")
        kind = bytes(view[start + 4 : start + 8])
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError("the image is damaged: a checksum is wrong")
        start = end


def decode_rgba(content: bytes | memoryview) -> bytes:
    """Decode a PNG image with an alpha channel into S x S pixels of 4 bytes, row by row.

    Raises:
        ValueError: damaged, not square, too large or without transparency.
    """
    check_png(content)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            if image.mode == "RGBA":
                return image.tobytes()
            if image.mode != "LA" and "transparency" not in image.info:
                raise ValueError(f"has no alpha channel (mode {image.mode}), expected RGBA")
            return image.convert("RGBA").tobytes()
    except ValueError:
        raise
    except Exception as error:  # crafted chunks make Pillow raise IndexError, struct.error, ...
        raise ValueError(f"the image is damaged ({error})") from error


@lru_cache(maxsize=1)
def white_blend_table() -> np.ndarray:
    """Every value over white for every alpha, uint8, (256 alphas, 256 values).

    Compat: v a + 1 - a in float32, times 255, truncated; 95 of the 256 opaque values come out
    lower by one.
    """
    value = np.arange(256, dtype=np.float32) / np.float32(255)
    alpha = value[:, None]
    return ((value * alpha + 1 - alpha) * 255).astype(np.uint8)


def _put_on_white(rgba: bytes, out: np.ndarray) -> np.ndarray:
    """Put pixels on white, S S 4 bytes -> uint8 (3, S, S), written to and returned as `out`.

    Nearly all pixels of a rendering are opaque or invisible: all are translated as if they were
    opaque, which Python does fast for bytes, and the others are put right.
    """
    opaque = np.frombuffer(rgba.translate(white_blend_table()[255].tobytes()), np.uint8)
    out[:] = opaque.reshape(*out.shape[1:], 4)[:, :, :3].transpose(2, 0, 1)
    pixels = np.frombuffer(rgba, np.uint8).reshape(-1, 4)
    alpha = pixels[:, 3]
    np.copyto(out, 255, where=(alpha == 0).reshape(out.shape[1:]))
    between = np.flatnonzero(alpha - np.uint8(1) < 254)  # 0 wraps around to 255
    out.reshape(3, -1)[:, between] = white_blend_table()[alpha[between], pixels[between, :3].T]
    return out


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """Resample, uint8, (3, S, S) -> (3, size, size)."""
    pixels = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return np.asarray(pixels.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def check_elevations(elevations: object, num_views: int) -> np.ndarray:
    """Return elevations in radians as float64 (N,), or raise ValueError."""
    try:
        values = np.asarray(elevations, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("the elevations are not numbers") from None
    if values.shape != (num_views,):
        raise ValueError(f"expected {num_views} elevations, got an array of shape {values.shape}")
    if not (np.abs(values) <= math.pi / 2).all():
        raise ValueError("the elevations are not all radians from -pi/2 to pi/2")
    return values
