from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blender.png import GREY, RGBA, add_text, encode_grey16, ends_as_png, read_text


@pytest.fixture
def raw() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def check(path: Path) -> str | None:
    return read_text(path, "key", 32, 8, RGBA)


def test_a_text_is_added_and_read_and_the_image_stays_as_it_is(tmp_path: Path, raw: bytes):
    path = tmp_path / "a.png"
    path.write_bytes(raw)
    assert check(path) is None
    path.write_bytes(add_text(raw, "key", "value 1.5", path))
    assert check(path) == "value 1.5"
    assert ends_as_png(path)
    with Image.open(path) as with_text, Image.open(io.BytesIO(raw)) as without:
        np.testing.assert_array_equal(np.asarray(with_text), np.asarray(without))
        assert with_text.text == {"key": "value 1.5"}


def test_every_cut_and_changed_byte_and_another_size_or_kind_is_noticed(tmp_path: Path, raw: bytes):
    path = tmp_path / "a.png"
    for length in range(0, len(raw), 37):
        path.write_bytes(raw[:length])
        assert not ends_as_png(path)
        with pytest.raises(ValueError, match=r"a\.png"):
            check(path)
    for place in range(0, len(raw), 41):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(ValueError, match=r"a\.png"):
            check(path)
    path.write_bytes(raw)
    for size, bits, kind in ((64, 8, RGBA), (32, 16, RGBA), (32, 8, GREY)):
        with pytest.raises(ValueError, match="expected type"):
            read_text(path, "key", size, bits, kind)


def test_16_bit_grey_is_read_by_others_as_it_was_written(tmp_path: Path):
    levels = np.random.default_rng(0).integers(0, 65536, (24, 24), dtype=np.uint16)
    path = tmp_path / "d.png"
    path.write_bytes(encode_grey16(levels))
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image).astype(np.uint16), levels)
    assert read_text(path, "key", 24, 16, GREY) is None
