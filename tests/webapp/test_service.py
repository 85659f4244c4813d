from __future__ import annotations

import logging
import socket
from pathlib import Path

import numpy as np
import pytest

import app
from multiview.segmentation import SegmentationUnavailableError
from tests.conftest import ROOT
from tests.webapp.stand_in import SlowDrawer, small_settings
from webapp import html, service
from webapp.job import Stopped, Update
from webapp.server import listen
from webapp.service import Maker, MakingError, Wishes
from webapp.sessions import Visits

TOY = ROOT / "testset" / "locomotive.png"


@pytest.fixture
def maker() -> Maker:
    return Maker(SlowDrawer(), small_settings())


@pytest.fixture
def visit(tmp_path: Path):
    return Visits(tmp_path / "visits", tmp_path / "cache").open("a")


def test_what_a_page_sends_is_brought_into_its_limits(maker):
    assert maker.wishes(True, 20, 2, 7) == Wishes("auto", 2, 7)
    assert maker.wishes(False, 1e9, 1e6, -5) == Wishes(40.0, 3, 0)
    assert maker.wishes(False, -1e9, -2, 2**70) == Wishes(-10.0, 1, 2**31)
    for nonsense in ((None, 1, 1), ("x", 1, 1), (20, float("inf"), 1), (float("nan"), 1, 1)):
        with pytest.raises(MakingError, match="must be numbers"):
            maker.wishes(False, *nonsense)


def test_samples_are_ordered_and_what_was_drawn_is_kept(maker, visit):
    picture = maker.open_picture(visit, TOY).result()
    told: list[Update] = []
    maker.make_views(visit, picture, Wishes(20.0, 3, 1), told.append)
    samples = maker.samples(visit)
    assert [sample.rank for sample in samples] == [1, 2, 3]
    assert {sample.number for sample in samples} == {1, 2, 3}
    assert [sample.score for sample in samples] == sorted((s.score for s in samples), reverse=True)
    shares = [update.share for update in told]
    assert shares == sorted(shares)
    assert shares[-1] == service.VIEWS_SHARE
    strips = [update.strip for update in told if update.strip is not None]
    assert len(strips) >= 6
    assert all(strip.shape == (32, 512, 3) for strip in strips)
    drawn = len(maker.drawer.steps)
    maker.make_views(visit, picture, Wishes(20.0, 2, 1), told.append)
    assert len(maker.drawer.steps) == drawn
    maker.make_views(visit, picture, Wishes(20.0, 2, 9), told.append)
    assert len(maker.drawer.steps) == drawn + 8


def test_the_estimate_counts_in_the_progress(maker, visit):
    picture = maker.open_picture(visit, TOY).result()
    told: list[Update] = []
    maker.make_views(visit, picture, Wishes("auto", 1, 1), told.append)
    words = [update.words for update in told]
    assert "Estimating the elevation: draft 2 of 2, step 2 of 2" in words
    shares = [update.share for update in told]
    assert shares == sorted(shares)


def test_a_stop_ends_the_drawing_within_a_step_and_what_is_done_is_kept(maker, visit):
    picture = maker.open_picture(visit, TOY).result()

    def stop(update: Update) -> None:
        if "sample 2 of 3: step 2" in update.words:
            raise Stopped

    with pytest.raises(Stopped):
        maker.make_views(visit, picture, Wishes(20.0, 3, 1), stop)
    assert len(maker.drawer.steps) == 6
    maker.make_views(visit, picture, Wishes(20.0, 3, 1), lambda update: None)
    assert len(maker.drawer.steps) == 6 + 8


def test_without_a_network_for_masks_visitors_are_told_so(monkeypatch, visit, tmp_path):
    real = service.open_segmenter

    def missing(backend, device="auto"):
        if backend == "auto":
            raise SegmentationUnavailableError("not installed")
        return real(backend, device)

    monkeypatch.setattr(service, "open_segmenter", missing)
    maker = Maker(SlowDrawer(), small_settings(backend="auto"))
    from PIL import Image

    photo = tmp_path / "photo.png"
    Image.open(TOY).convert("RGB").save(photo)
    assert maker.open_picture(visit, photo).found == service.NO_NETWORK
    assert maker.open_picture(visit, TOY).found == ""


def test_words_of_visitors_cannot_become_markup():
    for text in (html.note("<script>"), html.progress(0.5, "<script>"),
                 html.views(np.zeros((16, 256, 3), np.uint8), "<script>")):  # fmt: skip
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
    assert "width:100%" in html.progress(7.0, "")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--max_queue", "0"], "--max_queue must be from 1"),
        (["--max_upload_mb", "0"], "--max_upload_mb must be from 1"),
        (["--draft_steps", "0"], "--draft_steps must be from 1"),
        (["--sample_steps", "0"], "--sample_steps must be from 1"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_expected(capsys, flags, message):
    with pytest.raises(SystemExit) as caught:
        app.parse(flags)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_page_is_for_this_machine_only_unless_that_is_asked_for():
    assert app.parse([]).host == "127.0.0.1"


def test_an_elevation_that_the_page_does_not_offer_is_refused():
    pytest.importorskip("gradio", reason="the web page's packages are not installed")
    with pytest.raises(ValueError, match=r"--elevation must be .* got 60"):
        app.main(["--elevation", "60", "--device", "cpu"])


def test_a_port_is_taken_before_the_weights_are_read():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match="cannot be opened"):
            listen("127.0.0.1", port)


def test_a_port_that_is_taken_is_named(caplog):
    caplog.set_level(logging.INFO)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"--port {port}: cannot be opened"):
            listen("127.0.0.1", port)
