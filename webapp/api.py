"""The HTTP interface: routes, their documents, metrics; the jobs are in `webapp.job_store`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import Depends, FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from common.html import load_template
from pipeline.config import PipelineConfig
from renderer.formats.options import ALWAYS, FORMATS, SIZE_MM, SIZES_MM
from webapp.job import POLL_SECONDS
from webapp.job_store import JobStore, QueueFullError, State, StoredJob
from webapp.mask_editor import UserError
from webapp.middleware import JOBS_ROUTE, OPEN_ROUTES, STORAGE_FULL
from webapp.service import ELEVATIONS, SEEDS
from webapp.ui import UPLOADS_AT_ONCE

PAGE = Path(__file__).parent / "api.html.j2"
DESCRIPTION = "One image of an object becomes 16 views of it and a mesh."


class Message(BaseModel):
    """Why a request was refused."""

    detail: str


class JobStatus(BaseModel):
    """A job: its state, what it does, how far it is, and where its results are."""

    id: str
    state: State
    step: str = Field(description="current activity, as the page shows it")
    progress: float = Field(ge=0, le=1)
    place: int = Field(description="jobs before this one")
    seconds_left: int | None = Field(description="estimate; null if none can be made yet")
    created: float = Field(description="Unix time, seconds")
    settings: dict[str, Any]
    error: str = Field(description="why it failed, or has no file of a format")
    results: dict[str, str] = Field(description="name of each file -> its path on this server")


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


REFUSALS = {
    401: "a token is needed: Authorization: Bearer <token>",
    404: "there is no such job or result",
    413: "the image file is too large",
    422: "the image or the settings cannot be used",
    429: "the queue is full; Retry-After has the seconds to wait",
    503: "the storage is full",
}
"""Status of a refusal -> what it means."""


def settings_model(config: PipelineConfig) -> type[BaseModel]:
    """The settings of a job: those that the page offers, within its limits."""
    (low, high), most, (first, last) = ELEVATIONS, config.num_samples, SEEDS
    degrees = Literal["auto"] | Annotated[float, Field(ge=low, le=high)]
    view = f"of the camera, {low:g} to {high:g} degrees, or auto: estimated from drafts"
    best = f"1 to {most}, of which the best becomes the mesh"
    number = f"of the first sample, {first} to {last}"
    names, (small, large) = "|".join(FORMATS), SIZES_MM
    formats = list[Annotated[str, Field(pattern=f"^({names})$")]]
    more = f"of the mesh, in a list: {', '.join(FORMATS)}; {' and '.join(ALWAYS)} are always made"
    edge = f"longest edge of prints, {small:,} to {large:,} mm"
    return create_model(
        "Settings",
        __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False),
        elevation=(degrees, Field(config.elevation, description=view)),
        samples=(int, Field(min(2, most), ge=1, le=most, description=best)),
        seed=(int, Field(config.seed, ge=first, le=last, description=number)),
        formats=(formats, Field([], max_length=len(FORMATS), description=more)),
        size_mm=(float, Field(SIZE_MM, ge=small, le=large, description=edge)),
        flat_base=(bool, Field(False, description="cut prints to a flat base")),
    )


async def refuse(_: Request, error: Exception) -> Response:
    """Answer a request that lacks a part; the default repeats the input, which may be bytes."""
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": explain(error)}, 422)


def explain(error: RequestValidationError | ValidationError) -> str:
    """One line that names the parts that are wrong, without their values."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}" for each in error.errors()
    )


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, without the errors that FastAPI adds: no path here has a wrong type."""
    document: dict[str, Any] = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            if operation["responses"].get("422", {}).get("description") == "Validation Error":
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


class Api:
    """The routes under /v1, the server's health and metrics, and the interface's documents.

    `secured`: the documents say that a bearer token is needed, which `webapp.middleware` checks.
    """

    def __init__(self, jobs: JobStore, secured: bool) -> None:
        self.jobs, self.secured = jobs, secured
        self.settings = settings_model(jobs.service.config)
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def application(self) -> FastAPI:
        """An application with these routes and no others."""
        app = FastAPI(
            title="SyncDreamer", version="1", description=DESCRIPTION,
            docs_url=None, redoc_url=None, openapi_url=None,
            dependencies=[Depends(HTTPBearer(auto_error=False))] if self.secured else [],
        )  # fmt: skip
        app.add_exception_handler(RequestValidationError, refuse)

        async def openapi() -> Response:
            """This interface as an OpenAPI document."""
            return JSONResponse(describe(app))

        async def docs() -> Response:
            """This interface as a page."""
            return HTMLResponse(load_template(PAGE).render(document=describe(app)))

        def add(path: str, endpoint: Callable[..., Any], *statuses: int, **more: Any) -> None:
            if self.secured and path not in OPEN_ROUTES:
                statuses = (401, *statuses)
            refusals = {
                code: {"model": Message, "description": REFUSALS[code]} for code in statuses
            }
            app.add_api_route(path, endpoint, responses=refusals, **more)

        one, accepted = JOBS_ROUTE + "/{job_id}", {"methods": ["POST"], "status_code": 202}
        add(JOBS_ROUTE, self._creator(), 413, 422, 429, 503, response_model=JobStatus, **accepted)
        add(one, self.status, 404, response_model=JobStatus)
        add(one, self.delete, 404, methods=["DELETE"], status_code=204)
        add(one + "/events", self.events, 404, response_class=EventStream)
        add(one + "/results/{name}", self.result, 404, response_class=FileResponse)
        for check in (self.healthz, self.readyz, self.metrics):
            add(f"/{check.__name__}", check, *([503] if check == self.readyz else []),
                response_class=PlainTextResponse)  # fmt: skip
        add("/openapi.json", openapi)
        add("/docs", docs, response_class=HTMLResponse)
        return app

    def _creator(self) -> Callable[..., Any]:
        schema = self.settings.model_json_schema()
        given = Form(
            "{}", description=f"JSON, such as {self.settings().model_dump_json()}",
            json_schema_extra={"contentMediaType": "application/json", "contentSchema": schema},
        )  # fmt: skip

        async def create(image: UploadFile, settings: str = given) -> Response:
            """Accept an image of an object, with its settings, for a job.

            The image is a file as the page takes them. A job that was accepted is done, even if the
            server is stopped and started again meanwhile.
            """
            try:
                wanted = self.settings.model_validate_json(settings).model_dump()
                async with self._uploads:
                    stored = await run_in_threadpool(self.jobs.create, image.file, wanted)
            except ValidationError as error:
                raise HTTPException(422, explain(error)) from error
            except UserError as error:
                raise HTTPException(422, str(error)) from error
            except QueueFullError as error:
                wait = {"retry-after": str(error.retry_after)}
                raise HTTPException(429, str(error), wait) from error
            where = {"location": f"{JOBS_ROUTE}/{stored.name}"}
            return JSONResponse(self._describe(stored).model_dump(), 202, where)

        return create

    def _find(self, job_id: str) -> StoredJob:
        stored = self.jobs.find(job_id)
        if stored is None:
            raise HTTPException(404, "there is no such job; it may have been deleted")
        return stored

    def _describe(self, stored: StoredJob) -> JobStatus:
        record, job, state = stored.record, stored.session.job, stored.state
        left = self.jobs.seconds_left(stored)
        latest = None if job is None or state in ("done", "failed") else job.latest
        return JobStatus(
            id=stored.name,
            state=state,
            step=latest.message if latest else "",
            progress=latest.fraction if latest else float(state == "done"),
            place=self.jobs.place(stored),
            seconds_left=None if left is None else round(left),
            created=record.created,
            settings=record.settings,
            error=record.error,
            results={name: f"{JOBS_ROUTE}/{stored.name}/results/{name}" for name in record.results},
        )

    async def status(self, job_id: str) -> JobStatus:
        """What a job does, how far it is, and where its results are."""
        return self._describe(self._find(job_id))

    async def delete(self, job_id: str) -> None:
        """Stop a job at its next step and delete all its files."""
        self._find(job_id)
        await run_in_threadpool(self.jobs.delete, job_id)

    async def events(self, job_id: str) -> Response:
        """Follow a job: its status as a server-sent event after every change, until its end.

        The job goes on when the client goes away. The event "deleted" says that it was deleted.
        """
        self._find(job_id)
        return EventStream(self._updates(job_id), headers={"x-accel-buffering": "no"})

    async def _updates(self, job_id: str) -> AsyncIterator[str]:
        sent = None
        while (stored := self.jobs.find(job_id)) is not None:
            status = self._describe(stored)
            text = status.model_dump_json()
            yield ":\n\n" if text == sent else f"data: {text}\n\n"  # a comment keeps it open
            if status.state in ("done", "failed"):
                return
            sent = text
            await asyncio.sleep(POLL_SECONDS)
        yield "event: deleted\ndata: {}\n\n"

    async def result(self, job_id: str, name: str) -> Response:
        """A file of a complete job, by the name that its status gives."""
        stored = self._find(job_id)
        path = stored.result(name)
        if path is None or not path.is_file():
            raise HTTPException(404, f"this job is {stored.state} and has no such result")
        return FileResponse(path, filename=name)

    async def healthz(self) -> str:
        """Whether the server runs."""
        return "ok"

    async def readyz(self) -> str:
        """Whether it takes jobs: the model is loaded, and there is space on the disk."""
        if not await run_in_threadpool(self.jobs.has_room):
            raise HTTPException(503, STORAGE_FULL)
        return "ok"

    async def metrics(self) -> Response:
        """Numbers of jobs and their time, in the text format of Prometheus."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Metric]:
        """The metrics, for `prometheus_client`."""
        jobs = self.jobs
        now = GaugeMetricFamily("syncdreamer_jobs", "Jobs kept, by state", labels=["state"])
        for state in get_args(State):
            now.add_metric([state], jobs.count()[state])
        yield now
        ended = CounterMetricFamily("syncdreamer_jobs_ended", "Jobs that ended", labels=["state"])
        for state in get_args(State)[2:]:
            ended.add_metric([state], jobs.ended[state])
        yield ended
        yield CounterMetricFamily(
            "syncdreamer_jobs_refused", "Jobs refused as the queue was full", jobs.refused
        )
        yield SummaryMetricFamily(
            "syncdreamer_job_seconds", "Time of complete jobs", jobs.ended["done"], jobs.seconds
        )
