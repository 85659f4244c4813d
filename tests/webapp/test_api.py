"""The HTTP interface through a real client: jobs, queue, results, restarts; no browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

pytest.importorskip("gradio", reason="the web page's packages are not installed")
pytest.importorskip("prometheus_client", reason="the web page's packages are not installed")

import app
from common.records import read_json
from pipeline.cli_args import parse_flags
from pipeline.config import read_config
from renderer.output_dir import MESH_FILES, VIDEO_FILE
from tests.conftest import ROOT
from tests.fakes import small_config
from tests.webapp.api_client import TOY, events, post, submit, wait
from tests.webapp.serve import ServedPage, serve_page
from webapp import job_store
from webapp.job import JobQueue
from webapp.job_store import RECORD, JobStore, open_jobs
from webapp.server import listen
from webapp.service import FAILED

RESULTS = {*MESH_FILES, VIDEO_FILE, "best.png"}


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def page(jobs: Path, quick_jobs: None) -> Iterator[ServedPage]:
    with serve_page(0.02, interface={"jobs": jobs}) as served:
        yield served


@pytest.fixture
def http(page: ServedPage) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=page.address, timeout=60) as client:
        yield client


def test_an_image_becomes_results_by_name_and_a_delete_removes_all_files(http, jobs):
    given = {"elevation": 20.0, "samples": 2, "seed": 5}
    given |= {"formats": ["stl"], "size_mm": 60.0, "flat_base": False}
    job = submit(http, **given)
    status = wait(http, job)
    assert (status["state"], status["progress"], status["error"]) == ("done", 1.0, "")
    assert status["settings"] == given
    assert set(status["results"]) == RESULTS | {"mesh.stl", "mesh.print.json"}
    for name, path in status["results"].items():
        answer = http.get(path)
        assert answer.status_code == 200
        assert f'filename="{name}"' in answer.headers["content-disposition"]
    assert http.get(status["results"]["mesh.glb"]).content[:4] == b"glTF"
    print_report = http.get(status["results"]["mesh.print.json"]).json()
    assert max(print_report["size_mm"]) == pytest.approx(60)
    (folder,) = jobs.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert not [path for path in folder.iterdir() if path.is_dir()]  # the steps' files are gone
    climbing = ("%2e%2e", "%2e%2e%2fjob.json", "..%2f..%2fx", str(folder / "object.png"))
    for name in ("job.json", "object.png", "mesh.glb%00", *climbing):
        assert http.get(f"{job}/results/{name}").status_code in (403, 404), name
    assert http.delete(job).status_code == 204
    assert http.get(job).status_code == http.delete(job).status_code == 404
    assert not list(jobs.iterdir())


def test_events_follow_a_job_to_its_end_and_it_goes_on_without_its_client(http, page):
    page.view_generator.seconds = 0.3
    job = submit(http, samples=1)
    seen = list(events(http, job))
    assert [each["progress"] for each in seen] == sorted(each["progress"] for each in seen)
    assert seen[-1]["state"] == "done"
    assert any("Generating sample" in each["step"] for each in seen)
    assert list(events(http, job)) == seen[-1:]  # afterwards: the result at once
    left = submit(http, samples=1, seed=8)
    assert next(events(http, left))["state"] in ("queued", "running")  # and the client goes away
    assert wait(http, left)["state"] == "done"


@pytest.mark.integration
def test_twenty_at_once_are_all_done_one_at_a_time_in_order(http, page):
    with ThreadPoolExecutor(20) as pool:
        posted = list(pool.map(lambda seed: submit(http, samples=1, seed=seed), range(20)))
    statuses = [http.get(job).json() for job in posted]
    assert max(each["place"] for each in statuses) >= 10
    ended = [wait(http, job, 120) for job in posted]
    assert {each["state"] for each in ended} == {"done"}
    assert page.view_generator.max_running == 1
    assert sorted(seed for _, seed in page.view_generator.generated) == list(range(20))
    in_order = sorted(ended, key=lambda each: each["created"])
    assert [each["settings"]["seed"] for each in in_order] == [
        seed for _, seed in page.view_generator.generated
    ]


@pytest.mark.integration
def test_a_full_queue_is_429_with_the_time_to_wait_and_one_says_how_long_it_takes(jobs, quick_jobs):
    with (
        serve_page(0.3, max_queue=1, interface={"jobs": jobs}) as page,
        httpx.Client(base_url=page.address) as http,
    ):
        first, second = submit(http), submit(http, seed=2)
        answer = post(http)
        assert answer.status_code == 429
        assert "full" in answer.json()["detail"]
        assert 1 <= int(answer.headers["retry-after"]) <= 3600
        assert http.get(second).json()["place"] == 1
        assert len(list(jobs.iterdir())) == 2
        assert "syncdreamer_jobs_refused_total 1.0" in http.get("/metrics").text
        wait(http, first)
        lefts = [each["seconds_left"] for each in events(http, second)]
        assert lefts[-1] is None
        assert max(left for left in lefts if left is not None) > 0
        submit(http)


def test_a_delete_stops_a_job_at_its_next_step_and_the_next_one_runs(http, page, jobs):
    page.view_generator.seconds = 0.3
    first, second = submit(http, samples=3), submit(http, samples=1, seed=9)
    while not page.view_generator.running:
        time.sleep(0.01)
    stream = events(http, first)
    next(stream)
    begun = len(page.view_generator.steps)
    assert http.delete(first).status_code == 204
    assert list(stream)[-1] == {}  # the event "deleted"
    assert wait(http, second)["state"] == "done"
    assert len(page.view_generator.steps) <= begun + 1 + 4
    assert [path.name for path in jobs.iterdir()] == [Path(second).name]


def test_an_upload_that_breaks_off_leaves_nothing(http, page, jobs):
    request = http.build_request("POST", "/v1/jobs", files={"image": TOY.read_bytes()})
    body = request.read()
    with socket.create_connection((http.base_url.host, http.base_url.port)) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        connection.sendall(
            f"POST /v1/jobs HTTP/1.1\r\n{head}\r\n".encode() + body[: len(body) // 2]
        )
    time.sleep(0.3)
    assert not list(jobs.iterdir())
    assert http.get("/healthz").text == "ok"


def test_bad_images_and_settings_are_refused_with_one_clear_line(http, jobs):
    for settings, message in (
        ({"samples": 4}, "samples: Input should be less than or equal to 3"),
        ({"elevation": 60}, "less than or equal to 40"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"sample": 1}, "sample: Extra inputs are not permitted"),
        ({"formats": ["exe"]}, "formats.0: String should match pattern"),
        ({"size_mm": 0}, "size_mm: Input should be greater than or equal to 1"),
        ({"seed": "1"}, "seed: Input should be a valid integer"),
    ):
        answer = post(http, **settings)
        assert answer.status_code == 422
        assert message in answer.json()["detail"]
    for image, message in (
        (b"hello", "not an image that can be read"),
        (TOY.read_bytes()[:9000], "damaged or incomplete"),
        (b"", "the file is empty"),
    ):
        answer = post(http, image)
        assert answer.status_code == 422
        assert message in answer.json()["detail"]
        assert str(jobs) not in answer.text
    answer = http.post("/v1/jobs", data={"settings": "{}"})
    assert (answer.status_code, answer.json()) == (422, {"detail": "body.image: Field required"})
    answer = post(http, b"x" * (20 * 10**6 + 10**5))
    assert answer.status_code == 413
    assert "20 MB" in answer.json()["detail"]
    assert not list(jobs.iterdir())


def test_a_job_that_fails_says_why_and_is_not_tried_again(http, page, monkeypatch):
    def fail(*_: object) -> None:
        raise ValueError("no surface")

    monkeypatch.setattr("pipeline.image_to_3d.reconstruct", fail)
    status = wait(http, submit(http))
    assert status["state"] == "failed"
    assert "No mesh can be built" in status["error"]
    monkeypatch.setattr("webapp.job_store.read_image", fail)
    assert wait(http, submit(http))["error"] == FAILED
    assert 'syncdreamer_jobs_ended_total{state="failed"} 2.0' in http.get("/metrics").text


class Ended(BaseException):
    """The process ends."""


def test_a_job_that_ends_the_server_each_time_fails_and_others_go_on(jobs, monkeypatch):
    class Broken:
        config = None

        def request(self, *_: object) -> None:
            raise Ended

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    first, second, damaged, not_accepted = names = [f"job-{k:032x}" for k in range(4)]
    for name in (*names, "job-of-another-program"):
        (jobs / name).mkdir(parents=True)
    settings = {"elevation": 20.0, "samples": 1, "seed": 1}
    for name, created in ((first, 1.0), (second, 2.0)):
        (jobs / name / RECORD).write_text(json.dumps({"settings": settings, "created": created}))
    (jobs / damaged / RECORD).write_text("[]")
    for _ in range(job_store.MAX_STARTS + 1):
        store = JobStore(jobs, Broken(), 20, JobQueue())
        store.load()
        for name in (first, second):
            store.find(name).session.job.wait(5)
    records = [read_json(jobs / name / RECORD) for name in (first, second)]
    assert [each["state"] for each in records] == ["failed", "failed"]
    assert "ended 3 times during this job" in records[0]["error"]
    assert {path.name for path in jobs.iterdir()} == {*names, "job-of-another-program"} - {
        not_accepted
    }


def test_jobs_expire_a_day_after_their_end(http, page, jobs, monkeypatch):
    job = submit(http)
    wait(http, job)
    store = JobStore(jobs, None, 20)
    store.load()
    store.remove_expired()
    assert len(list(jobs.iterdir())) == 1
    monkeypatch.setattr(job_store, "KEEP_SECONDS", 0.0)
    store.remove_expired()
    assert not list(jobs.iterdir())


def test_a_second_server_does_not_take_the_same_jobs(page, jobs):
    with pytest.raises(OSError, match="another process is writing there"), open_jobs(jobs, None, 1):
        pass


@pytest.mark.integration
@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_a_server_killed_and_started_again_loses_nothing_and_does_nothing_twice(
    jobs, tmp_path, quick_jobs
):
    with listen("127.0.0.1", 0) as bound:
        port = str(bound.getsockname()[1])
    flags = ["--api", "--port", port, "--jobs", jobs, "--device", "cpu"]
    log = tmp_path / "log.txt"
    log.touch()
    script = [sys.executable, "-m", "tests.webapp.serve", log, *flags]
    server = subprocess.Popen(script, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            while not answers(http):
                assert server.poll() is None, server.stderr.read()
                time.sleep(0.1)
            wanted = ((1, 10), (2, 20), (1, 30))
            posted = [submit(http, samples=number, seed=seed) for number, seed in wanted]
            while "begin 20.0 21" not in log.read_text():  # the second sample of the second job
                time.sleep(0.01)
    finally:
        server.kill()
        server.communicate()
    complete = [line for line in log.read_text().splitlines() if line.startswith("end")]
    assert complete == ["end 20.0 10", "end 20.0 20"]
    with (
        serve_page(interface={"jobs": jobs}) as page,
        httpx.Client(base_url=page.address, timeout=60) as http,
    ):
        ended = [wait(http, job) for job in posted]
        assert {each["state"] for each in ended} == {"done"}
        assert page.view_generator.generated == [(20.0, 21), (20.0, 30)]
        again = wait(http, submit(http, samples=2, seed=20))
        for name in ("best.png", "mesh.ply"):
            one, other = (http.get(each["results"][name]) for each in (ended[1], again))
            assert one.status_code == 200
            assert one.content == other.content


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.integration
def test_the_small_model_makes_a_mesh_for_a_client(jobs, monkeypatch):
    monkeypatch.setattr("renderer.reconstruction.FRAMES", 4)
    flags = ["--cfg", "configs/demo.yaml", "--sample_steps", "2", "--device", "cpu"]
    config, view_generator = read_config(parse_flags(app.build_parser(), flags))
    config = replace(config, renderer=small_config().renderer)
    served = serve_page(interface={"jobs": jobs}, given=(view_generator, config))
    with served as page, httpx.Client(base_url=page.address, timeout=60) as http:
        status = wait(http, submit(http, elevation=20, samples=1), 120)
        assert status["state"] == "done", status
        assert http.get(status["results"]["mesh.glb"]).content[:4] == b"glTF"


def documented(language: str) -> list[str]:
    text = (ROOT / "docs" / "webapp.md").read_text(encoding="utf-8")
    section = text.split("## HTTP interface")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.S)


@pytest.mark.integration
def test_the_documented_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "testset", tmp_path / "testset")
    address = page.address.rstrip("/")
    (python,) = documented("python")
    exec(python.replace("http://127.0.0.1:7860", address), {})
    assert (tmp_path / "mesh.glb").read_bytes()[:4] == b"glTF"
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (_, shell) = documented("bash")
    lines = shell.replace("http://127.0.0.1:7860", address)
    done = subprocess.run(["bash", "-euc", lines], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "locomotive.glb").read_bytes()[:4] == b"glTF"
