"""Jobs of the HTTP interface: a folder each, so that a restarted server goes on with them."""

from __future__ import annotations

import logging
import secrets
import shutil
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from common.files import check_free_space, file_lock
from common.records import make_writable, read_json, write_json
from multiview.image_file import read_image
from multiview.matting import save_rgba
from pipeline.paths import OBJECT
from renderer.formats.options import ExportOptions
from webapp.job import QUEUE, Job, JobQueue, Progress, ProgressCallback, Stopped
from webapp.mask_editor import UserError
from webapp.service import FAILED, Service
from webapp.sessions import JOB_END_SECONDS, Session, cleanup_thread

log = logging.getLogger(__name__)

RECORD = "job.json"
"""In a job's folder: its `JobRecord`. Without this file a folder is no job."""
KEEP_SECONDS = 24 * 3600.0
"""Jobs are deleted so long after their end."""
MAX_STARTS = 3
"""A job during which the server ended so often has failed: it may be what ends the server."""
MIN_FREE_BYTES = 2**30
"""With less space on the disk, no jobs are accepted."""
RECENT = 20
"""So many complete jobs say how long one takes."""

State = Literal["queued", "running", "done", "failed"]


class QueueFullError(Exception):
    """No further job can wait; `retry_after` is when it is worth to try again, seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full; try again later")
        self.retry_after = retry_after


@dataclass
class JobRecord:
    """What is kept of a job in `RECORD`.

    Attributes:
        settings: as given, those of `webapp.api.settings_model`.
        created, ended: Unix time, seconds.
        state: "queued" until the job has ended: an interrupted one is started again.
        error: why it failed, or has no file of a format.
        results: names of the results -> names of their files in the job's folder.
        seconds: that the last run took.
        starts: runs so far.
    """

    settings: dict[str, Any]
    created: float
    state: State = "queued"
    error: str = ""
    results: dict[str, str] = field(default_factory=dict)
    ended: float | None = None
    seconds: float = 0.0
    starts: int = 0


@dataclass
class StoredJob:
    """A job: its name, its record, and its folder and thread as those of a page's session."""

    name: str
    record: JobRecord
    session: Session

    @property
    def state(self) -> State:
        """The record's state, or "running"."""
        job = self.session.job
        running = self.record.state == "queued" and job is not None and job.running
        return "running" if running else self.record.state

    def result(self, name: str) -> Path | None:
        """The file of a result; `name` is looked up and never a part of a path."""
        file = self.record.results.get(name)
        return None if file is None else self.session.folder / file


class JobStore:
    """All jobs by name, in a folder that only this process writes to.

    `max_waiting` jobs wait at most, beside the running one.
    """

    def __init__(
        self, root: Path, service: Service, max_waiting: int, queue: JobQueue = QUEUE
    ) -> None:
        self.root, self.service, self.max_waiting, self._queue = root, service, max_waiting, queue
        self._jobs: dict[str, StoredJob] = {}
        self._lock = threading.Lock()
        self.ended: Counter[State] = Counter()
        """Jobs that ended while this process ran, by their state."""
        self.seconds = 0.0
        """That those which were complete took together."""
        self.refused = 0
        """Jobs for which the queue was too full."""

    def load(self) -> None:
        """Read all jobs and start the unfinished ones again, in order; removes half-made ones."""
        for folder in self.root.glob("job-" + 32 * "[0-9a-f]"):
            path = folder / RECORD
            if not path.exists():  # killed before the job was accepted, or while it was deleted
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                self._add(folder, JobRecord(**read_json(path)))
            except TypeError:
                log.warning("%s: is damaged; this job is left out", path)
        for stored in sorted(self._jobs.values(), key=lambda each: each.record.created):
            if stored.record.state == "queued":
                log.info("%s: goes on", stored.name)
                self._start(stored)

    def _add(self, folder: Path, record: JobRecord) -> StoredJob:
        stored = StoredJob(folder.name, record, Session(folder, tag="result"))
        self._jobs[folder.name] = stored
        return stored

    def find(self, name: str) -> StoredJob | None:
        """The job of a name, if it exists."""
        return self._jobs.get(name)

    def count(self) -> Counter[State]:
        """Numbers of jobs by state."""
        return Counter(stored.state for stored in list(self._jobs.values()))

    def has_room(self) -> bool:
        """Whether the disk has `MIN_FREE_BYTES` left."""
        try:
            check_free_space(self.root, MIN_FREE_BYTES)
        except OSError as error:
            log.warning("%s", error)
            return False
        return True

    def create(self, image: BinaryIO, settings: dict[str, Any]) -> StoredJob:
        """Accept a job: once this returns it is not lost, even if the server is killed.

        Raises:
            UserError: the image cannot be used, or no object is found in it.
            QueueFullError: too many jobs wait.
        """
        self._check_queue()  # before the image is decoded
        folder = self.root / f"job-{secrets.token_hex(16)}"
        folder.mkdir(mode=0o700)
        try:
            self._save_object(folder, image)
            with self._lock:
                self._check_queue()
                record = JobRecord(settings, time.time())
                write_json(folder / RECORD, asdict(record))
                stored = self._add(folder, record)
                self._start(stored)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return stored

    def _check_queue(self) -> None:
        counts = self.count()
        if counts["queued"] + counts["running"] > self.max_waiting:
            self.refused += 1
            left = self._sum_seconds(self._queue.ahead(None)[:1])
            raise QueueFullError(round(min(max(10.0 if left is None else left, 1.0), 3600.0)))

    def _save_object(self, folder: Path, image: BinaryIO) -> None:
        upload = folder / "upload"
        with upload.open("wb") as file:
            shutil.copyfileobj(image, file)
        editor = self.service.open_image(Session(folder, tag=""), upload)
        upload.unlink()
        save_rgba(folder / OBJECT, editor.result())

    def seconds_left(self, stored: StoredJob) -> float | None:
        """Estimate of the time until a job's end, seconds; None if it cannot be made."""
        job = stored.session.job
        if job is None or stored.record.state != "queued":
            return None
        return self._sum_seconds([*self._queue.ahead(job), job])

    def place(self, stored: StoredJob) -> int:
        """Number of jobs before this one, the page's too."""
        return len(self._queue.ahead(stored.session.job)) if stored.state == "queued" else 0

    def _sum_seconds(self, jobs: list[Job]) -> float | None:
        done = [each.record for each in list(self._jobs.values()) if each.record.state == "done"]
        recent = sorted((each.ended or 0.0, each.seconds) for each in done)[-RECENT:]
        typical = statistics.median(seconds for _, seconds in recent) if recent else None
        total = 0.0
        for job in jobs:
            left = job.seconds_left(typical)
            if left is None:
                return None
            total += left
        return total

    def delete(self, name: str) -> None:
        """Stop a job, if it exists, and remove its files when its current step is complete."""
        with self._lock:
            stored = self._jobs.pop(name, None)
            if stored is None:
                return
            folder = stored.session.folder
            (folder / RECORD).unlink(missing_ok=True)  # first: it must not be started again
        remove = partial(shutil.rmtree, folder, ignore_errors=True)
        if stored.session.job is None:
            remove()
        else:
            stored.session.job.stop(on_finished=remove)

    def remove_expired(self) -> None:
        """Delete the jobs that ended `KEEP_SECONDS` ago."""
        latest = time.time() - KEEP_SECONDS
        for stored in list(self._jobs.values()):
            if stored.record.ended is not None and stored.record.ended < latest:
                self.delete(stored.name)

    def close_all(self) -> None:
        """Stop all jobs, up to `JOB_END_SECONDS` for each; the next server goes on with them."""
        jobs = [each.session.job for each in self._jobs.values() if each.session.job is not None]
        for job in jobs:
            job.stop()
        for job in jobs:
            job.wait(JOB_END_SECONDS)

    def _start(self, stored: StoredJob) -> None:
        stored.session.job = Job(partial(self._work, stored), self._queue).start()

    def _work(self, stored: StoredJob, on_progress: ProgressCallback) -> None:
        record, begun = stored.record, time.monotonic()
        record.starts += 1
        self._save(stored)
        state: State = "failed"
        try:
            if record.starts > MAX_STARTS:
                raise UserError(f"The server ended {MAX_STARTS} times during this job.")
            record.results = self._make(stored, on_progress)
            state = "done"
        except Stopped:
            record.starts -= 1  # in good order
            self._save(stored)
            raise
        except UserError as error:
            record.error = str(error)
        except Exception:
            log.exception("%s failed", stored.name)
            record.error = FAILED
        record.ended, record.seconds = time.time(), round(time.monotonic() - begun, 2)
        record.state = state  # last: others read it
        self._save(stored)
        self.ended[state] += 1
        self.seconds += record.seconds if state == "done" else 0.0
        for folder in stored.session.folder.iterdir():
            if folder.is_dir():  # the steps' own files
                shutil.rmtree(folder, ignore_errors=True)

    def _make(self, stored: StoredJob, on_progress: ProgressCallback) -> dict[str, str]:
        session, service = stored.session, self.service
        given = stored.record.settings
        auto = given["elevation"] == "auto"
        degrees = 0 if auto else given["elevation"]
        wanted = service.request(auto, degrees, given["samples"], given["seed"])
        service.generate_views(session, read_image(session.folder / OBJECT), wanted, on_progress)
        service.build_mesh(session, service.samples(session)[0], wanted, on_progress)
        for name in ExportOptions(tuple(given["formats"])).more:
            on_progress(Progress(1.0, f"Converting the mesh to {name}"))
            try:
                service.convert(session, name, given["size_mm"], given["flat_base"])
            except UserError as error:  # the mesh is kept
                stored.record.error += f"{name}: {error} "
        return {name: path.name for name, path in session.files.items()}

    def _save(self, stored: StoredJob) -> None:
        with self._lock:
            if stored.name in self._jobs:  # else it was deleted
                write_json(stored.session.folder / RECORD, asdict(stored.record))


@contextmanager
def open_jobs(root: Path, service: Service, max_waiting: int) -> Iterator[JobStore]:
    """The jobs of a folder, for as long as no other server has it; expired ones are removed.

    Raises:
        OSError: another server has it, or nothing can be written there.
    """
    make_writable(root, root)
    with file_lock(root, wait=False):
        jobs = JobStore(root, service, max_waiting)
        jobs.load()
        with cleanup_thread(jobs):
            yield jobs
