from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiview.image_file import read_image
from multiview.images import (
    NoAlphaError,
    auto_crop_size,
    crop_and_pad,
    prepare_image,
    save_animation,
    strip_to_views,
    to_uint8,
    views_to_strip,
)


def disc(size: int = 300, radius: int = 80) -> Image.Image:
    y, x = np.mgrid[:size, :size]
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[(x - 90) ** 2 + (y - 150) ** 2 < radius**2] = (200, 40, 90, 255)
    return Image.fromarray(pixels)


def save(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize(("size", "pixels"), [(256, 200), (64, 50)])
def test_the_object_is_scaled_to_the_crop_size_and_centred(size: int, pixels: int):
    framed = np.asarray(crop_and_pad(disc(), 200, size))
    assert framed.shape == (size, size, 4)
    rows, columns = np.nonzero(framed[..., 3] > 127)
    assert rows.max() - rows.min() + 1 == pytest.approx(pixels, abs=1)
    for places in (rows, columns):
        assert (places.max() + places.min()) / 2 == pytest.approx((size - 1) / 2, abs=1.5)


def test_the_box_leaves_out_its_last_row_and_column():
    pixels = np.zeros((50, 50, 4), np.uint8)
    pixels[10:21, 10:21] = (0, 0, 255, 255)
    pixels[20, 10:21] = pixels[10:21, 20] = (255, 0, 0, 255)
    framed = np.asarray(crop_and_pad(Image.fromarray(pixels), 200, 256))
    assert framed[..., 0].max() == 0


def test_the_crop_size_is_chosen_by_the_aspect_of_the_box():
    long, compact = Image.new("RGBA", (90, 90)), Image.new("RGBA", (90, 90))
    long.paste((9, 9, 9, 255), (10, 40, 70, 55))
    compact.paste((9, 9, 9, 255), (10, 10, 70, 70))
    assert auto_crop_size(long) == 204
    assert auto_crop_size(long.rotate(90)) == 204
    assert auto_crop_size(compact) == auto_crop_size(compact.resize((300, 300))) == 192


def test_without_a_crop_size_the_whole_image_is_padded_to_a_square():
    image = Image.new("RGBA", (100, 50), (10, 20, 30, 255))
    framed = np.asarray(crop_and_pad(image, -1, 256))
    assert framed[0, 128, 3] == 0
    assert tuple(framed[128, 128]) == (10, 20, 30, 255)


@pytest.mark.parametrize("size", [(60, 30), (30, 60)])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"), ("L", "png"), ("P", "png"), ("RGB", "png"), ("LA", "png"), ("RGBA", "png"),
        ("I;16", "png"), ("RGB", "jpg"), ("CMYK", "jpg"), ("F", "tif"), ("I", "tif"),
    ],
)  # fmt: skip
def test_whatever_the_kind_of_image_the_padding_is_white(tmp_path: Path, mode, suffix, size):
    path = tmp_path / f"image.{suffix}"
    dark = Image.new("RGB", size)
    (dark.convert("L").convert(mode) if mode[0] in "IF" else dark.convert(mode)).save(path)
    pixels = prepare_image(path, -1, 60)
    pixels = pixels if size == (60, 30) else pixels.transpose(1, 0, 2)
    np.testing.assert_array_equal(pixels[[0, 10, 50, 59]], 1.0)
    assert (pixels[20:40] < -0.5).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "I;16"])
def test_what_is_transparent_is_white_for_the_model(tmp_path: Path, mode: str):
    path, image = tmp_path / "image.png", Image.new("RGBA", (60, 30), (0, 0, 0, 0))
    image.paste((200, 200, 200, 255), (20, 10, 40, 20))
    if mode in ("RGBA", "LA"):
        image.convert(mode).save(path)
    elif mode == "I;16":
        levels = np.asarray(image.convert("L"), np.uint16)
        Image.fromarray(levels * 257).save(path, transparency=0)
    else:
        image = image.convert("RGB").convert(mode)
        image.save(path, transparency=(0, 0, 0) if mode == "RGB" else image.getpixel((0, 0)))
    pixels = prepare_image(path, -1, 60)
    np.testing.assert_array_equal(pixels[[0, 18, 30, 45], [0, 10, 55, 30]], 1.0)
    assert (pixels[27:33, 23:37] < 0.7).all()


def test_uint8_is_clamped_and_truncated():
    values = np.array([-3.0, -1.0, 0.0, 0.9999, 1.0, 2.0], np.float32)
    assert to_uint8(values).tolist() == [0, 0, 127, 254, 255, 255]


def test_a_strip_and_its_views_are_inverse_and_the_animation_has_every_view(tmp_path: Path):
    views = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 3), dtype=np.uint8)
    strip = views_to_strip(views)
    assert strip.shape == (8, 128, 3)
    np.testing.assert_array_equal(strip_to_views(strip), views)
    with pytest.raises(ValueError, match="130 x 8"):
        strip_to_views(np.zeros((8, 130, 3)))
    save_animation(tmp_path / "a.gif", views)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 16


KINDS = {
    "rgba.png": disc(),
    "palette.png": disc().quantize(8),
    "grey.png": disc().convert("L"),
    "grey_alpha.png": disc().convert("LA"),
    "bits.png": disc().convert("1"),
    "cmyk.jpg": disc().convert("RGB").convert("CMYK"),
    "float.tif": disc().convert("F").point(lambda v: v / 255),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_image_becomes_rgb_or_rgba(tmp_path: Path, name: str):
    read = read_image(save(KINDS[name], tmp_path / name))
    assert read.size == (300, 300)
    assert np.asarray(read)[140:160, 80:100, :3].max() > 60
    assert read.mode == ("RGBA" if name in ("rgba.png", "palette.png", "grey_alpha.png") else "RGB")
    if read.mode == "RGBA":
        assert np.asarray(read.getchannel("A"))[[150, 0], [90, 299]].tolist() == [255, 0]


def test_16_bit_grey_is_scaled_not_cut(tmp_path: Path):
    levels = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    path = save(Image.fromarray(levels), tmp_path / "deep.png")
    assert np.asarray(read_image(path))[..., 0].tolist() == [[0, 100], [200, 255]]
    Image.fromarray(levels).save(path, transparency=257 * 100)
    assert np.asarray(read_image(path))[..., 3].tolist() == [[255, 0], [255, 255]]


def test_a_sideways_photo_is_turned_upright(tmp_path: Path):
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned
    image.save(tmp_path / "photo.jpg", exif=exif)
    assert read_image(tmp_path / "photo.jpg").size == (20, 40)


def test_files_that_are_no_whole_images_are_refused_by_name(tmp_path: Path):
    path = tmp_path / "a.png"
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        read_image(path)
    with pytest.raises(ValueError, match="folder"):
        read_image(tmp_path)
    whole = save(disc(), path).read_bytes()
    cut, promising = "the image is damaged or cut off", bytearray(whole)
    promising[16:24] = (50000).to_bytes(4, "big") * 2  # 50000 x 50000 pixels
    promising[29:33] = zlib.crc32(bytes(promising[12:29])).to_bytes(4, "big")
    bad = [
        (b"no image", "not an image"),
        (whole[:500], cut),
        (whole[:-50], cut),
        (promising, "pixels"),
    ]
    for content, message in bad:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.png: .*{message}"):
            read_image(path)


def test_objects_that_cannot_be_framed_are_refused():
    for frame in (auto_crop_size, lambda image: crop_and_pad(image, 200, 256)):
        with pytest.raises(NoAlphaError):
            frame(Image.new("RGB", (9, 9)))
        with pytest.raises(ValueError, match="fully transparent"):
            frame(Image.new("RGBA", (9, 9)))
    dot, line = Image.new("RGBA", (9, 9)), Image.new("RGBA", (9, 900))
    dot.putpixel((4, 4), (255, 0, 0, 255))
    line.paste("red", (4, 0, 6, 900))
    for crop_size in (200, -1):
        with pytest.raises(ValueError, match="1 x 1 pixels"):
            crop_and_pad(dot, crop_size, 256)
    with pytest.raises(ValueError, match="fully transparent"):
        crop_and_pad(Image.new("RGBA", (9, 9)), -1, 256)
    with pytest.raises(ValueError, match="too thin"):
        crop_and_pad(line, 200, 256)
    with pytest.raises(ValueError, match="60000 x 20 pixels is too large to be padded"):
        crop_and_pad(Image.new("RGBA", (60000, 20), "red"), -1, 256)


def test_an_image_whose_square_would_be_too_large_is_reduced_first():
    image = Image.new("RGB", (15000, 3000), "white")
    image.paste((200, 30, 30), (0, 0, 7500, 3000))
    framed = np.asarray(crop_and_pad(image, -1, 64)).astype(int)
    assert framed[31, [10, 50]].tolist() == [[200, 30, 30], [255, 255, 255]]
    assert framed[[5, 60]].min() == 255


def test_images_without_alpha_or_opaque_ones_are_taken_with_a_warning(tmp_path: Path, caplog):
    pixels = prepare_image(save(Image.new("RGB", (20, 20), "red"), tmp_path / "a.png"), -1, 64)
    np.testing.assert_allclose(pixels[32, 32], [1, -1, -1])
    assert "no alpha channel" in caplog.text
    prepare_image(save(Image.new("RGBA", (20, 20), "red"), tmp_path / "opaque.png"), 200, 256)
    assert "opaque everywhere" in caplog.text


@pytest.mark.integration
def test_a_12000_pixel_image_takes_bounded_memory(tmp_path: Path):
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc to measure the memory of a process")
    side = 12000
    image = Image.new("RGBA", (side, side))
    image.paste((200, 30, 30, 255), (1000, 1000, side - 1000, side - 1000))
    path = tmp_path / "huge.png"
    image.save(path, compress_level=1)
    code = (
        "import sys; from pathlib import Path; from multiview.images import *;"
        "pixels = prepare_image(Path(sys.argv[1]), 200, 256); assert pixels.shape == (256, 256, 3);"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 2 * 2**20  # KiB; the pixels are 549 MiB, Pillow holds them thrice
    assert run.stderr == ""
