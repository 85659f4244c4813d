"""Files whose metadata, colours or levels are not the usual ones."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from multiview.image_file import UnfitImageError, normalise_image, read_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(mode: str = "RGB") -> Image.Image:
    """A red left half, a blue right one: 60 x 40 pixels."""
    image = Image.new("RGB", (60, 40), (200, 40, 40))
    image.paste((40, 40, 200), (30, 0, 60, 40))
    return image.convert(mode)


def profile(swap: bool = False, gamma: float | None = None) -> bytes:
    """sRGB's profile with red and green swapped, or with this gamma."""
    content = bytearray(SRGB)
    tags = {content[at : at + 4].decode(): at for at in range(132, 132 + 12 * SRGB[131], 12)}
    place = lambda tag: struct.unpack_from(">I", content, tags[tag] + 4)[0]  # noqa: E731
    if swap:
        red, green = place("rXYZ"), place("gXYZ")
        content[red : red + 20], content[green : green + 20] = (
            content[green : green + 20], content[red : red + 20],
        )  # fmt: skip
    if gamma is not None:
        at = place("rTRC")
        content[at : at + 14] = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    return bytes(content)


def outcome(path: Path) -> str:
    """The message of the error of reading an image; empty if there is none."""
    try:
        read_image(path)
    except ValueError as error:
        return str(error)
    return ""


def add_chunk(png: bytes, name: bytes, data: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(name + data) if crc is None else crc
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)
    return png[:33] + chunk + png[33:]  # after IHDR


def raw_exif(kind: int, count: int, value: bytes, tag: int = 0x010F) -> bytes:
    """An EXIF segment with orientation 6 and one odd tag."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", tag, kind, count, 60)
    tiff = b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    return b"Exif\0\0" + tiff.ljust(60, b"\0") + value


@pytest.mark.parametrize(
    "exif",
    [
        raw_exif(5, 1, struct.pack("<II", 2**32 - 1, 0)),  # the maker is a rational number
        raw_exif(10, 1, struct.pack("<ii", -1, 0)),
        raw_exif(10, 1, struct.pack("<ii", -(2**31), -1), 0x011A),
        raw_exif(2, 4, b"abc\0", 0x011A),  # the resolution is text
        raw_exif(7, 2**31, b"", 0x8769),
        raw_exif(4, 1, struct.pack("<I", 7), 0x8825),  # the GPS directory is anywhere
        raw_exif(99, 3, b"abc"),
    ],
)
def test_a_photo_with_unclean_exif_is_read_and_upright(tmp_path: Path, exif: bytes):
    for name in ("a.jpg", "a.png", "a.webp"):
        picture().save(tmp_path / name, exif=exif, **({"lossless": True} if "webp" in name else {}))
        image = read_image(tmp_path / name)
        assert image.size == (40, 60), name
        np.testing.assert_allclose(image.getpixel((20, 5)), (200, 40, 40), atol=6)


@pytest.mark.parametrize(
    ("name", "data", "crc"),
    [
        (b"iCCP", b"big\0\0" + zlib.compress(bytes(3 * 2**20)), None),
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 * 2**20)), None),
        (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * 3 * 2**20), None),
        (b"iCCP", b"odd\0\7" + b"abc", None),
        (b"tEXt", b"Comment\0abc", 0),  # damaged on the way
    ],
)
def test_a_png_with_large_or_damaged_metadata_is_read(tmp_path: Path, name, data, crc):
    path = tmp_path / "a.png"
    picture().save(path)
    path.write_bytes(add_chunk(path.read_bytes(), name, data, crc))
    assert read_image(path).tobytes() == picture().tobytes()
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"a\.png: the image is damaged or cut off"):
        read_image(path)


def test_mutated_metadata_never_makes_an_image_unreadable(tmp_path: Path):
    draw, exif = random.Random(0), picture().getexif()
    exif[0x0112], exif[0x010E], exif[282], exif[305] = 6, "x" * 40, 72.0, "y" * 40
    for name, key, options in [
        ("a.jpg", b"Exif\0\0", {}), ("a.png", b"eXIf", {}), ("a.png", b"iCCP", {}),
        ("a.jpg", b"ICC_PROFILE", {}), ("a.tif", None, {}),
    ]:  # fmt: skip
        path = tmp_path / name
        picture().save(path, exif=exif, icc_profile=SRGB, **options)
        whole = path.read_bytes()
        if key is None:
            (at,), entries = struct.unpack_from("<I", whole, 4), []
            for entry in range(at + 2, at + 2 + 12 * whole[at], 12):
                if struct.unpack_from("<H", whole, entry)[0] in (270, 274, 282, 305, 34675):
                    entries += range(entry + 2, entry + 12)
        else:
            begin = whole.index(key) + len(key)
            entries = list(range(begin, begin + 60))
        for _ in range(30):
            mutated = bytearray(whole)
            for place in draw.sample(entries, draw.randint(1, 10)):
                mutated[place] = draw.choice([0, 255, draw.randrange(256)])
            path.write_bytes(mutated)
            assert sorted(read_image(path).size) == [40, 60]


def test_whatever_an_image_library_raises_names_the_file(tmp_path: Path):
    path, draw, messages = tmp_path / "some.png", random.Random(1), []
    for suffix in ("png", "jpg", "gif", "bmp", "webp", "tif", "ppm"):
        picture().save(tmp_path / f"a.{suffix}")
        whole = (tmp_path / f"a.{suffix}").read_bytes()
        for _ in range(40):
            mutated = bytearray(whole)
            for _ in range(draw.randint(1, 20)):
                mutated[draw.randrange(min(len(mutated), 300))] = draw.randrange(256)
            path.write_bytes(mutated)
            messages.append(outcome(path))
    assert all(message.startswith(f"{path}: ") for message in messages if message)
    assert sum(map(bool, messages)) > 40


@pytest.mark.parametrize(("low", "bits"), [((255, 0, 255), 8), ((65535, 513, 4), 16)])
def test_the_transparent_colour_of_an_rgb_png_is_alpha(tmp_path: Path, low, bits: int):
    path, size = tmp_path / "a.png", 20
    kind = np.uint8 if bits == 8 else ">u2"
    pixels = np.full((size, size, 3), low).astype(kind)
    pixels[5:15, 5:15] = np.array((200, 40, 40)) * (1 if bits == 8 else 257)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", size, size, bits, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in [
        (b"IHDR", header), (b"tRNS", struct.pack(">HHH", *low)), (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]:  # fmt: skip
        crc = struct.pack(">I", zlib.crc32(name + data))
        content += struct.pack(">I", len(data)) + name + data + crc
    path.write_bytes(content)
    image = read_image(path)
    assert image.getpixel((10, 10)) == (200, 40, 40, 255)
    assert image.getchannel("A").getbbox() == (5, 5, 15, 15)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_colours_are_converted_to_srgb(tmp_path: Path, name: str):
    path, options = tmp_path / name, {"lossless": True} if "webp" in name else {}
    picture().save(path, icc_profile=profile(swap=True), **options)
    image = read_image(path)
    np.testing.assert_allclose(image.getpixel((5, 5)), (40, 200, 40), atol=6)
    assert "icc_profile" not in image.info
    picture().save(path, icc_profile=SRGB, **options)
    plain = read_image(path)
    picture().save(path, **options)
    assert plain.tobytes() == read_image(path).tobytes()  # exact where nothing is to be done


def test_a_profile_changes_no_alpha_and_not_the_image_of_the_caller(tmp_path: Path, caplog):
    image = picture("RGBA")
    image.putalpha(Image.new("L", image.size, 77))
    image.info["icc_profile"] = profile(gamma=1.0)
    before = image.tobytes()
    converted = normalise_image(image)
    assert image.tobytes() == before
    assert converted.getchannel("A").getextrema() == (77, 77)
    assert converted.getpixel((5, 5))[0] > 220
    for broken in (b"abc", SRGB[:200]):
        image.info["icc_profile"] = broken
        assert normalise_image(image).tobytes() == before
    assert "the image: its colour profile cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("levels", "suffix"),
    [
        (np.float32([0, 100, 255]), "tif"), (np.float32([0, 100, 255]) / 255, "tif"),
        (np.float32([0, 100, 255]) * 257, "tif"), (np.int32([0, 100, 255]), "tif"),
        (np.uint16([0, 100, 255]), "png"), (np.uint16([0, 100, 255]) * 4, "png"),
        (np.uint16([0, 100, 255]) * 16, "png"), (np.uint16([0, 100, 255]) * 257, "png"),
        (np.int32([0, 100, 255]) * 257, "tif"), (np.float32([0, 100, 255]) * 4, "tif"),
        (np.float32([0, 100, 255]) * 16, "tif"),
    ],
)  # fmt: skip
def test_grey_is_scaled_by_the_range_of_its_levels(tmp_path: Path, levels, suffix: str):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(levels[None]).save(path)
    found = np.asarray(read_image(path))[0, :, 0].astype(int)
    assert np.abs(found - [0, 100, 255]).max() <= 1


def test_levels_of_unknown_range_are_refused_by_name(tmp_path: Path):
    for levels in (
        np.float32([0, 3.2]), np.float32([-1, 1]), np.float32([0, np.inf]), np.int32([0, 10**6]),
        np.int32([-4000, 9]),
    ):  # fmt: skip
        Image.fromarray(levels[None]).save(tmp_path / "a.tif")
        with pytest.raises(UnfitImageError, match=r"a\.tif: .* levels from .* expected 0 to"):
            read_image(tmp_path / "a.tif")
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 65535\n" + bytes([0, 100, 0, 200]))
    assert np.asarray(read_image(tmp_path / "dark.pgm")).max() <= 1  # its range is in the file


def test_what_cannot_be_read_is_called_what_it_is(tmp_path: Path):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    contents = {
        "HEIC image: pip install": heic,
        "the file is empty": b"",
        "is a git-lfs pointer of 34 bytes": b"version https://git-lfs.github.com",
        "is a web page": b"<!DOCTYPE html><html>",
        "is an SVG drawing": b'<?xml version="1.0"?><svg>',
        "TIFF": b"II*\0" + bytes(60),
        "damaged at its beginning": b"\x89PNG\r\n\x1a\n" + bytes(40),
    }
    for message, content in contents.items():
        path = tmp_path / "a.jpg"
        path.write_bytes(content)
        with pytest.raises(UnfitImageError, match=message):
            read_image(path)
    (tmp_path / "dead.png").symlink_to("gone.png")
    with pytest.raises(FileNotFoundError, match=r"dead\.png: .*link to a file that is gone"):
        read_image(tmp_path / "dead.png")


def test_a_webp_image_with_a_damaged_chunk_of_metadata_is_read(tmp_path: Path):
    path = tmp_path / "a.webp"
    picture().save(path, lossless=True, exif=raw_exif(5, 1, bytes(8)))
    whole = bytearray(path.read_bytes())
    place = whole.index(b"EXIF") + 4
    for length in (0, 3, 2**31, 2**32 - 2):
        whole[place : place + 4] = struct.pack("<I", length)
        path.write_bytes(whole)
        image = read_image(path)
        assert sorted(image.size) == [40, 60]
    assert image.tobytes() == picture().tobytes()
    path.write_bytes(whole[:60])
    with pytest.raises(ValueError, match=r"a\.webp: the image is damaged or cut off"):
        read_image(path)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_an_avif_image_with_damaged_exif_is_read(tmp_path: Path):
    path, draw = tmp_path / "a.avif", random.Random(0)
    picture().save(path, quality=100, exif=raw_exif(2, 4, b"abc\0"), xmp=b"<x/>")
    whole = path.read_bytes()
    begin = whole.index(b"II*\0")
    for _ in range(30):
        mutated = bytearray(whole)
        for place in draw.sample(range(begin - 4, begin + 24), draw.randint(1, 10)):
            mutated[place] = draw.choice([0, 255, draw.randrange(256)])
        path.write_bytes(mutated)
        assert sorted(read_image(path).size) == [40, 60]
