"""Give the server many jobs, kill it meanwhile at random moments, and watch its memory.

    python -m tests.fuzz.page --jobs 100
    python -m tests.fuzz.page --jobs 8 --kills 6
    python -m tests.fuzz.page --jobs 10 --requests 1000

The server is the real one; a stand-in generates the views and reconstructs. After a kill it is
started again in the same folder. Every job must end, and with the results of the same job on a
server that is not killed. The exit status is 1 if one does not, or if the memory grows by more
than 64 MiB from the tenth job to the last. Damaged requests must be accepted or refused, and the
server must go on.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from common.cli import HelpFormatter, run_script
from tests.conftest import ROOT
from tests.webapp.api_client import submit, wait
from tests.webapp.test_api_access import random_body
from webapp.server import listen

MOST_GROWTH = 64
"""MiB."""


class Server:
    """A server in a process of its own, with the jobs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        with listen("127.0.0.1", 0) as bound:
            self.port = bound.getsockname()[1]
        self.start()

    def start(self) -> None:
        flags = ["--api", "--port", self.port, "--jobs", self.folder / "jobs", "--device", "cpu"]
        command = [sys.executable, "-m", "tests.webapp.serve", self.folder / "strips.txt", *flags]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen([*map(str, command)], cwd=ROOT, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client, once the server answers."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60) as http:
            while True:
                with suppress(httpx.TransportError):
                    if http.get("/readyz").status_code == 200:
                        break
                if self.process.poll() is not None:
                    raise RuntimeError(f"the server ended, see {self.folder}/log.txt")
                time.sleep(0.05)
            yield http

    def memory(self) -> float:
        """Resident memory in MiB (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def results(http: httpx.Client, job: str) -> str:
    """State and checksum of the results of a job, when it has ended."""
    ended = wait(http, job)
    digest = hashlib.sha256()
    for name in ("best.png", "mesh.ply"):
        if path := ended["results"].get(name):
            digest.update(http.get(path).content)
    return f"{ended['state']} {digest.hexdigest()[:16]}"


def jobs_of(server: Server, count: int) -> tuple[list[str], list[float]]:
    """Results of jobs that are given one after another, and the memory after each."""
    found, memory = [], []
    with server.client() as http:
        for seed in range(count):
            found.append(results(http, submit(http, samples=1 + seed % 2, seed=seed)))
            memory.append(server.memory())
            if seed % 10 == 9:
                print(f"{seed + 1} jobs: {memory[-1]:.0f} MiB", flush=True)
    return found, memory


def killed_jobs(server: Server, count: int, kills: int, draw: random.Random) -> list[str]:
    """Results of jobs that are given in groups of four, with kills of the server meanwhile."""
    found: list[str] = []
    left = kills
    for first in range(0, count, 4):
        seeds = range(first, min(first + 4, count))
        with server.client() as http:
            given = [submit(http, samples=1 + seed % 2, seed=seed) for seed in seeds]
        for _ in range(min(left, -(-4 * kills // count))):
            time.sleep(draw.uniform(0, 2))
            server.kill()
            left -= 1
            server.start()
            with server.client():
                pass
        with server.client() as http:
            found += [results(http, job) for job in given]
    return found


def damaged_requests(server: Server, count: int, draw: random.Random) -> int:
    """Send damaged requests; print how many got which status, return the wrong ones."""
    statuses: Counter[int] = Counter()
    with server.client() as http:
        for _ in range(count):
            body, headers = random_body(draw)
            answer = http.post("/v1/jobs", content=body, headers=headers)
            statuses[answer.status_code] += 1
            if answer.status_code == 202:
                http.delete(answer.headers["location"])
    print(f"damaged requests: {dict(statuses)}, {server.memory():.0f} MiB after them", flush=True)
    return sum(count for status, count in statuses.items() if status not in (202, 400, 422))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.fuzz.page", None, __doc__)
    parser.formatter_class = HelpFormatter
    add = parser.add_argument
    add("--jobs", type=int, default=100, help="number of jobs")
    add("--kills", type=int, default=0, help="of the server")
    add("--requests", type=int, default=0, help="damaged ones, before the jobs")
    add("--seed", type=int, default=0, help="of the moments")
    add("--output", type=Path, default=Path("output/page"), help="a new folder")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
    server = Server(args.output.absolute() / "whole")
    try:
        wrong = damaged_requests(server, args.requests, random.Random(args.seed))
        expected, memory = jobs_of(server, args.jobs)
    finally:
        server.kill()
    growth = memory[-1] - memory[min(9, len(memory) - 1)]
    print(f"memory from the tenth job to the last: {growth:+.0f} MiB")
    wrong += sum(not result.startswith("done") for result in expected)
    if args.kills:
        server = Server(args.output.absolute() / "killed")
        try:
            found = killed_jobs(server, args.jobs, args.kills, random.Random(args.seed))
        finally:
            server.kill()
        wrong += sum(one != other for one, other in zip(found, expected, strict=True))
    print(f"{args.jobs} jobs, {args.kills} kills, {wrong} results or answers wrong")
    sys.exit(wrong > 0 or growth > MOST_GROWTH)


if __name__ == "__main__":
    run_script(main)
