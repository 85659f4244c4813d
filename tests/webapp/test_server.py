"""The page behind its own protocol: limits, queue, isolation, ends. No browser is needed."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the web page's packages are not installed")

from pipeline.paths import EXPORTED
from renderer.reconstruction import Outcome
from tests.conftest import ROOT
from tests.webapp.stand_in import served
from tests.webapp.visitor import Visitor, said
from webapp import sessions as visits_module

TOY = ROOT / "testset" / "locomotive.png"


@pytest.fixture
def quick_meshes(monkeypatch):
    """In place of the reconstruction: files of its names."""

    def reconstruct(image, folder, config, options):
        folder.mkdir(exist_ok=True)
        for share in (0.0, 0.5, 1.0):
            options.tell("training", share)
        for name in EXPORTED:
            (folder / name).write_bytes(b"glTF" + image.read_bytes()[:64])
        (folder / "metrics.json").write_text("{}")
        return Outcome({}, None)

    monkeypatch.setattr("pipeline.image_to_3d.reconstruct", reconstruct)


def until(true: Callable[[], object], seconds: float = 20) -> float:
    """Wait for something; returns how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def served_paths(messages: list[dict]) -> set[str]:
    return set(re.findall(r'"path": "([^"]+)"', said(messages)))


def test_a_picture_becomes_a_mesh_and_everything_is_gone_when_the_page_is_closed(monkeypatch):
    monkeypatch.setattr("renderer.reconstruction.FRAMES", 4)
    with served(0.1) as page:
        with Visitor(page.address) as visitor:
            messages = visitor.open_picture(TOY)
            made = visitor.make(samples=2)
            text = said(made)
            for words in ("Drawing sample 1 of 2: step 2 of 4", "Drawing sample 2 of 2: step 3",
                          "Building the mesh", "Done.", "sd-view"):  # fmt: skip
                assert words in text, words
            paths = served_paths(made)
            ends = {Path(path).suffix for path in paths}
            assert ends >= {".glb", ".ply", ".mp4", ".png"}
            glb = next(path for path in paths if path.endswith(".glb"))
            answer = visitor.http.get(f"/gradio_api/file={glb}")
            assert answer.content[:4] == b"glTF"
            root = page.visits.root
            assert any(root.iterdir())
            mask = {path for path in served_paths(messages) if path.endswith(".webp")}
            assert all(Path(path).exists() for path in paths | mask)
        until(lambda: len(page.visits) == 0)
        until(lambda: not any(root.iterdir()))
        until(lambda: not any(Path(path).exists() for path in paths | mask))
        assert visitor_gets(page.address, glb) == 403
    assert not root.parent.exists()


def visitor_gets(address: str, path: str) -> int:
    with Visitor(address) as other:
        return other.http.get(f"/gradio_api/file={path}").status_code


def test_what_was_sent_is_removed_after_ten_minutes_but_not_while_others_may_need_it():
    def copies() -> list[Path]:
        return [path for path in page.visits.cache.rglob("*.png") if path.name == TOY.name]

    with served() as page, Visitor(page.address) as visitor:
        visitor.open_picture(TOY)
        page.visits.sweep()
        assert len(copies()) == 1  # gradio has one copy of equal files
        old = time.time() - visits_module.UPLOAD_SECONDS - 1
        for path in page.visits.cache.rglob("*"):
            if path.is_file():
                os.utime(path, (old, old))
        page.visits.sweep()
        assert copies() == []
        assert not list(page.visits.cache.glob("tmp*"))
        examples = [path.name for path in page.visits.cache.rglob("*.png")]
        assert sorted(examples) == ["car.png", "cup.png"]
        visitor.open_picture(TOY)
        assert len(copies()) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"hello", "not a picture"),
        ("fake.png", b"hello", "not a picture"),
        ("empty.png", b"", "not a picture"),
        ("cut.png", TOY.read_bytes()[:9000], "damaged or cut off"),
        (
            "program.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
            "not a picture",
        ),
    ],
)
def test_what_is_no_picture_is_refused_with_a_clear_message(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    with served() as page, Visitor(page.address) as visitor:
        text = said(visitor.open_picture(file))
        assert message in text or (file.suffix in (".txt", ".svg") and "Invalid file type" in text)
        assert str(page.visits.root) not in text
        assert "Traceback" not in text
        assert "Send a picture first" in said(visitor.make())
        assert page.drawer.steps == []


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    bomb = tmp_path / "bomb.png"
    Image.new("1", (9000, 9000)).save(bomb)
    assert bomb.stat().st_size < 100_000
    with served() as page, Visitor(page.address) as visitor:
        assert "too many pixels" in said(visitor.open_picture(bomb))


def test_a_file_that_is_too_large_is_not_taken(tmp_path, quick_meshes):
    large = tmp_path / "large.png"
    large.write_bytes(np.random.default_rng(0).bytes(30 * 10**6))
    with served() as page, Visitor(page.address) as visitor:
        with large.open("rb") as file:
            answer = visitor.http.post("/gradio_api/upload", files={"files": (large.name, file)})
        assert answer.status_code == 413
        kept = sum(p.stat().st_size for p in page.visits.cache.rglob("*.png") if p.is_file())
        assert kept < 10**6
        visitor.open_picture(TOY)  # the next one is taken
        assert "Done." in said(visitor.make())


def test_a_closed_page_ends_its_job_at_the_next_step_and_the_next_visitor_is_served(quick_meshes):
    step = 0.2
    with served(step) as page:
        with Visitor(page.address) as first:
            first.open_picture(TOY)
            first.join("go", "click", [False, 20, 3, 1]).raise_for_status()
            for message in first.messages():
                if "step 2 of 4" in said([message]):
                    break
            closed = time.monotonic()
        until(lambda: page.drawer.at_once == 0)
        assert page.drawer.steps[-1] - closed < 3
        assert len(page.drawer.steps) < 12
        with Visitor(page.address) as second:
            second.open_picture(TOY)
            assert "Done." in said(second.make())


def test_ten_visitors_at_once_are_all_served_one_at_a_time(quick_meshes):
    ended: list[str] = []
    waited: list[int] = []

    def visit(address: str) -> None:
        with Visitor(address) as visitor:
            visitor.open_picture(TOY)
            messages = visitor.make()
            waited.extend(m["rank"] for m in messages if m["msg"] == "estimation")
            ended.append(said(messages))

    with served(0.02) as page:
        threads = [threading.Thread(target=visit, args=[page.address]) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(280)
        assert len(ended) == 10
        assert all("Done." in text for text in ended)
        assert page.drawer.most_at_once == 1
        assert max(waited) >= 5  # they were told their place in the queue


def test_who_comes_when_the_queue_is_full_is_told_so(quick_meshes):
    with served(0.3, max_queue=1) as page, Visitor(page.address) as first:
        first.open_picture(TOY)
        others = [Visitor(page.address) for _ in range(3)]
        for other in others:
            other.open_picture(TOY)
        first.join("go", "click", [False, 20, 1, 1]).raise_for_status()
        until(lambda: page.drawer.at_once == 1)
        answers = [other.join("go", "click", [False, 20, 1, 1]) for other in others]
        assert [answer.status_code for answer in answers] == [200, 503, 503]
        assert "full" in answers[1].text


def test_a_second_click_does_not_begin_a_second_job(quick_meshes):
    with served(0.05) as page, Visitor(page.address) as visitor:
        visitor.open_picture(TOY)
        for _ in range(2):
            visitor.join("go", "click", [False, 20, 1, 1]).raise_for_status()
        assert "Done." in said(list(visitor.messages()))
        assert page.drawer.most_at_once == 1
        assert len(page.drawer.steps) == 4  # the second found the views there already


def test_no_visitor_can_fetch_files_that_are_not_theirs_or_not_the_pages(quick_meshes):
    with served() as page, Visitor(page.address) as owner, Visitor(page.address) as other:
        owner.open_picture(TOY)
        owner.make()
        private = [path for path in page.visits.root.rglob("*") if path.is_file()]
        assert len(private) > 10
        folders = [page.visits.root, page.visits.cache]
        folders += [path for path in page.visits.cache.iterdir() if path.is_dir()]
        foreign = [
            ROOT / "app.py",
            ROOT / "README.md",
            Path("/etc/passwd"),
            page.visits.root.parent,
        ]
        climbing = page.visits.cache / ".." / "visits" / private[0].relative_to(page.visits.root)
        for path in [*private, *folders, *foreign, climbing]:
            answer = other.http.get(f"/gradio_api/file={path}")
            assert answer.status_code in (403, 404), path
        assert other.http.get("/gradio_api/file=http://127.0.0.1:1/x").status_code == 403
        assert other.http.get("/gradio_api/file=HTTPS://example.org/x").status_code == 403
        # neither can another's file be given to the page as one's own upload
        pictures = [path for path in private if path.suffix == ".png"]
        for path in [*pictures[:3], TOY]:
            file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
            other.do("upload", "upload", [file])
            assert page.visits.find(other.session) is None, path
        assert page.visits.root.stat().st_mode & 0o077 == 0 or (
            page.visits.root.parent.stat().st_mode & 0o077 == 0
        )


def test_functions_are_called_by_the_queue_only_and_addresses_are_not_fetched():
    with served() as page, Visitor(page.address) as visitor:
        number = visitor.number("go", "click")
        for route in ("run/make", "api/make", "call/make"):
            answer = visitor.http.post(
                f"/gradio_api/{route}",
                json={"data": [False, 20, 1, 1], "fn_index": number, "session_hash": "a"},
            )
            assert answer.status_code == 403, route
        click = {"data": [], "fn_index": visitor.number("undo", "click"), "session_hash": "a"}
        assert visitor.http.post("/gradio_api/run/predict", json=click).status_code == 200
        file = {"path": "http://example.org/x.png", "meta": {"_type": "gradio.FileData"}}
        assert visitor.join("upload", "upload", [file]).status_code == 403
        answer = visitor.http.post(
            "/gradio_api/upload", files={"files": ("a.png", b"x")},
            headers={"sec-fetch-site": "cross-site"},
        )  # fmt: skip
        assert answer.status_code == 403
        assert not list(page.visits.cache.rglob("a.png"))


def test_what_was_sent_and_never_opened_is_removed_too(tmp_path, monkeypatch):
    other = tmp_path / "never_opened.png"
    other.write_bytes(TOY.read_bytes() + b"1")
    with served() as page, Visitor(page.address) as visitor:
        sent = Path(visitor.send(other))
        page.visits.sweep()
        assert sent.exists()
        monkeypatch.setattr(visits_module, "UPLOAD_SECONDS", -1)
        page.visits.sweep()
        assert not sent.parent.exists()
        monkeypatch.setattr(visits_module, "MAX_CACHE", 1000)
        with other.open("rb") as file:
            answer = visitor.http.post("/gradio_api/upload", files={"files": ("a.png", file)})
        assert answer.status_code == 503
        assert "no room" in answer.text


def test_nothing_is_loaded_from_other_servers():
    with served() as page, Visitor(page.address) as visitor:
        answer = visitor.http.get("/")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert not re.search(r"https?:", policy)
        loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', answer.text)
        assert loaded
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)]
        theme = visitor.http.get("/theme.css").text
        assert not re.search(r"url\(['\"]?https?:|@import", theme)


def test_idle_visitors_are_forgotten(monkeypatch):
    with served() as page:
        visitor = Visitor(page.address)  # its heart does not beat: the server hears of no end
        visitor.open_picture(TOY)
        assert len(page.visits) == 1
        page.visits.sweep()
        assert len(page.visits) == 1
        page.visits.find(visitor.session).touched -= visits_module.KEEP_SECONDS + 1
        page.visits.sweep()
        assert len(page.visits) == 0
        assert not any(page.visits.root.iterdir())
        assert "Send a picture first" in said(visitor.make())


def test_mask_clicks_change_what_is_drawn_from():
    with served() as page, Visitor(page.address) as visitor:
        visitor.open_picture(TOY)
        editor = page.visits.find(visitor.session).editor
        before = int((editor.alpha >= 128).sum())
        answer = visitor.join(
            "mask", "select", ["Erase", 30, False], event_data={"index": [128, 128], "value": None}
        )
        answer.raise_for_status()
        list(visitor.messages())
        assert int((editor.alpha >= 128).sum()) < before
        visitor.do("reset", "click", [])
        assert int((editor.alpha >= 128).sum()) == before
