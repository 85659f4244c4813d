"""Ways to damage files: anywhere, or in their structure, with checksums and lengths made good."""

from __future__ import annotations

import io
import random
import re
import struct
import tarfile
import zipfile
import zlib

NUMBERS = (0, 1, -1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63)
WORDS = (
    *(b"-1", b"0", b"1e400", b"nan", b"Infinity", b"99999999999999999999", b"9" * 5000),
    *(b"null", b"true", b"''", b"[]", b"{}", b'"\\ud800"', b"a" * 5000, b"\xff\xfe", b"\0"),
    *(b"../../../tmp/x", b"/etc/passwd", b"${a}", b"&a [*a]", b"!!python/name:os.system"),
    *(b"[" * 5000, b'{"a":' * 5000, b"- " * 3000, b"\n", b"\r", b",", b'"'),
)


def damage(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Damage a file in one to four ways, anywhere in it."""
    mutated = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(min(len(mutated), draw.choice([64, 1024, 2**20])) or 1)
        end = at + draw.choice([1, 4, 30, 1000])
        match draw.randrange(7):
            case 0 | 1:
                for place in draw.sample(range(len(mutated)), min(len(mutated), 4)):
                    mutated[place] = draw.randrange(256)
            case 2:
                width = draw.choice([1, 2, 4, 8])
                number = draw.choice(NUMBERS) % 256**width
                mutated[at : at + width] = number.to_bytes(width, draw.choice(["little", "big"]))
            case 3:
                del mutated[at : draw.choice([end, len(mutated)])]
            case 4:
                mutated[at:at] = mutated[at:end] * draw.choice([1, 2, 50])
            case 5:
                other = draw.choice(others)
                start = draw.randrange(len(other))
                mutated[at:end] = other[start : start + end - at]
            case 6:
                mutated[at:at] = draw.choice(WORDS)
    return bytes(mutated)


def damage_text(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Replace some words, numbers or signs of a text by odd ones, or by words of another file."""
    for _ in range(draw.randint(1, 4)):
        parts = re.findall(rb'-?[\w.]+|"[^"]*"|\s+|.', content, re.DOTALL)
        if not parts:
            break
        at = draw.randrange(len(parts))
        found = re.findall(rb'-?[\w.]+|"[^"]*"', draw.choice(others)) or [b""]
        parts[at] = draw.choice([draw.choice(WORDS), draw.choice(found), b"", parts[at] * 2])
        content = b"".join(parts)
    return content


def damage_png(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Damage one chunk of a PNG, repeat, move or drop it; its checksum stays right."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    which = draw.randrange(len(chunks))
    name, data = chunks[which]
    if draw.random() < 0.7:
        if name == b"IDAT" and draw.random() < 0.5:
            data = zlib.compress(damage(draw, zlib.decompress(data), others))
        else:
            data = damage(draw, data, others)
        names = [name, b"tRNS", b"PLTE", b"iCCP", b"eXIf", b"acTL", b"fdAT"]
        chunks[which] = (draw.choice(names) if draw.random() < 0.2 else name, data)
    else:
        chunk = chunks.pop(which)
        for _ in range(draw.randrange(3)):
            chunks.insert(draw.randrange(len(chunks) + 1), chunk)
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return content[:8] + b"".join(parts)


def damage_glb(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Damage the JSON of a glTF file; the lengths stay right."""
    (length,) = struct.unpack_from("<I", content, 12)
    text = damage_text(draw, content[20 : 20 + length], others)
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + content[20 + length :]
    return content[:8] + struct.pack("<I", 12 + len(body)) + body


def damage_safetensors(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Damage the JSON at the start of a safetensors file; its length stays right."""
    (length,) = struct.unpack_from("<Q", content)
    text = damage_text(draw, content[8 : 8 + length], others)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def damage_zip(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Damage, rename or drop one file of a zip archive, mostly the list of tensors."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    structure = [name for name in files if name.endswith("data.pkl")]
    name = draw.choice([*structure * 3, *files])
    data = files.pop(name)
    if draw.random() < 0.9:
        new = name if draw.random() < 0.9 else draw.choice(["x/../../a", "/tmp/a", "data.pkl"])
        files[new] = damage(draw, data, others)
    made = io.BytesIO()
    kind = draw.choice([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(made, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def damage_tar(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Damage the header or the content of a file in a tar archive; the header's sum stays right."""
    archive = bytearray(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = draw.choice(tar.getmembers())
    start = draw.choice([member.offset, member.offset_data])
    length = 512 if start == member.offset else max(member.size, 1)
    part = damage(draw, bytes(archive[start : start + length]), others)[:length]
    archive[start : start + len(part)] = part
    head = archive[member.offset : member.offset + 512]
    head[148:156] = b" " * 8
    archive[member.offset + 148 : member.offset + 156] = b"%06o\0 " % sum(head)
    return bytes(archive)
