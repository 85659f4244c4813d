"""Text chunks, validation and 16-bit encoding of PNG files without an image library.

Imported by Blender's Python, which has NumPy only.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
GREY, RGBA = 0, 6
"""PNG colour types of depth maps and of views."""
CHANNELS = {GREY: 1, RGBA: 4}


def _chunks(raw: bytes, path: Path) -> list[tuple[bytes, bytes]]:
    """Types and contents of all chunks; ValueError if one is damaged or the end is missing."""
    if not raw.startswith(SIGNATURE):
        raise ValueError(f"{path}: not a PNG file")
    chunks, position = [], len(SIGNATURE)
    while position + 12 <= len(raw):
        (length,) = struct.unpack_from(">I", raw, position)
        kind, end = raw[position + 4 : position + 8], position + 8 + length
        content = raw[position + 8 : end]
        if raw[end : end + 4] != struct.pack(">I", zlib.crc32(kind + content)):
            raise ValueError(f"{path}: the image is damaged or truncated")
        chunks.append((kind, content))
        position = end + 4
        if kind == b"IEND":
            return chunks
    raise ValueError(f"{path}: the image is truncated")


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def add_text(raw: bytes, keyword: str, text: str, path: Path) -> bytes:
    """Add a text chunk (latin-1; keywords of at most 79 characters) to the content of a PNG file.

    ValueError that names `path`: it is not a complete PNG.
    """
    _chunks(raw, path)
    content = keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    return raw[: raw.rindex(END)] + _chunk(b"tEXt", content) + END


def read_text(path: Path, keyword: str, size: int, bits: int, colour_type: int) -> str | None:
    """Validate a PNG file (all checksums and the number of pixels) and read a text chunk.

    The image must have `size` pixels a side, `bits` per channel, and `GREY` or `RGBA` pixels.
    Returns None if there is no text chunk with this keyword.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, truncated, or of another size or type.
    """
    chunks = _chunks(path.read_bytes(), path)
    found, prefix = None, keyword.encode("latin-1") + b"\0"
    for kind, content in chunks:
        if kind == b"tEXt" and content.startswith(prefix):
            found = content[len(prefix) :].decode("latin-1")
    kind, header = chunks[0]
    expected = struct.pack(">IIBBBBB", size, size, bits, colour_type, 0, 0, 0)
    if kind != b"IHDR" or header != expected:
        raise ValueError(f"{path}: not a PNG of {size} x {size} pixels of the expected type")
    expected_bytes = size * (1 + size * CHANNELS[colour_type] * bits // 8)
    compressed = b"".join(part for kind, part in chunks if kind == b"IDAT")
    try:
        pixels = zlib.decompressobj().decompress(compressed, expected_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"{path}: the image is damaged ({error})") from error
    if len(pixels) != expected_bytes:
        raise ValueError(f"{path}: the image is damaged, pixels are missing")
    return found


def ends_as_png(path: Path) -> bool:
    """Whether a file begins and ends like a PNG; truncated files do not."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(SIGNATURE)) == SIGNATURE
            file.seek(-len(END), 2)
            return begins and file.read() == END
    except OSError:
        return False


def encode_grey16(levels: np.ndarray) -> bytes:
    """Encode an image of uint16, (H, W), as a 16-bit grey PNG."""
    height, width = levels.shape
    rows = levels.astype(">u2").view(np.uint8).reshape(height, 2 * width)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter 0: none
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, GREY, 0, 0, 0))
    return SIGNATURE + header + _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)) + END
