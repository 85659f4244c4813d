"""Image files without their metadata, for readers that stumble over it."""

from __future__ import annotations

import re
import struct
import zlib

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PNG_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_WEBP_NEEDED = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_FLAGS = 0x20 | 0x08 | 0x04
"""Of a WebP file that has a colour profile, EXIF and XMP."""
_ISO_ITEM = re.compile(rb"(infe(?:\x02.{3}.{4}|\x03.{3}.{6}))(?:Exif|mime)", re.DOTALL)
"""The entry of EXIF or XMP in the list of an AVIF or HEIC file's items."""
_TIFF_UNNEEDED = {270, 282, 283, 296, 305, 306, 315, 700, 33432, 33723, 34377, 34665, 34675, 34853}


def without_metadata(content: bytes) -> bytes | None:
    """Drop what the pixels do not need from an image file, up to its end or a defect.

    Returns None for other formats than PNG, JPEG, TIFF, WebP, AVIF and HEIC, and where there is
    nothing to drop. Of a JPEG file, the orientation tag is kept if it can be found; that of AVIF
    and HEIC is no metadata.
    """
    try:
        if content.startswith(_PNG):
            bare = _bare_png(content)
        elif content.startswith(_JPEG):
            bare = _bare_jpeg(content)
        elif content[:4] in (b"II*\0", b"MM\0*"):
            bare = _bare_tiff(content)
        elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            bare = _bare_webp(content)
        elif content[4:8] == b"ftyp":
            bare = _ISO_ITEM.sub(rb"\1skip", content)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return bare if bare != content else None


def _bare_png(content: bytes) -> bytes:
    parts, at = [_PNG], len(_PNG)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        name, chunk = content[at + 4 : at + 8], content[at : at + 12 + length]
        whole = chunk[-4:] == zlib.crc32(chunk[4:-4]).to_bytes(4, "big")
        if name in _PNG_NEEDED or (name == b"eXIf" and whole):  # the latter has the orientation
            parts.append(chunk)
        at += 12 + length
    return b"".join(parts)


def _bare_jpeg(content: bytes) -> bytes:
    parts, at = [_JPEG], 2
    while content[at] == 0xFF and content[at + 1] != 0xDA:
        marker = content[at + 1]
        (length,) = struct.unpack_from(">H", content, at + 2)
        segment = content[at : at + 2 + length]
        at += 2 + length
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            parts.append(_orientation_segment(segment[10:]))
        elif marker == 0xEE or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.append(segment)  # 0xEE: the colour space
    return b"".join([*parts, content[at:]])


def _orientation_segment(exif: bytes) -> bytes:
    """An EXIF segment with the orientation only, or nothing if it has none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return b""
    (at,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, at)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        if struct.unpack_from(order + "HHI", exif, entry) == (0x0112, 3, 1):
            tiff = exif[:4] + struct.pack(order + "IH", 8, 1) + exif[entry : entry + 12] + bytes(4)
            return b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    return b""


def _bare_webp(content: bytes) -> bytes:
    parts, at = [b"WEBP"], 12
    while at + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        chunk = bytearray(content[at : at + 8 + length + length % 2])
        if name == b"VP8X":
            chunk[8] &= ~_WEBP_FLAGS
        if name in _WEBP_NEEDED:
            parts.append(bytes(chunk))
        at += len(chunk)
    return b"RIFF" + struct.pack("<I", sum(map(len, parts))) + b"".join(parts)


def _bare_tiff(content: bytes) -> bytes:
    """Rename the tags of metadata in the first directory to one that no reader knows."""
    order, bare = "<" if content[:2] == b"II" else ">", bytearray(content)
    (at,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, *kind = struct.unpack_from(order + "HHI", content, entry)
        if tag in _TIFF_UNNEEDED or (tag == 0x0112 and kind != [3, 1]):
            struct.pack_into(order + "HHII", bare, entry, 65000, 4, 1, 0)
    return bytes(bare)
