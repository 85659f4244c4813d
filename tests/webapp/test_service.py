from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import app
from multiview.segmentation import SegmentationUnavailableError
from tests.conftest import ROOT
from tests.fakes import FakeGenerator
from tests.webapp.serve import page_config
from webapp import html
from webapp.job import Progress, Stopped
from webapp.mask_editor import UserError
from webapp.progress import VIEWS_DONE
from webapp.server import listen
from webapp.service import NO_NETWORK, Service, open_segmenter
from webapp.sessions import SessionStore

TOY = ROOT / "testset" / "locomotive.png"


@pytest.fixture
def service() -> Service:
    return Service(FakeGenerator(), page_config())


@pytest.fixture
def session(tmp_path: Path):
    return SessionStore(tmp_path / "sessions", tmp_path / "cache").open("a")


def test_settings_of_the_page_are_clipped_to_their_limits(service):
    for given, clipped in (
        ((True, 20, 2, 7), ("auto", 2, 7)),
        ((False, 1e9, 1e6, -5), (40.0, 3, 0)),
        ((False, -1e9, -2, 2**70), (-10.0, 1, 2**31)),
    ):
        config = service.request(*given)
        assert (config.elevation, config.num_samples, config.seed) == clipped
    for nonsense in ((None, 1, 1), ("x", 1, 1), (20, float("inf"), 1), (float("nan"), 1, 1)):
        with pytest.raises(UserError, match="numbers"):
            service.request(False, *nonsense)


def test_samples_are_ranked_and_unchanged_ones_are_reused(service, session):
    image = service.open_image(session, TOY).result()
    progresses: list[Progress] = []
    service.generate_views(session, image, service.request(False, 20, 3, 1), progresses.append)
    samples = service.samples(session)
    assert [sample.rank for sample in samples] == [1, 2, 3]
    assert {sample.number for sample in samples} == {1, 2, 3}
    assert [sample.score for sample in samples] == sorted((s.score for s in samples), reverse=True)
    fractions = [progress.fraction for progress in progresses]
    assert fractions == sorted(fractions)
    assert fractions[-1] == VIEWS_DONE
    strips = [progress.strip for progress in progresses if progress.strip is not None]
    assert len(strips) >= 6
    assert all(strip.shape == (32, 512, 3) for strip in strips)
    steps = len(service.view_generator.steps)
    service.generate_views(session, image, service.request(False, 20, 2, 1), progresses.append)
    assert len(service.view_generator.steps) == steps
    service.generate_views(session, image, service.request(False, 20, 2, 9), progresses.append)
    assert len(service.view_generator.steps) == steps + 8


def test_each_sample_keeps_its_mesh_when_others_are_built(service, session, quick_meshes):
    image = service.open_image(session, TOY).result()
    request = service.request(False, 20, 2, 1)
    progresses: list[Progress] = []
    service.generate_views(session, image, request, progresses.append)
    first, second = service.samples(session)
    content = []
    for sample in (first, second, first):
        files = service.build_mesh(session, sample, request, progresses.append)
        content.append(files["mesh.glb"].read_bytes())
        assert files["best.png"].read_bytes() == sample.path.read_bytes()
    assert len(quick_meshes) == 2  # going back to the first sample reconstructs nothing
    assert content[0] == content[2] != content[1]
    assert not list(session.folder.rglob("*.ckpt"))
    service.generate_views(session, image, request, progresses.append)
    assert service.samples(session) == [first, second]
    other = service.request(False, 20, 2, 5)  # other samples under the same numbers
    service.generate_views(session, image, other, progresses.append)
    service.build_mesh(session, service.samples(session)[0], other, progresses.append)
    assert len(quick_meshes) == 3
    assert len(set(quick_meshes)) == 3


def test_the_elevation_estimate_is_part_of_the_progress(service, session):
    image = service.open_image(session, TOY).result()
    progresses: list[Progress] = []
    service.generate_views(session, image, service.request(True, 20, 1, 1), progresses.append)
    messages = [progress.message for progress in progresses]
    assert "Estimating the elevation: draft 2 of 2, step 2 of 2" in messages
    fractions = [progress.fraction for progress in progresses]
    assert fractions == sorted(fractions)


def test_a_stop_ends_the_generation_within_a_step_and_complete_samples_are_kept(service, session):
    image = service.open_image(session, TOY).result()

    def stop(progress: Progress) -> None:
        if "sample 2 of 3: step 2" in progress.message:
            raise Stopped

    with pytest.raises(Stopped):
        service.generate_views(session, image, service.request(False, 20, 3, 1), stop)
    assert len(service.view_generator.steps) == 6
    service.generate_views(session, image, service.request(False, 20, 3, 1), lambda progress: None)
    assert len(service.view_generator.steps) == 6 + 8


def test_visitors_are_warned_if_there_is_no_segmentation_network(monkeypatch, session, tmp_path):
    def missing(backend, device="auto"):
        if backend == "auto":
            raise SegmentationUnavailableError("not installed")
        return open_segmenter(backend, device)

    monkeypatch.setattr("webapp.service.open_segmenter", missing)
    service = Service(FakeGenerator(), page_config(backend="auto"))
    photo = tmp_path / "photo.png"
    Image.open(TOY).convert("RGB").save(photo)
    assert service.open_image(session, photo).notice == NO_NETWORK
    assert service.open_image(session, TOY).notice == ""


def test_text_cannot_become_markup():
    for text in (html.note("<script>"), html.progress_bar(0.5, "<script>"),
                 html.views(np.zeros((16, 256, 3), np.uint8), "<script>")):  # fmt: skip
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
    assert "width:100%" in html.progress_bar(7.0, "")


def test_the_page_is_served_to_this_machine_only_by_default():
    assert app.build_parser().parse_args([]).host == "127.0.0.1"


def test_an_elevation_outside_the_pages_range_is_refused():
    pytest.importorskip("gradio", reason="the web page's packages are not installed")
    with pytest.raises(ValueError, match=r"--elevation .* got 60"):
        app.main(["--elevation", "60", "--device", "cpu"])


def test_a_port_can_be_listened_at_once_only():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            listen("127.0.0.1", port)


def test_a_port_in_use_is_named_with_its_flag():
    pytest.importorskip("gradio", reason="the web page's packages are not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} .*another --host or --port"):
            app.main(["--port", str(port), "--device", "cpu"])
