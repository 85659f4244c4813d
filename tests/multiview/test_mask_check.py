"""Masks that are faint, inverted, or have specks and haze; and images of many pixels."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiview.images import auto_crop_size, crop_and_pad, prepare_image
from multiview.mask_check import check_mask
from multiview.matting import remove_background
from multiview.segmentation import segment_white
from tests.conftest import run


def object_on(background: int = 0, level: int = 255, size: int = 200) -> Image.Image:
    """A red box of 100 x 150 pixels with this alpha, on this one."""
    image = Image.new("RGBA", (size, size), (200, 40, 40, background))
    image.paste((200, 40, 40, level), (50, 25, 150, 175))
    return image


def framed(image: Image.Image) -> np.ndarray:
    return np.asarray(crop_and_pad(image, auto_crop_size(image), 64))


def stray(*levels: int) -> Image.Image:
    image, size = object_on(), 200
    for level, corner in zip(levels, [(0, 0), (size - 1, size - 1), (0, size - 1)], strict=False):
        image.putpixel(corner, (200, 40, 40, level))
    return image


@pytest.mark.parametrize("image", [stray(1, 1), stray(255, 40), stray(9, 0, 255), object_on(3)])
def test_specks_and_haze_do_not_change_the_framing(image: Image.Image, caplog):
    before = image.tobytes()
    np.testing.assert_array_equal(framed(check_mask(image, "a.png")), framed(object_on()))
    assert image.tobytes() == before
    assert "is left out: its box is 100 x 150 without it, " in caplog.text
    assert "a.png: alpha away from the object" in caplog.text


def test_a_mask_without_faults_stays_as_it_is(caplog):
    soft = object_on().resize((90, 90), Image.Resampling.BICUBIC)
    two = object_on()
    two.paste((0, 0, 200, 255), (0, 0, 9, 9))
    for image in (soft, two, object_on().convert("RGB"), object_on(0, 0)):
        assert check_mask(image, "a.png") is image
    assert not caplog.records


def test_haze_is_framed_as_the_published_code_does_with_a_given_crop_size(tmp_path, caplog):
    assert check_mask(object_on(3), "a", keep_haze=True).getchannel("A").getbbox()[0] == 0
    assert "(23464 pixels) counts as the object" in caplog.text
    clean = prepare_image(save(object_on(), tmp_path / "clean.png"), 200, 64)
    specks = prepare_image(save(stray(1, 255), tmp_path / "specks.png"), 200, 64)
    np.testing.assert_array_equal(specks, clean)


def save(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


@pytest.mark.integration
@pytest.mark.parametrize("level", [5])
def test_alpha_that_shows_nothing_is_refused(tmp_path: Path, level: int):
    path = save(object_on(0, level), tmp_path / "a.png")
    with pytest.raises(ValueError, match=rf"a\.png: its alpha is at most {level} of 255, which"):
        prepare_image(path, 200, 64)
    out = tmp_path / "c.png"
    for arguments in (
        ["generate.py", "--elevation=20", "--crop_size=auto", "--input", path, "--output", out],
        ["image_to_3d.py", path, "-o", tmp_path / "b", "--backend=white"],
        ["foreground_segment.py", "--backend=white", "--input", path, "--output", out],
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert f"its alpha is at most {level} of 255" in done.stderr.splitlines()[-1]


def test_doubtful_masks_are_warned_of_with_numbers(caplog):
    check_mask(object_on(0, 100), "glass.png")
    assert "glass.png: its alpha is at most 100 of 255" in caplog.text
    check_mask(object_on(255, 0), "inverted.png")
    assert (
        "inverted.png: the mask covers all borders (100 % of them) and leaves 38 %" in caplog.text
    )
    full = object_on(255)
    full.putpixel((5, 5), (0, 0, 0, 0))
    check_mask(full, "full.png")
    assert "full.png: the mask covers the whole image (100.0 %)" in caplog.text


def test_the_mask_is_found_in_a_copy_and_applied_at_full_size():
    image = Image.new("RGB", (4000, 3000), "white")
    image.paste((200, 40, 40), (1000, 500, 3000, 2500))
    begin = time.perf_counter()
    found = remove_background(image, segment_white, "white")
    assert time.perf_counter() - begin < 30  # 31 s without the copy and 100 s on a busy machine
    assert found.size == image.size
    left, top, right, bottom = found.getchannel("A").point(lambda v: 255 * (v > 127)).getbbox()
    assert np.abs(np.subtract((left, top, right, bottom), (1000, 500, 3000, 2500))).max() <= 2
    assert found.convert("RGB").tobytes() == image.tobytes()


@pytest.mark.slow
def test_200_million_pixels_take_bounded_time_and_memory(tmp_path: Path):
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc to measure the memory of a process")
    image = Image.new("RGB", (16320, 12240), "white")
    image.paste((200, 40, 40), (4000, 4000, 12000, 9000))
    image.save(tmp_path / "a.jpg")
    code = (
        "import sys; from pathlib import Path; from multiview.image_file import read_image;"
        "from multiview.matting import remove_background, save_rgba;"
        "from multiview.mask_check import check_mask; from multiview.segmentation import *;"
        "found = remove_background(read_image(Path(sys.argv[1])), segment_white, 'white');"
        "found = check_mask(found, ''); assert found.size == (16320, 12240);"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.jpg")],
        capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    assert int(done.stdout) < 2.5 * 2**20  # KiB; Pillow holds the pixels twice, 763 MiB each
