from __future__ import annotations

import json
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
from webapp.sessions import Session, SessionStore

TOY = ROOT / "testset" / "locomotive.png"


@pytest.fixture
def service() -> Service:
    return Service(FakeGenerator(), page_config())


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return SessionStore(tmp_path / "sessions", tmp_path / "cache").open("a")


@pytest.fixture
def image(service: Service, session: Session) -> Image.Image:
    return service.open_image(session, TOY).result()


@pytest.fixture
def progresses() -> list[Progress]:
    return []


@pytest.fixture
def generate(service: Service, session: Session, image: Image.Image, progresses: list[Progress]):
    """Generate samples of the toy at 20 degrees, or an estimated elevation; returns them."""

    def run(number: int, seed: int = 1, auto: bool = False, on_progress=progresses.append):
        wanted = service.request(auto, 20, number, seed)
        service.generate_views(session, image, wanted, on_progress)
        return service.samples(session)

    return run


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


@pytest.mark.integration
def test_samples_are_ranked_and_unchanged_ones_are_reused(service, generate, progresses):
    samples = generate(3)
    assert [sample.rank for sample in samples] == [1, 2, 3]
    assert {sample.number for sample in samples} == {1, 2, 3}
    assert [sample.score for sample in samples] == sorted((s.score for s in samples), reverse=True)
    fractions = [progress.fraction for progress in progresses]
    assert fractions == sorted(fractions)
    assert fractions[-1] == VIEWS_DONE
    strips = [progress.strip for progress in progresses if progress.strip is not None]
    assert len(strips) >= 6
    assert all(strip.shape == (32, 512, 3) for strip in strips)
    steps = service.view_generator.steps
    before = len(steps)
    generate(2)
    assert len(steps) == before
    generate(2, seed=9)
    assert len(steps) == before + 8


def test_each_sample_keeps_its_mesh_when_others_are_built(
    service, session, generate, progresses, quick_meshes
):
    request = service.request(False, 20, 2, 1)
    first, second = generate(2)
    content = []
    for sample in (first, second, first):
        files = service.build_mesh(session, sample, request, progresses.append)
        content.append(files["mesh.glb"].read_bytes())
        assert files["best.png"].read_bytes() == sample.path.read_bytes()
    assert len(quick_meshes) == 2  # going back to the first sample reconstructs nothing
    assert content[0] == content[2] != content[1]
    assert not list(session.folder.rglob("*.ckpt"))
    assert generate(2) == [first, second]
    other, _ = generate(2, seed=5)  # other samples under the same numbers
    service.build_mesh(session, other, service.request(False, 20, 2, 5), progresses.append)
    assert len(quick_meshes) == len(set(quick_meshes)) == 3


def test_a_mesh_is_converted_on_request_and_nonsense_is_refused(
    service, session, generate, progresses, quick_meshes
):
    with pytest.raises(UserError, match="Build a mesh first"):
        service.convert(session, "stl", 80, False)
    (sample,) = generate(1)
    service.build_mesh(session, sample, service.request(False, 20, 1, 1), progresses.append)
    service.convert(session, "stl", 50, True)
    report = json.loads(session.files["mesh.print.json"].read_text())
    assert report["size_mm"] == [50.0, 50.0, 50.0]  # the placeholder is a cube
    assert session.files["mesh.stl"].suffix == ".stl"
    assert all(path.is_relative_to(session.folder) for path in session.files.values())
    before = dict(session.files)
    for wrong in (
        ("../a", 50),
        ("glb", 50),
        ("stl", 0),
        ("stl", float("nan")),
        ("stl", "80"),
        ("stl", None),
    ):
        with pytest.raises(UserError):
            service.convert(session, *wrong, False)
    assert session.files == before


def test_the_elevation_estimate_is_part_of_the_progress(generate, progresses):
    generate(1, auto=True)
    messages = [progress.message for progress in progresses]
    assert "Estimating the elevation: draft 2 of 2, step 2 of 2" in messages
    fractions = [progress.fraction for progress in progresses]
    assert fractions == sorted(fractions)


def test_a_stop_ends_the_generation_within_a_step_and_complete_samples_are_kept(service, generate):
    def stop(progress: Progress) -> None:
        if "sample 2 of 3: step 2" in progress.message:
            raise Stopped

    with pytest.raises(Stopped):
        generate(3, on_progress=stop)
    assert len(service.view_generator.steps) == 6
    generate(3)
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


def test_a_port_in_use_is_named_with_its_flag():
    pytest.importorskip("gradio", reason="the web page's packages are not installed")
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} .*another --host or --port"):
            app.main(["--port", str(port), "--device", "cpu"])
