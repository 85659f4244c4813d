"""The command that cuts an object out, as a user types it and inside one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foreground_segment
from multiview import segmentation
from tests.conftest import ROOT, run


def cut_out(source: Path, output: Path) -> Image.Image:
    foreground_segment.main(["--input", str(source), "--output", str(output), "--backend", "white"])
    return Image.open(output)


def square_on_white(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    pixels[10:30, 20:40] = np.arange(80, 120)[:20, None, None] + np.array([80, 0, 20])
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "RGB"), ("a.jpg", "RGB"), ("a.bmp", "L"), ("a.webp", "RGB")]
)
def test_any_image_becomes_rgba_with_the_very_colours_of_the_input(tmp_path, name, mode):
    source, output = tmp_path / name, tmp_path / "new" / "out.png"
    square_on_white(mode).save(source, quality=95)
    before, after = Image.open(source).convert("RGB"), cut_out(source, output)
    assert after.mode == "RGBA"
    assert after.size == before.size
    assert np.array_equal(np.asarray(after)[:, :, :3], np.asarray(before))
    alpha = np.asarray(after)[:, :, 3]
    assert alpha[12:28, 22:38].min() == 255
    assert alpha[:8].max() == alpha[32:].max() == 0
    assert [path.name for path in output.parent.iterdir()] == ["out.png"]


def test_alpha_that_the_input_has_is_kept_where_it_is_the_smaller(tmp_path: Path):
    image = square_on_white("RGBA")
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :25] = 0
    alpha[:, 30:32] = 100
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "in.png")
    out = np.asarray(cut_out(tmp_path / "in.png", tmp_path / "out.png"))
    assert np.array_equal(out[:, :, :3], np.asarray(image)[:, :, :3])
    assert out[:, :25, 3].max() == 0
    assert set(out[15:25, 30:32, 3].ravel()) == {100}
    assert out[15:25, 33:38, 3].min() == 255


def test_a_colour_profile_stays_with_the_colours(tmp_path: Path):
    profile = b"\0" * 16 + b"RGB " + b"\0" * 108
    square_on_white().save(tmp_path / "in.png", icc_profile=profile)
    output = cut_out(tmp_path / "in.png", tmp_path / "out.png")
    assert output.info["icc_profile"] == profile


def test_the_default_finds_the_bundled_toy_on_a_photo_like_background(tmp_path: Path):
    try:
        segmentation.open_segmenter("u2net")
    except segmentation.SegmentationUnavailableError as error:
        pytest.skip(str(error))
    toy = np.asarray(Image.open(ROOT / "testset" / "locomotive.png")).astype(np.float64)
    true = toy[:, :, 3:] / 255
    ramp = np.linspace(60, 150, len(toy))[:, None, None] * np.array([0.8, 1.0, 0.7])
    photo = (toy[:, :, :3] * true + ramp * (1 - true)).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    done = run(
        "foreground_segment.py", "--input", tmp_path / "photo.png", "--output", tmp_path / "out.png"
    )
    assert done.returncode == 0, done.stderr
    out = np.asarray(Image.open(tmp_path / "out.png"))
    assert np.array_equal(out[:, :, :3], photo)
    found, expected = out[:, :, 3] >= 128, true[:, :, 0] >= 0.5
    assert (found & expected).sum() / (found | expected).sum() > 0.9


def test_nothing_found_is_an_error_of_one_line_and_leaves_no_file(tmp_path: Path):
    Image.new("RGB", (50, 50), "white").save(tmp_path / "in.png")
    paths = ["--input", tmp_path / "in.png", "--output", tmp_path / "out.png"]
    done = run("foreground_segment.py", *paths, "--backend", "white")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    for part in ("in.png: no object was found", "white", "try another --backend"):
        assert part in line
    assert not (tmp_path / "out.png").exists()


def test_a_mask_of_everything_is_warned_of(tmp_path: Path, caplog):
    Image.new("RGB", (50, 50), "green").save(tmp_path / "in.png")
    cut_out(tmp_path / "in.png", tmp_path / "out.png")
    assert "the mask covers the whole image" in caplog.text


def test_an_old_output_is_replaced_and_survives_a_failure(tmp_path: Path):
    output = tmp_path / "out.png"
    output.write_bytes(b"old")
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"bad\.png: not an image"):
        cut_out(tmp_path / "bad.png", output)
    assert output.read_bytes() == b"old"
    square_on_white().save(tmp_path / "in.png")
    assert cut_out(tmp_path / "in.png", output).mode == "RGBA"


def test_a_missing_input_is_named_and_exits_1(tmp_path: Path):
    source = tmp_path / "none.png"
    done = run("foreground_segment.py", "--input", source, "--output", tmp_path / "out.png")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"ERROR: {source}: no such file"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "{}/out.jpg"], "must be a .png file"),
        (["--output", "{}/in.png"], "is the --input, which is never overwritten"),
        (["--output", "{}/link.png"], "is the --input, which is never overwritten"),
        (["--output", "{}/folder.png"], "is a folder"),
        (["--output", "{}/out.png", "--backend", "sam"], "invalid choice"),
        ([], "--output"),
    ],
)
def test_wrong_usage_exits_2_and_leaves_the_input_alone(tmp_path, capsys, flags, message):
    source = tmp_path / "in.png"
    square_on_white().save(source)
    before = source.read_bytes()
    (tmp_path / "link.png").symlink_to(source)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SystemExit) as exit_:
        foreground_segment.main(["--input", str(source), *(f.format(tmp_path) for f in flags)])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert source.read_bytes() == before
