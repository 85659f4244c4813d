"""Image files of any common kind as 8-bit sRGB: the reader of all commands."""

from __future__ import annotations

import logging
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from common.files import stand_in
from multiview.image_metadata import without_metadata

log = logging.getLogger(__name__)

MAX_INPUT_PIXELS = 200_000_000
"""Larger images are refused before they are decoded: at 4 bytes a pixel they would take 0.8 GB."""
Image.MAX_IMAGE_PIXELS = MAX_INPUT_PIXELS  # Pillow's own limit is below that of phones' cameras
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "HEIF")
"""Pixel formats only: for some others Pillow starts external programs."""
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        "png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "tif", "tiff", "bmp", "dib", "gif",
        "ppm", "pgm", "pbm", "pnm", "avif", "avifs", "heic", "heif", "hif",
    )
)  # fmt: skip
"""Lower-case ends of the names of image files."""
RANGES = (255, 1023, 4095, 65535)
"""Highest levels of 8, 10, 12 and 16 bits."""
SAME_LEVEL = 2
"""Colour profiles that change no level of 255 by more are sRGB."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class UnfitImageError(ValueError):
    """An image that is whole, but too large, or of levels or a format that cannot be used.

    `reason` is the message without the file's path.
    """

    def __init__(self, reason: str, path: Path | None = None) -> None:
        super().__init__(reason if path is None else f"{path}: {reason}")
        self.reason = reason


def read_image(
    path: Path, content: bytes | None = None, max_pixels: int = MAX_INPUT_PIXELS
) -> Image.Image:
    """Read an image file of any common kind, or its bytes, as 8-bit sRGB, or RGBA if transparent.

    Levels of other ranges are scaled to 8 bits; palette, grey, CMYK and other modes and colour
    profiles are converted; a camera's orientation tag is applied. Other metadata is not needed, so
    it may be damaged. Transparency of any kind becomes an alpha channel.

    Raises:
        FileNotFoundError: there is no such file.
        UnfitImageError: the image has more than `max_pixels`, or unknown levels, or is no image.
        ValueError: the image is cut off or damaged.
    """
    if not path.exists():
        dead = " (a link to a file that is gone)" if path.is_symlink() else ""
        raise FileNotFoundError(f"{path}: no such file{dead}")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise ValueError(f"{path}: is {kind}, expected an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damaged metadata and large sizes
            return _decode(path, content, max_pixels)
    except UnfitImageError as error:
        raise UnfitImageError(error.reason, path) from error
    except UnidentifiedImageError as error:
        raise UnfitImageError(_what_it_is(path, content), path) from error
    except Image.DecompressionBombError as error:
        raise UnfitImageError(f"{error}; make it smaller first", path) from error
    except Exception as error:  # Pillow has no common base for the errors of broken files
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: the image is damaged or cut off ({reason})") from error


def normalise_image(image: Image.Image) -> Image.Image:
    """Convert an image in memory to 8-bit sRGB or RGBA, as `read_image` does for a file.

    Raises:
        UnfitImageError: the image is larger than `MAX_INPUT_PIXELS`, or of unknown levels.
    """
    _check_size(image.size, MAX_INPUT_PIXELS)
    return _normalise(image.copy(), _orientation(image), "the image")


def _decode(path: Path, content: bytes | None, max_pixels: int) -> Image.Image:
    try:
        return _load(path if content is None else BytesIO(content), path, max_pixels)
    except (UnfitImageError, Image.DecompressionBombError):
        raise
    except Exception as error:
        bare = without_metadata(path.read_bytes() if content is None else content)
        if bare is None:
            raise
        image = _load(BytesIO(bare), path, max_pixels)
        log.info("%s: read without its metadata, which is damaged or too large (%s)", path, error)
        return image


def _load(source: Path | BytesIO, path: Path, max_pixels: int) -> Image.Image:
    Image.init()  # older Pillows know no AVIF, and HEIF is of another package
    _register_heif()
    with Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        _check_size(image.size, max_pixels)
        deep = ";16" in str(image.tile)
        image.load()
        if deep and image.mode in ("RGB", "RGBA"):
            _check_deep_colours(image)
        return _normalise(image, _orientation(image), str(path))


def _register_heif() -> None:
    """Let Pillow read HEIC files if the optional package for it is installed."""
    if "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:
            return
        pillow_heif.register_heif_opener()


def _what_it_is(path: Path, content: bytes | None) -> str:
    """Say what a file is that no reader takes."""
    if content is None:
        with path.open("rb") as file:
            content = file.read(512)
    if b"<svg" in content[:512]:
        return "is an SVG drawing; convert it to PNG"
    if found := stand_in(content[:512], "an image"):
        return found
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "is a HEIC image: pip install pillow-heif, or convert it to JPEG or PNG"
    if content.startswith((b"\x89PNG\r\n", b"\xff\xd8\xff")):
        return "the image is damaged at its beginning"
    if content[:4] in (b"II*\0", b"MM\0*"):
        return "is a TIFF of a kind that cannot be read, or damaged; convert it to 8-bit PNG"
    return "not an image that can be read (PNG, JPEG, WebP, ...)"


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnfitImageError(
            f"the image of {width} x {height} pixels has more than "
            f"{max_pixels // 10**6} million; make it smaller first"
        )


def _orientation(image: Image.Image) -> int:
    """Orientation tag of a camera, 1 to 8; 1 where it cannot be read."""
    try:
        orientation = image.getexif().get(0x0112, 1)
        return orientation if orientation in _UPRIGHT else 1
    except Exception:  # noqa: BLE001 - damaged EXIF has many errors
        return 1


def _normalise(image: Image.Image, orientation: int, name: str) -> Image.Image:
    """Convert any mode to upright 8-bit sRGB, or RGBA if the image has transparency.

    May change `image`; `name` is for messages.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and max(transparent) > 255:  # of 16-bit colours
        image.info["transparency"] = tuple(level >> 8 for level in transparent)
    has_alpha = "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBA", "RGBa")
    mode = "RGBA" if has_alpha else "RGB"
    try:
        if image.mode == "LAB":
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        image = _to_srgb(image, profile, mode) if profile else image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        log.warning("%s: its colour profile cannot be used, colours may be off (%s)", name, error)
    image = image if image.mode == mode else image.convert(mode)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_srgb(image: Image.Image, profile: bytes, mode: str) -> Image.Image:
    """Convert the colours of an image to sRGB, in place if it is of the mode "RGB" or "RGBA".

    Colours that a profile changes by no more than `SAME_LEVEL` stay, and so does what is of
    another colour space than its profile.
    """
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    grey, own = space == "GRAY", image.mode in ("L", "LA", "La", "1")
    if grey and own:
        colours = image.convert("L")
    elif space == "RGB":
        colours = image if image.mode == mode else image.convert(mode)
    elif space.upper() == image.mode:
        colours = image
    else:
        return image
    output = "RGB" if colours.mode != mode else mode
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, srgb, colours.mode, output)
    if grey or space == "RGB":
        sample = _lattice(grey)
        before = sample.convert(colours.mode)
        after = ImageCms.applyTransform(before, transform)
        change = np.asarray(after)[..., :3].astype(np.int32) - np.asarray(sample)
        if np.abs(change).max() <= SAME_LEVEL:
            return image
    if colours.mode == output:
        ImageCms.applyTransform(colours, transform, inPlace=True)
        del colours.info["icc_profile"]  # that of sRGB
        return colours
    converted = ImageCms.applyTransform(colours, transform)
    assert converted is not None
    del converted.info["icc_profile"]
    if mode == "RGBA":
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted


def _lattice(grey: bool) -> Image.Image:
    """An RGB image of all greys, or of colours in steps of 17 levels."""
    levels = np.arange(256 if grey else 4096)
    parts = [levels] * 3 if grey else [levels % 16 * 17, levels // 16 % 16 * 17, levels // 256 * 17]
    return Image.fromarray(np.stack(parts, axis=-1)[None].astype(np.uint8))


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey of more than 8 bits, or of floating point, by the range of its levels, to L or LA.

    Raises:
        UnfitImageError: levels of no common range.
    """
    levels = np.asarray(image).astype(np.float32)
    levels[np.isnan(levels)] = 0.0
    low, high = float(levels.min()), float(levels.max())
    # 8, 10 or 12 bits in 16 or 32 would be nearly black in the full range
    known = high <= 0 or image.format == "PPM"  # Pillow scales those by their own range
    full = next((most for most in RANGES[3 * known :] if high <= most), 0)
    expected = "0 to 65535"
    if image.mode == "F":
        full = 1 if high <= 1.1 else full if high > 8 else 0
        expected = "0 to 1, or from 0 to between 8 and 65535"
    if not full or low < -0.1 * full:
        kind = "floating-point" if image.mode == "F" else "integer"
        found = f"{kind} levels from {low:g} to {high:g}"
        raise UnfitImageError(f"{found}, expected {expected}; convert the image to 8 bits")
    grey = Image.fromarray((np.clip(levels / full, 0, 1) * 255).round().astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey


def _check_deep_colours(image: Image.Image) -> None:
    """Raise UnfitImageError for 12 bits in 16, of which Pillow keeps the upper 8."""
    high = max(most for _, most in image.getextrema()[:3])  # type: ignore[misc]
    if 0 < high < 16:
        found = f"colours of 16 bits that stay below {256 * (high + 1)} of 65536"
        raise UnfitImageError(
            f"{found}: are they of 12 bits? scale them to 16 bits, or convert to 8"
        )
