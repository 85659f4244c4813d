"""The page: event handlers that connect its components (`webapp.layout`) to the service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from multiview.cameras import REFERENCE_IMAGE_SIZE
from pipeline.config import PipelineConfig
from renderer.output_dir import VIDEO_FILE
from webapp import html
from webapp.job import Job, ProgressCallback, Stopped
from webapp.layout import HIDDEN, KEEP, Layout
from webapp.mask_editor import MaskEditor, UserError
from webapp.service import FAILED, Sample, Service
from webapp.sessions import CLEANUP_SECONDS, IDLE_SECONDS, Session, SessionStore

log = logging.getLogger(__name__)

MODEL_QUEUE = "model"
"""Gradio's concurrency group of the events that need the model: one at a time."""
UPLOADS_AT_ONCE = 2
UNQUEUED: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of events that are fast enough to run without the queue."""
EXPIRED = "This page was idle for too long and its files were deleted. Upload the image again."
NO_IMAGE = "Upload an image first, or choose an example."
BUSY = "A job of this page is running already."
STOPPED = "Stopped. Completed samples are kept; press the button again to continue."
DONE = "Done. Inspect the mesh, or download the files."

Changes = dict[Any, Any]
"""Changes of the page: component -> new value, or `gr.update` of its properties."""


class UI:
    """The page, shared by all sessions; for `placeholder` see `webapp.layout.Layout`.

    `api`: what the buttons do has a name in the API of Gradio's clients.
    """

    def __init__(
        self,
        service: Service,
        sessions: SessionStore,
        examples: list[Path],
        placeholder: Path,
        max_queue: int,
        api: bool,
    ) -> None:
        self._api = api
        self.service, self.sessions, self.examples = service, sessions, examples
        ages = int(CLEANUP_SECONDS), int(IDLE_SECONDS)
        title = "One image to a 3D model"
        with gr.Blocks(title=title, analytics_enabled=False, delete_cache=ages) as self.blocks:
            self.layout = Layout(service.config, examples, placeholder)
            if service.view_generator.size < REFERENCE_IMAGE_SIZE:
                gr.HTML(html.SMALL_MODEL)
            self._connect_input()
            self._connect_generation()
            self.blocks.unload(self.on_unload)
        # Without `api_open`, Gradio calls only the UNQUEUED functions without the queue.
        self.blocks.queue(
            max_size=max_queue, default_concurrency_limit=UPLOADS_AT_ONCE, api_open=False
        )

    def _named(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """Options of an event that has a name in the API, if there is one."""
        public = {"api_name": name, "api_visibility": "public"}
        return {**options, **public} if self._api else options

    def _connect_input(self) -> None:
        page = self.layout
        opening = _queued(page.status, "uploads", UPLOADS_AT_ONCE)
        opened = [page.upload, page.editor, page.mask, page.status]
        named = self._named("open_image", opening)
        page.upload.upload(self.on_upload, [page.upload], opened, **named)
        page.gallery.select(self.on_example, None, opened, **opening)
        edited = [page.mask, page.status]
        brush = [page.tool, page.brush, page.similar]
        page.mask.select(self.on_mask_click, brush, edited, **UNQUEUED)
        page.undo.click(self.on_undo, None, edited, **UNQUEUED)
        page.reset.click(self.on_reset, None, edited, **UNQUEUED)
        page.auto.change(
            lambda auto: gr.update(visible=not auto), [page.auto], [page.elevation], **UNQUEUED
        )

    def _connect_generation(self) -> None:
        page = self.layout
        wanted = [page.format, page.size, page.flat_base]
        converting = _queued(page.status, "uploads", UPLOADS_AT_ONCE)
        named = self._named("convert", converting)
        page.convert.click(self.on_convert, wanted, [page.status, page.files], **named)
        chosen = [page.auto, page.elevation, page.samples, page.seed]
        buttons = [page.go, page.stop, page.rebuild]
        choice = [page.picking, page.pick]
        mesh = [page.results, page.model, page.turning, page.files]
        changed = [page.status, page.views, *choice, *mesh, *buttons]
        working = {**_queued(page.status, MODEL_QUEUE, 1), "trigger_mode": "once"}
        generate, build = (self._named(name, working) for name in ("generate", "build_mesh"))
        page.go.click(self.on_generate, chosen, changed, **generate)
        page.rebuild.click(self.on_rebuild, [page.pick, *chosen], changed, **build)
        show, stop = (self._named(name, UNQUEUED) for name in ("views", "stop"))
        page.pick.input(self.on_pick, [page.pick], [page.views], **show)
        # Without `cancels`: Gradio would drop the last update of the running event, and an earlier
        # one that arrives after the result of on_stop would leave the page in its working state.
        page.stop.click(self.on_stop, None, [page.status, *buttons], **stop)

    def on_unload(self, request: gr.Request) -> None:
        """Close the session of a page that was closed."""
        if request.session_hash:
            self.sessions.close(request.session_hash)

    def on_upload(self, path: str | None, request: gr.Request) -> Changes:
        """Show an uploaded image with its mask."""
        if path is None:
            return {self.layout.status: ""}
        return self._open(Path(path), request)

    def on_example(self, selected: gr.SelectData, request: gr.Request) -> Changes:
        """Show an example image with its mask."""
        index = selected.index if isinstance(selected.index, int) else 0
        return self._open(self.examples[index % len(self.examples)], request)

    def _open(self, path: Path, request: gr.Request) -> Changes:
        page = self.layout
        session = self.sessions.open(str(request.session_hash))
        if session.busy:
            return {page.upload: None, **self._error(BUSY)}
        try:
            editor = self.service.open_image(session, path)
        except UserError as error:
            return {page.upload: None, **self._error(str(error))}
        except Exception:
            log.exception("an uploaded image cannot be opened")
            return {page.upload: None, **self._error(FAILED)}
        return {
            page.upload: None,
            page.editor: gr.update(visible=True),
            page.mask: _save_preview(session, editor),
            page.status: html.note(editor.notice) if editor.notice else "",
        }

    def on_mask_click(
        self, tool: str, brush: float, similar: bool, place: gr.SelectData, request: gr.Request
    ) -> Changes:
        """Add to the mask or erase from it where the image was clicked."""

        def change(editor: MaskEditor) -> None:
            x, y = place.index
            editor.click(float(x), float(y), tool == KEEP, float(brush) / 100, bool(similar))

        return self._edit(request, change)

    def on_undo(self, request: gr.Request) -> Changes:
        """Undo the last change of the mask."""
        return self._edit(request, MaskEditor.undo)

    def on_reset(self, request: gr.Request) -> Changes:
        """Restore the initial mask."""
        return self._edit(request, MaskEditor.reset)

    def _edit(self, request: gr.Request, change: Callable[[MaskEditor], None]) -> Changes:
        session = self.sessions.find(str(request.session_hash))
        if session is None or session.editor is None:
            return self._error(EXPIRED)
        change(session.editor)
        return {self.layout.mask: _save_preview(session, session.editor)}

    def on_generate(
        self, auto: bool, elevation: float, samples: float, seed: float, request: gr.Request
    ) -> Iterator[Changes]:
        """Generate and rank samples, then build the mesh of the best; shows the progress."""
        page, service = self.layout, self.service
        session = self.sessions.find(str(request.session_hash))
        if session is None or session.editor is None:
            yield self._error(NO_IMAGE)
            return
        try:
            image = session.editor.result()
            wanted = service.request(auto, elevation, samples, seed)
        except UserError as error:
            yield self._error(str(error))
            return
        cleared = {
            page.picking: gr.update(visible=False),
            page.results: gr.update(elem_classes=HIDDEN),
            page.files: None,
            page.turning: "",
        }
        generate = partial(service.generate_views, session, image, wanted)
        yield from self._work(session, generate, cleared, last=False)
        if session.job is None or not session.job.succeeded:
            return
        ranked = service.samples(session)
        offered = {
            page.picking: gr.update(visible=len(ranked) > 1),
            page.pick: gr.update(choices=_choices(ranked)),
            page.results: gr.update(elem_classes=HIDDEN),
        }
        best = gr.update(choices=_choices(ranked), value=ranked[0].number)
        yield {**offered, page.pick: best}
        yield from self._build_mesh(session, ranked[0], wanted, offered)

    def on_rebuild(
        self, number: int, auto: bool, elevation: float, samples: float, seed: float,
        request: gr.Request,
    ) -> Iterator[Changes]:  # fmt: skip
        """Build the mesh of the selected sample."""
        session = self.sessions.find(str(request.session_hash))
        sample = self._find_sample(session, number)
        if session is None or sample is None:
            yield self._error(EXPIRED)
            return
        try:
            wanted = self.service.request(auto, elevation, samples, seed)
        except UserError as error:
            yield self._error(str(error))
            return
        yield from self._build_mesh(session, sample, wanted, {})

    def on_pick(self, number: int, request: gr.Request) -> Changes:
        """Show the views of the selected sample."""
        sample = self._find_sample(self.sessions.find(str(request.session_hash)), number)
        if sample is None:
            return {}
        return {self.layout.views: html.views(sample.strip(), sample.title)}

    def _find_sample(self, session: Session | None, number: Any) -> Sample | None:
        try:
            samples = self.service.samples(session) if session else []
        except (OSError, ValueError):
            return None
        return next((sample for sample in samples if sample.number == number), None)

    def _build_mesh(
        self, session: Session, sample: Sample, wanted: PipelineConfig, also: Changes
    ) -> Iterator[Changes]:
        page = self.layout
        files: dict[str, Path] = {}

        def work(on_progress: ProgressCallback) -> None:
            files.update(self.service.build_mesh(session, sample, wanted, on_progress))

        yield from self._work(session, work, also, last=True)
        if files:
            yield {
                **also,
                **self._buttons(working=False),
                page.status: html.note(DONE, "done"),
                page.results: gr.update(elem_classes=[]),
                page.model: str(files["mesh.glb"]),
                page.turning: html.video(files[VIDEO_FILE]),
                page.files: [str(path) for path in files.values()],
            }

    def on_convert(
        self, name: str, size_mm: float, flat_base: bool, request: gr.Request
    ) -> Changes:
        """Add another format to the downloads."""
        session = self.sessions.find(str(request.session_hash))
        if session is None:
            return self._error(EXPIRED)
        if session.busy:
            return self._error(BUSY)
        try:
            self.service.convert(session, name, size_mm, flat_base)
        except UserError as error:
            return self._error(str(error))
        except Exception:
            log.exception("a mesh cannot be converted")
            return self._error(FAILED)
        files = [str(path) for path in session.files.values()]
        return {self.layout.status: html.note(DONE, "done"), self.layout.files: files}

    def _error(self, message: str) -> Changes:
        return {self.layout.status: html.note(message, "error")}

    def _buttons(self, working: bool) -> Changes:
        on, off = gr.update(interactive=True), gr.update(interactive=False)
        start, stop = (off, on) if working else (on, off)
        page = self.layout
        return {page.go: start, page.rebuild: start, page.stop: stop}

    def _work(
        self, session: Session, work: Callable[[ProgressCallback], None], also: Changes, last: bool
    ) -> Iterator[Changes]:
        """Run work as the session's job and show its progress or failure.

        The changes `also` are repeated in every update, since a slow page skips all but the last of
        updates in quick succession; `last` enables the start button again after success.
        """
        page = self.layout
        if session.busy:  # a second click in the same session
            yield {page.status: html.note(BUSY)}
            return
        job = session.job = Job(work).start()
        also = {**also, **self._buttons(working=True)}
        yield also
        failure, shown = "", None
        try:
            for progress in job.updates():
                session.touch()
                bar = html.progress_bar(progress.fraction, progress.message)
                changes = {**also, page.status: bar}
                if progress.strip is not None and progress.strip is not shown:
                    shown = progress.strip
                    changes[page.views] = html.views(progress.strip, progress.title)
                yield changes
        except Stopped:
            failure = STOPPED
        except UserError as error:
            failure = str(error)
        except Exception:
            log.exception("a job failed")
            failure = FAILED
        if failure:
            yield {**also, **self._error(failure), **self._buttons(working=False)}
        elif last:
            yield {**also, **self._buttons(working=False)}

    def on_stop(self, request: gr.Request) -> Changes:
        """Stop the session's job."""
        session = self.sessions.find(str(request.session_hash))
        if session is not None and session.job is not None:
            session.job.stop()
        return {self.layout.status: html.note(STOPPED), **self._buttons(working=False)}


def _queued(status: gr.HTML, group: str, limit: int) -> dict[str, Any]:
    """Options of events that wait in the queue, at most `limit` of a group running at once."""
    return {
        "show_progress": "minimal",
        "show_progress_on": [status],
        "concurrency_id": group,
        "concurrency_limit": limit,
        "api_visibility": "private",
    }


def _save_preview(session: Session, editor: MaskEditor) -> str:
    """Write the masked image for the page; returns the path."""
    path = session.file("object", ".webp")
    editor.preview().save(path, quality=90)
    return str(path)


def _choices(samples: list[Sample]) -> list[tuple[str, int]]:
    """Labels and values of the sample selector."""
    return [
        (f"Sample {s.number}{', best' if s.rank == 1 else ''} ({s.score:.2f})", s.number)
        for s in samples
    ]
