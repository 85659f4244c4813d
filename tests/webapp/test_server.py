"""The server through the page's own protocol: limits, queue, isolation, cleanup; no browser."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the web page's packages are not installed")

from tests.conftest import ROOT
from tests.webapp.client import PageClient, as_text
from tests.webapp.serve import serve_page, visit
from webapp import sessions

TOY = ROOT / "testset" / "locomotive.png"


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def served_paths(messages: list[dict]) -> set[str]:
    return set(re.findall(r'"path": "([^"]+)"', as_text(messages)))


@pytest.mark.integration
def test_an_image_becomes_a_mesh_and_all_files_are_removed_when_the_page_is_closed(monkeypatch):
    monkeypatch.setattr("renderer.reconstruction.FRAMES", 4)
    with serve_page(0.1) as page:
        with PageClient(page.address) as visitor:
            messages = visitor.open_image(TOY)
            job_messages = visitor.generate(samples=2)
            text = as_text(job_messages)
            for message in ("Generating sample 1 of 2: step 2 of 4",
                            "Generating sample 2 of 2: step 3",
                            "Building the mesh", "Done.", "sd-view"):  # fmt: skip
                assert message in text, message
            paths = served_paths(job_messages)
            ends = {Path(path).suffix for path in paths}
            assert ends >= {".glb", ".ply", ".mp4", ".png"}
            glb = next(path for path in paths if path.endswith(".glb"))
            answer = visitor.http.get(f"/gradio_api/file={glb}")
            assert answer.content[:4] == b"glTF"
            root = page.sessions.root
            assert any(root.iterdir())
            mask = {path for path in served_paths(messages) if path.endswith(".webp")}
            assert all(Path(path).exists() for path in paths | mask)
        wait_until(lambda: len(page.sessions) == 0)
        wait_until(lambda: not any(root.iterdir()))
        wait_until(lambda: not any(Path(path).exists() for path in paths | mask))
        with PageClient(page.address) as other:
            assert other.http.get(f"/gradio_api/file={glb}").status_code == 403
    assert not root.parent.exists()


def test_uploads_are_removed_after_ten_minutes_but_not_while_others_may_need_them(tmp_path):
    never_opened = tmp_path / "other.png"
    never_opened.write_bytes(TOY.read_bytes() + b"1")

    def copies() -> set[str]:
        return {path.name for path in page.sessions.cache.rglob("*.png")}

    with visit() as (page, visitor):
        examples = copies()
        assert examples == {"car.png", "cup.png"}
        visitor.open_image(TOY)
        visitor.upload(never_opened)
        page.sessions.remove_expired()
        assert copies() - examples == {TOY.name, "other.png"}
        old = time.time() - sessions.UPLOAD_SECONDS - 1
        for path in page.sessions.cache.rglob("*"):
            if path.is_file():
                os.utime(path, (old, old))
        page.sessions.remove_expired()
        assert copies() == examples
        assert not list(page.sessions.cache.glob("tmp*"))
        visitor.open_image(TOY)
        assert copies() - examples == {TOY.name}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"hello", "not an image that can be read|Invalid file type"),
        ("fake.png", b"hello", "not an image that can be read"),
        ("empty.png", b"", "the file is empty"),
        ("cut.png", TOY.read_bytes()[:9000], "damaged or incomplete"),
        ("program.svg", b"<svg><script/></svg>", "is an SVG drawing|Invalid file type"),
    ],
)
def test_files_that_are_no_images_are_refused_with_a_clear_message(
    tmp_path, name, content, message
):
    file = tmp_path / name
    file.write_bytes(content)
    with visit() as (page, visitor):
        text = as_text(visitor.open_image(file))
        assert re.search(message, text)
        assert str(page.sessions.root) not in text
        assert "Traceback" not in text
        assert "Upload an image first" in as_text(visitor.generate())
        assert page.view_generator.steps == []


def test_a_file_that_is_too_large_is_refused(tmp_path, quick_meshes):
    large = tmp_path / "large.png"
    large.write_bytes(np.random.default_rng(0).bytes(30 * 10**6))
    with visit() as (page, visitor):
        assert visitor.send(large).status_code == 413
        kept = sum(p.stat().st_size for p in page.sessions.cache.rglob("*.png") if p.is_file())
        assert kept < 10**6
        visitor.open_image(TOY)  # the next upload is accepted
        assert "Done." in as_text(visitor.generate())


@pytest.mark.integration
def test_closing_a_page_stops_its_job_at_the_next_step_and_the_next_visitor_is_served(quick_meshes):
    step = 0.2
    with serve_page(step) as page:
        with PageClient(page.address) as first:
            first.open_image(TOY)
            first.start(samples=3)
            next(each for each in first.messages() if "step 2 of 4" in as_text([each]))
            closed = time.monotonic()
        wait_until(lambda: page.view_generator.running == 0)
        assert page.view_generator.steps[-1] - closed < 3
        assert len(page.view_generator.steps) < 12
        with PageClient(page.address) as second:
            second.open_image(TOY)
            assert "Done." in as_text(second.generate())


@pytest.mark.integration
def test_the_last_message_of_a_stopped_job_enables_the_start_button(quick_meshes):
    with visit(0.3) as (page, visitor):
        visitor.open_image(TOY)
        visitor.start(samples=3)
        texts = []
        for message in visitor.messages():
            texts.append(as_text([message]))
            if "step 2 of 4" in texts[-1] and len(page.view_generator.steps) < 4:
                visitor.call("stop", "click", []).raise_for_status()
        (last,) = (text for text in texts if "Stopped." in text and "process_generating" in text)
        assert '["interactive"], true' in last  # messages are differences
        assert not any("step " in text for text in texts[texts.index(last) :])
        assert "Done." in as_text(visitor.generate())


@pytest.mark.integration
def test_ten_visitors_at_once_are_all_served_one_at_a_time(quick_meshes):
    ended: list[str] = []
    waited: list[int] = []

    def one(address: str) -> None:
        with PageClient(address) as visitor:
            visitor.open_image(TOY)
            messages = visitor.generate()
            waited.extend(m["rank"] for m in messages if m["msg"] == "estimation")
            ended.append(as_text(messages))

    with serve_page(0.02) as page:
        threads = [threading.Thread(target=one, args=[page.address]) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(280)
        assert len(ended) == 10
        assert all("Done." in text for text in ended)
        assert page.view_generator.max_running == 1
        assert max(waited) >= 5  # the place in the queue is shown


def test_visitors_beyond_the_queue_are_refused(quick_meshes):
    with serve_page(0.3, max_queue=1) as page, PageClient(page.address) as first:
        first.open_image(TOY)
        others = [PageClient(page.address) for _ in range(3)]
        for other in others:
            other.open_image(TOY)
        first.start()
        wait_until(lambda: page.view_generator.running == 1)
        answers = [other.start() for other in others]
        assert [answer.status_code for answer in answers] == [200, 503, 503]
        assert "full" in answers[1].text


@pytest.mark.integration
def test_a_second_click_does_not_start_a_second_job(quick_meshes):
    with visit(0.05) as (page, visitor):
        visitor.open_image(TOY)
        for _ in range(2):
            visitor.start()
        assert "Done." in as_text(list(visitor.messages()))
        assert page.view_generator.max_running == 1
        assert len(page.view_generator.steps) == 4  # the second click reused the views


@pytest.mark.integration
def test_visitors_can_only_fetch_files_of_the_page_and_their_own(quick_meshes):
    with serve_page() as page, PageClient(page.address) as owner, PageClient(page.address) as other:
        owner.open_image(TOY)
        owner.generate()
        private = [path for path in page.sessions.root.rglob("*") if path.is_file()]
        assert len(private) > 10
        folders = [page.sessions.root, page.sessions.cache]
        folders += [path for path in page.sessions.cache.iterdir() if path.is_dir()]
        foreign = [ROOT / "app.py", Path("/etc/passwd"), page.sessions.root.parent]
        inside = private[0].relative_to(page.sessions.root)
        climbing = page.sessions.cache / ".." / "sessions" / inside
        for path in [*private, *folders, *foreign, climbing]:
            answer = other.http.get(f"/gradio_api/file={path}")
            assert answer.status_code in (403, 404), path
        # nor can a file of another visitor be opened as an upload
        images = [path for path in private if path.suffix == ".png"]
        for path in [*images[:3], TOY]:
            file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
            other.do("upload", "upload", [file])
            assert page.sessions.find(other.session) is None, path
        assert page.sessions.root.parent.stat().st_mode & 0o077 == 0


def test_functions_are_called_through_the_queue_only_and_urls_are_refused():
    with visit() as (page, visitor):
        for route, status in (("run/predict", 404), ("api/on_generate", 403), ("call/a", 403)):
            answer = visitor.call("go", "click", [False, 20, 1, 1], route)
            assert answer.status_code == status, route
        assert visitor.call("undo", "click", []).status_code == 200
        file = {"path": "http://example.org/x.png", "meta": {"_type": "gradio.FileData"}}
        assert visitor.join("upload", "upload", [file]).status_code == 403
        assert visitor.send(TOY, **{"sec-fetch-site": "cross-site"}).status_code == 403
        assert not list(page.sessions.cache.rglob(TOY.name))


def test_uploads_are_refused_while_the_storage_is_full(monkeypatch):
    with visit() as (_, visitor):
        monkeypatch.setattr(sessions, "MAX_CACHE_BYTES", 1000)
        answer = visitor.send(TOY)
        assert answer.status_code == 503
        assert "storage is full" in answer.text


def test_nothing_is_loaded_from_other_servers():
    with visit() as (_, visitor):
        answer = visitor.http.get("/")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert not re.search(r"https?:", policy)
        loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', answer.text)
        assert loaded
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)]
        theme = visitor.http.get("/theme.css").text
        assert not re.search(r"url\(['\"]?https?:|@import", theme)


def test_the_page_of_a_small_model_says_how_to_get_the_published_one():
    with serve_page() as page, PageClient(page.address) as visitor:
        assert "python -m ldm.download" in visitor.http.get("/").text


def test_idle_sessions_are_closed():
    with serve_page() as page:
        visitor = PageClient(page.address)  # no heartbeat: the server does not notice its end
        visitor.open_image(TOY)
        assert len(page.sessions) == 1
        page.sessions.remove_expired()
        assert len(page.sessions) == 1
        page.sessions.find(visitor.session).last_used -= sessions.IDLE_SECONDS + 1
        page.sessions.remove_expired()
        assert len(page.sessions) == 0
        assert not any(page.sessions.root.iterdir())
        assert "Upload an image first" in as_text(visitor.generate())
