"""The HTTP interface: who is served, which routes there are, and what damaged requests do."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the web page's packages are not installed")
pytest.importorskip("prometheus_client", reason="the web page's packages are not installed")

from prometheus_client.parser import text_string_to_metric_families

import app
from tests.webapp.api_client import post, small_toy, submit, wait
from tests.webapp.client import PageClient, as_text
from tests.webapp.serve import serve_page
from tests.webapp.test_middleware import request
from webapp.middleware import CHALLENGES, Access, HTTPError, check_access

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    jobs = tmp_path_factory.mktemp("api") / "jobs"
    with serve_page(max_queue=1000, interface={"jobs": jobs}) as page:
        yield page.address


@pytest.fixture
def http(address: str, quick_jobs: None) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def test_every_route_is_documented_and_no_other_answers(http):
    document = http.get("/openapi.json").json()
    paths = {path: set(operations) for path, operations in document["paths"].items()}
    assert set(paths) == {
        "/v1/jobs", "/v1/jobs/{job_id}", "/v1/jobs/{job_id}/events", "/healthz", "/readyz",
        "/v1/jobs/{job_id}/results/{name}", "/metrics", "/openapi.json", "/docs",
    }  # fmt: skip
    for path, methods in paths.items():
        shown = path.replace("{job_id}", "job-0").replace("{name}", "mesh.glb")
        for method in METHODS:
            answer = http.request(method, shown)
            found = answer.status_code != 403 or "not served here" not in answer.text
            if method != "HEAD":  # has no text
                assert found == (method.lower() in methods), (method, path, answer.text)
            assert answer.status_code < 500
    assert "ValidationError" not in json.dumps(document)
    text = http.get("/docs").text
    assert "1 to 3, of which the best becomes the mesh (default: 2)" in text
    for path in paths:
        assert path in text
    assert "http://" not in text.replace("http://127", "")
    for path in ("/v1", "/v1/", "/v1/jobs/", "/v1/jobs/job-0/", "/v1/jobs/job-0/results",
                 "/v1/jobs/job-0/results/a/b", "/redoc", "/docs/oauth2-redirect", "/v2/jobs",
                 "/gradio_api/call/generate", "/gradio_api/openapi.json",
                 "/monitoring", "/login", "/gradio_api/mcp/"):  # fmt: skip
        for method in ("GET", "POST", "DELETE"):
            assert http.request(method, path).status_code == 403, (method, path)


def test_without_the_flag_there_is_no_interface():
    with serve_page() as page, httpx.Client(base_url=page.address) as http:
        for path in ("/v1/jobs/job-0", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
            assert http.get(path).status_code == 403
        assert post(http).status_code == 403
        assert http.get("/gradio_api/info").json()["named_endpoints"] == {}


def test_requests_of_other_sites_are_refused(http):
    job = submit(http)
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"},
                    {"origin": "http://[evil"}, {"origin": "null"}):  # fmt: skip
        for method, path in (("POST", "/v1/jobs"), ("GET", job), ("DELETE", job), ("GET", "/docs")):
            answer = http.request(method, path, headers=headers)
            assert answer.status_code == 403
            assert "cross-site" in answer.json()["detail"]
    own = {"origin": str(http.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert http.get(job, headers=own).status_code == 200
    wait(http, job)


@pytest.mark.parametrize("host", ["evil.example:7860", "127.0.0.1.evil.example", "[::1", "", "a b"])
def test_a_name_that_is_not_this_servers_is_refused(http, host):
    for path in ("/", "/v1/jobs/job-0", "/config"):
        assert http.get(path, headers={"host": host}).status_code in (400, 403)


def test_names_and_addresses_of_this_server_are_served(http):
    for host in ("localhost:7860", "LOCALHOST", "127.0.0.1", "[::1]:80"):
        assert http.get("/healthz", headers={"host": host}).status_code == 200
    access = Access(names=("page.example.org",))
    check_access(request("GET", "/", host="Page.example.org"), access)
    check_access(request("GET", "/", host="evil.example"), Access())  # not at 127.0.0.1: any name
    with pytest.raises(HTTPError, match="--domain"):
        check_access(request("GET", "/", host="evil.example"), access)


def test_a_token_guards_everything_but_the_health(tmp_path, quick_jobs):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    interface = {"jobs": tmp_path / "jobs", "token": app.read_token(file)}
    with serve_page(interface=interface) as page, httpx.Client(base_url=page.address) as http:
        basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
        wrong = ({}, {"authorization": "Bearer"}, {"authorization": f"Bearer {TOKEN}x"},
                 {"authorization": TOKEN}, {"authorization": "Basic !"},
                 {"authorization": "Bearer \xff".encode("latin-1")})  # fmt: skip
        for path in ("/", "/config", "/metrics", "/docs", "/v1/jobs/job-0", "/assets/x"):
            for headers in wrong:
                answer = http.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers.get_list("www-authenticate") == [*CHALLENGES]
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
        assert http.get("/", headers={"authorization": f"Basic {basic}"}).status_code == 200
        http.headers["authorization"] = f"Bearer {TOKEN}"
        assert wait(http, submit(http))["state"] == "done"
        document = http.get("/openapi.json").json()
        operation = document["paths"]["/v1/jobs/{job_id}"]["get"]
        assert operation["security"] == [{"HTTPBearer": []}]
        assert set(operation["responses"]) == {"200", "401", "404"}


@pytest.mark.parametrize("text", ["", "short", "two words of some length", "ünicode-of-length-16"])
def test_a_token_that_is_no_token_is_refused(tmp_path, text):
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"token: expected one line, a token of at least 16"):
        app.read_token(file)


def test_metrics_are_those_that_prometheus_reads(http):
    wait(http, submit(http))
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["syncdreamer_jobs", "done"] >= 1
    assert samples["syncdreamer_jobs_ended_total", "done"] >= 1
    assert samples["syncdreamer_job_seconds_sum",] > 0
    assert samples["syncdreamer_jobs_refused_total",] == 0


def test_a_full_disk_is_not_ready_and_takes_no_uploads(http, monkeypatch):
    monkeypatch.setattr("webapp.job_store.MIN_FREE_BYTES", 2**62)
    assert http.get("/readyz").status_code == 503
    answer = post(http)
    assert answer.status_code == 503
    assert "storage is full" in answer.json()["detail"]


VALUES = (
    *(None, True, -1, 0, 1, 2.5, 1e308, 2**70, float("nan"), float("inf"), -11, 40),
    *("", "auto", "\ud800", "\0", "20", [], [[]], {}, {"a": 1}),
)


def random_settings(rng: random.Random) -> bytes:
    names = ("elevation", "samples", "seed", "other", "\udcff")
    settings: Any = {rng.choice(names): rng.choice(VALUES) for _ in range(rng.randrange(4))}
    if rng.random() < 0.2:
        settings = rng.choice(VALUES)
    text = bytearray(json.dumps(settings).encode())
    if rng.random() < 0.3:
        text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(rng.choice([text, text, text, b"[" * 10**5, rng.randbytes(50)]))


def random_image(rng: random.Random) -> bytes:
    content = bytearray(small_toy())
    for _ in range(rng.choice([0, 0, 1, 5, 50])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])


def random_body(rng: random.Random) -> tuple[bytes, dict[str, str]]:
    """A form, sometimes with parts missing, of other names, or with damaged bytes."""
    part = b'--x\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    named = rng.choice([b'; filename="a.png"'] * 6 + [b"", b'; filename="../../\xff\0"'])
    parts = [
        part % (rng.choice([b"image"] * 8 + [b"imag\xe9"]), named, random_image(rng)),
        part % (b"settings", rng.choice([b""] * 8 + [b'; filename="s"']), random_settings(rng)),
    ]
    body = bytearray(b"".join(rng.sample(parts, rng.choice([2, 2, 2, 2, 1]))) + b"--x--\r\n")
    if rng.random() < 0.2:
        start = rng.randrange(len(body))
        body[start : start + rng.randrange(60)] = rng.randbytes(rng.randrange(60))
    kinds = ["multipart/form-data; boundary=x"] * 9
    kinds += [
        "multipart/form-data",
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=",
    ]
    return bytes(body), {"content-type": rng.choice(kinds)}


@pytest.mark.integration
def test_200_damaged_requests_are_no_error_of_the_server(http):
    rng = random.Random(0)
    statuses: dict[int, int] = {}
    for case in range(200):
        body, headers = random_body(rng)
        answer = http.post("/v1/jobs", content=body, headers=headers)
        assert answer.status_code in (202, 400, 422), (case, answer.status_code, answer.text)
        assert answer.json().keys() >= ({"id"} if answer.status_code == 202 else {"detail"})
        if answer.status_code == 202:
            assert http.delete(answer.headers["location"]).status_code == 204
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    assert all(statuses[code] >= 5 for code in (202, 400, 422)), statuses
    for _ in range(100):
        name = "".join(rng.choice("aj-0./%\\{}\xe9?#;") for _ in range(rng.randrange(1, 20)))
        path = rng.choice(["/v1/jobs/{}", "/v1/jobs/job-0/results/{}", "/v1/{}", "/{}"])
        for method in ("GET", "DELETE"):
            assert http.request(method, path.format(name)).status_code < 500, name
    assert wait(http, submit(http))["state"] == "done"


FUNCTIONS = ("open_image", "generate", "build_mesh", "convert", "views", "stop")


@pytest.mark.integration
def test_the_page_works_beside_and_gradios_own_client_finds_its_functions(tmp_path, quick_jobs):
    gradio_client = pytest.importorskip("gradio_client")
    image = tmp_path / "toy.png"
    image.write_bytes(small_toy())
    with serve_page(interface={"jobs": tmp_path / "jobs"}) as page:
        with PageClient(page.address) as visitor:
            visitor.open_image(image)
            assert "Done." in as_text(visitor.generate())
        client = gradio_client.Client(page.address, verbose=False, download_files=tmp_path / "got")
        names = set(client.view_api(return_format="dict")["named_endpoints"])
        assert names == {f"/{name}" for name in FUNCTIONS}
        client.predict(gradio_client.handle_file(image), api_name="/open_image")
        results = client.predict(False, 20, 1, 3, api_name="/generate")
        client.close()
        files = [Path(path) for found in results if isinstance(found, list) for path in found]
        assert any(path.suffix == ".glb" and path.read_bytes()[:4] == b"glTF" for path in files)
