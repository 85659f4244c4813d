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
from tests.webapp.serve import serve_page
from webapp import sessions

TOY = ROOT / "testset" / "locomotive.png"


def wait_until(condition: Callable[[], object], seconds: float = 20) -> float:
    """Wait for a condition; returns the seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


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
            for message in (
                "Generating sample 1 of 2: step 2 of 4",
                "Generating sample 2 of 2: step 3",
                "Building the mesh",
                "Done.",
                "sd-view",
            ):
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
        assert status_for_another(page.address, glb) == 403
    assert not root.parent.exists()


def status_for_another(address: str, path: str) -> int:
    with PageClient(address) as other:
        return other.http.get(f"/gradio_api/file={path}").status_code


def test_uploads_are_removed_after_ten_minutes_but_not_while_others_may_need_them():
    def copies() -> list[Path]:
        return [path for path in page.sessions.cache.rglob("*.png") if path.name == TOY.name]

    with serve_page() as page, PageClient(page.address) as visitor:
        visitor.open_image(TOY)
        page.sessions.remove_expired()
        assert len(copies()) == 1  # Gradio stores equal files once
        old = time.time() - sessions.UPLOAD_SECONDS - 1
        for path in page.sessions.cache.rglob("*"):
            if path.is_file():
                os.utime(path, (old, old))
        page.sessions.remove_expired()
        assert copies() == []
        assert not list(page.sessions.cache.glob("tmp*"))
        examples = [path.name for path in page.sessions.cache.rglob("*.png")]
        assert sorted(examples) == ["car.png", "cup.png"]
        visitor.open_image(TOY)
        assert len(copies()) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"hello", "not a readable image"),
        ("fake.png", b"hello", "not a readable image"),
        ("empty.png", b"", "not a readable image"),
        ("cut.png", TOY.read_bytes()[:9000], "damaged or incomplete"),
        (
            "program.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
            "not a readable image",
        ),
    ],
)
def test_files_that_are_no_images_are_refused_with_a_clear_message(
    tmp_path, name, content, message
):
    file = tmp_path / name
    file.write_bytes(content)
    with serve_page() as page, PageClient(page.address) as visitor:
        text = as_text(visitor.open_image(file))
        assert message in text or (file.suffix in (".txt", ".svg") and "Invalid file type" in text)
        assert str(page.sessions.root) not in text
        assert "Traceback" not in text
        assert "Upload an image first" in as_text(visitor.generate())
        assert page.view_generator.steps == []


def test_a_file_that_is_too_large_is_refused(tmp_path, quick_meshes):
    large = tmp_path / "large.png"
    large.write_bytes(np.random.default_rng(0).bytes(30 * 10**6))
    with serve_page() as page, PageClient(page.address) as visitor:
        with large.open("rb") as file:
            answer = visitor.http.post("/gradio_api/upload", files={"files": (large.name, file)})
        assert answer.status_code == 413
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
            first.join("go", "click", [False, 20, 3, 1]).raise_for_status()
            for message in first.messages():
                if "step 2 of 4" in as_text([message]):
                    break
            closed = time.monotonic()
        wait_until(lambda: page.view_generator.running == 0)
        assert page.view_generator.steps[-1] - closed < 3
        assert len(page.view_generator.steps) < 12
        with PageClient(page.address) as second:
            second.open_image(TOY)
            assert "Done." in as_text(second.generate())


@pytest.mark.integration
def test_the_last_message_of_a_stopped_job_enables_the_start_button(quick_meshes):
    with serve_page(0.3) as page, PageClient(page.address) as visitor:
        visitor.open_image(TOY)
        visitor.join("go", "click", [False, 20, 3, 1]).raise_for_status()
        stop = {"data": [], "fn_index": visitor.number("stop", "click")}
        texts = []
        for message in visitor.messages():
            texts.append(as_text([message]))
            if "step 2 of 4" in texts[-1] and len(page.view_generator.steps) < 4:
                stop["session_hash"] = visitor.session
                visitor.http.post("/gradio_api/run/predict", json=stop).raise_for_status()
        (last,) = (text for text in texts if "Stopped." in text and "process_generating" in text)
        assert '["interactive"], true' in last  # messages are differences
        assert not any("step " in text for text in texts[texts.index(last) :])
        assert "Done." in as_text(visitor.generate())


@pytest.mark.integration
def test_ten_visitors_at_once_are_all_served_one_at_a_time(quick_meshes):
    ended: list[str] = []
    waited: list[int] = []

    def visit(address: str) -> None:
        with PageClient(address) as visitor:
            visitor.open_image(TOY)
            messages = visitor.generate()
            waited.extend(m["rank"] for m in messages if m["msg"] == "estimation")
            ended.append(as_text(messages))

    with serve_page(0.02) as page:
        threads = [threading.Thread(target=visit, args=[page.address]) for _ in range(10)]
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
        first.join("go", "click", [False, 20, 1, 1]).raise_for_status()
        wait_until(lambda: page.view_generator.running == 1)
        answers = [other.join("go", "click", [False, 20, 1, 1]) for other in others]
        assert [answer.status_code for answer in answers] == [200, 503, 503]
        assert "full" in answers[1].text


def test_a_second_click_does_not_start_a_second_job(quick_meshes):
    with serve_page(0.05) as page, PageClient(page.address) as visitor:
        visitor.open_image(TOY)
        for _ in range(2):
            visitor.join("go", "click", [False, 20, 1, 1]).raise_for_status()
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
        foreign = [
            ROOT / "app.py",
            ROOT / "README.md",
            Path("/etc/passwd"),
            page.sessions.root.parent,
        ]
        climbing = (
            page.sessions.cache / ".." / "sessions" / private[0].relative_to(page.sessions.root)
        )
        for path in [*private, *folders, *foreign, climbing]:
            answer = other.http.get(f"/gradio_api/file={path}")
            assert answer.status_code in (403, 404), path
        assert other.http.get("/gradio_api/file=http://127.0.0.1:1/x").status_code == 403
        assert other.http.get("/gradio_api/file=HTTPS://example.org/x").status_code == 403
        # nor can a file of another visitor be opened as an upload
        images = [path for path in private if path.suffix == ".png"]
        for path in [*images[:3], TOY]:
            file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
            other.do("upload", "upload", [file])
            assert page.sessions.find(other.session) is None, path
        assert page.sessions.root.stat().st_mode & 0o077 == 0 or (
            page.sessions.root.parent.stat().st_mode & 0o077 == 0
        )


def test_functions_are_called_through_the_queue_only_and_urls_are_refused():
    with serve_page() as page, PageClient(page.address) as visitor:
        number = visitor.number("go", "click")
        for route, status in (("run/predict", 404), ("api/on_generate", 403), ("call/a", 403)):
            answer = visitor.http.post(
                f"/gradio_api/{route}",
                json={"data": [False, 20, 1, 1], "fn_index": number, "session_hash": "a"},
            )
            assert answer.status_code == status, route
        click = {"data": [], "fn_index": visitor.number("undo", "click"), "session_hash": "a"}
        assert visitor.http.post("/gradio_api/run/predict", json=click).status_code == 200
        file = {"path": "http://example.org/x.png", "meta": {"_type": "gradio.FileData"}}
        assert visitor.join("upload", "upload", [file]).status_code == 403
        answer = visitor.http.post(
            "/gradio_api/upload", files={"files": ("a.png", b"x")},
            headers={"sec-fetch-site": "cross-site"},
        )  # fmt: skip
        assert answer.status_code == 403
        assert not list(page.sessions.cache.rglob("a.png"))


def test_uploads_that_were_never_opened_are_removed_too(tmp_path, monkeypatch):
    other = tmp_path / "never_opened.png"
    other.write_bytes(TOY.read_bytes() + b"1")
    with serve_page() as page, PageClient(page.address) as visitor:
        sent = Path(visitor.upload(other))
        page.sessions.remove_expired()
        assert sent.exists()
        monkeypatch.setattr(sessions, "UPLOAD_SECONDS", -1)
        page.sessions.remove_expired()
        assert not sent.parent.exists()
        monkeypatch.setattr(sessions, "MAX_CACHE_BYTES", 1000)
        with other.open("rb") as file:
            answer = visitor.http.post("/gradio_api/upload", files={"files": ("a.png", file)})
        assert answer.status_code == 503
        assert "storage is full" in answer.text


def test_nothing_is_loaded_from_other_servers():
    with serve_page() as page, PageClient(page.address) as visitor:
        answer = visitor.http.get("/")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert not re.search(r"https?:", policy)
        loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', answer.text)
        assert loaded
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)]
        theme = visitor.http.get("/theme.css").text
        assert not re.search(r"url\(['\"]?https?:|@import", theme)


def test_idle_sessions_are_closed(monkeypatch):
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


def test_mask_clicks_change_the_input():
    with serve_page() as page, PageClient(page.address) as visitor:
        visitor.open_image(TOY)
        editor = page.sessions.find(visitor.session).editor
        before = int((editor.alpha >= 128).sum())
        answer = visitor.join(
            "mask", "select", ["Erase", 30, False], event_data={"index": [128, 128], "value": None}
        )
        answer.raise_for_status()
        list(visitor.messages())
        assert int((editor.alpha >= 128).sum()) < before
        visitor.do("reset", "click", [])
        assert int((editor.alpha >= 128).sum()) == before
