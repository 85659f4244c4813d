from __future__ import annotations

import sys

import numpy as np
import pytest

from multiview.cameras import orbit_cameras
from renderer.mesh import with_vertex_colors
from renderer.video import orbit_frames, render, write_video

trimesh = pytest.importorskip("trimesh")
imageio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")

COLOUR = np.array([0.8, 0.4, 0.2])


def colored_ball(radius: float = 0.45):
    ball = trimesh.creation.icosphere(3, radius=radius)
    return with_vertex_colors(ball, np.tile(COLOUR, (len(ball.vertices), 1)))


def test_a_ball_is_rendered_in_its_colour_on_white_and_as_large_as_it_is():
    (image,) = render(colored_ball(), orbit_cameras(1, image_size=128), 128)
    color, opacity = image[..., :3], image[..., 3]
    np.testing.assert_allclose(color[64, 64], COLOUR, atol=0.003)
    np.testing.assert_array_equal(color[opacity == 0], 1)
    edge = (opacity > 0) & (opacity < 1)
    assert edge.any()  # smooth
    np.testing.assert_allclose(color[edge], 1 - opacity[edge][:, None] * (1 - COLOUR), atol=0.003)
    radius = 140 * 0.45 / np.sqrt(1.5**2 - 0.45**2)  # pixels
    np.testing.assert_allclose(opacity.sum(), np.pi * radius**2, rtol=0.02)


def test_a_full_turn_makes_a_video_of_180_frames(tmp_path):
    box = trimesh.creation.box((0.2, 0.8, 0.5))
    colors = np.where(np.asarray(box.vertices)[:, :1] > 0, [0.9, 0.1, 0.1], [0.1, 0.1, 0.9])
    mesh = with_vertex_colors(box, colors)
    write_video(tmp_path / "rendering.mp4", orbit_frames(mesh, size=64))
    assert [path.name for path in tmp_path.iterdir()] == ["rendering.mp4"]
    video = imageio.imread(tmp_path / "rendering.mp4", plugin="FFMPEG")
    assert video.shape == (180, 64, 64, 3)
    assert imageio.immeta(tmp_path / "rendering.mp4", plugin="FFMPEG")["fps"] == 30
    assert (video[:, 0, 0] > 245).all()  # a white corner
    assert video[0, 40, 32, 0] > video[0, 40, 32, 2] + 100  # the front is red
    assert video[90, 40, 32, 2] > video[90, 40, 32, 0] + 100  # the back is blue


def test_frames_with_odd_sides_get_one_more_line(tmp_path):
    write_video(tmp_path / "odd.mp4", [np.full((33, 47, 3), 128, dtype=np.uint8)] * 4)
    assert imageio.imread(tmp_path / "odd.mp4", plugin="FFMPEG").shape == (4, 34, 48, 3)


def test_bad_frames_and_a_missing_encoder_are_refused_and_leave_nothing(tmp_path, monkeypatch):
    frames = [np.zeros((32, 32, 3), dtype=np.uint8), np.zeros((16, 16, 3), dtype=np.uint8)]
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="expected uint8 frames of shape"):
        write_video(tmp_path / "a.mp4", frames)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"imageio_ffmpeg.*requirements\.txt"):
        write_video(tmp_path / "a.mp4", frames[:1])
    assert not list(tmp_path.iterdir())
