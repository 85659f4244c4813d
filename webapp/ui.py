"""The page itself: what is on it, and what happens when something is clicked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from multiview.images import read_image
from webapp import html
from webapp.job import Job, Stopped, Tell, Update
from webapp.mask_editor import MaskEditor, PictureError
from webapp.service import ELEVATIONS, Maker, MakingError, Mesh, Sample, Wishes
from webapp.sessions import KEEP_SECONDS, SWEEP_SECONDS, Visit, Visits

log = logging.getLogger(__name__)

MODEL = "model"
"""Name of the queue for what needs the model: one at a time."""
UPLOADS_AT_ONCE = 2
KEEP, ERASE = "Keep", "Erase"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Consolas", "monospace")
HIDDEN = ["sd-hidden"]
"""Classes of what is there but not to be seen."""
FAILED = "Something went wrong on the server; whoever runs it finds more in its log. Try again."
LOST = "This page was idle for too long and its files were removed. Send the picture again."
NO_PICTURE = "Send a picture first, or pick an example."
BUSY = "This page is working already."

Updates = dict[Any, Any]
"""What changes on the page: component -> its new value or properties."""


def theme() -> gr.themes.Base:
    """A theme whose fonts are on every machine: nothing is loaded from elsewhere."""
    return gr.themes.Soft(
        primary_hue="indigo",
        neutral_hue="slate",
        font=list(FONTS),
        font_mono=list(MONO_FONTS),
    ).set(
        block_label_background_fill="transparent",
        block_label_text_color="*body_text_color_subdued",
        block_title_background_fill="none",
        block_title_padding="0",
        block_title_text_color="*body_text_color_subdued",
        block_title_text_weight="400",
        block_label_text_weight="400",
    )


class Page:
    """The page of all visitors.

    Args:
        maker: does the work.
        visits: whose it is.
        examples: pictures to pick from.
        placeholder: any mesh. Gradio's viewer is loaded with the first mesh, and (in 6.31) not at
            all where that comes later than the page; so it has this one, out of sight.
        max_queue: how many visitors wait at most.
    """

    def __init__(
        self,
        maker: Maker,
        visits: Visits,
        examples: list[Path],
        placeholder: Path,
        max_queue: int,
    ) -> None:
        self.maker, self.visits, self.examples = maker, visits, examples
        self.placeholder = placeholder
        with gr.Blocks(
            title="One picture, a 3D model",
            analytics_enabled=False,
            delete_cache=(int(SWEEP_SECONDS), int(KEEP_SECONDS)),
        ) as self.blocks:
            gr.HTML(html.HEADER)
            with gr.Row(equal_height=False):
                with gr.Column(scale=4, min_width=320):
                    self._build_input()
                with gr.Column(scale=7, min_width=320):
                    self._build_output()
            self._connect()
        self.blocks.queue(max_size=max_queue, default_concurrency_limit=UPLOADS_AT_ONCE)

    def _build_input(self) -> None:
        self.upload = gr.File(
            label="Your picture: PNG, JPEG or WebP", file_types=["image"], height=150,
            elem_id="upload",
        )  # fmt: skip
        if self.examples:
            gr.HTML('<p class="sd-caption">Or pick an example:</p>')
        self.gallery = gr.Gallery(
            [str(path) for path in self.examples], label="Examples", show_label=False, columns=8,
            height="auto", object_fit="contain", allow_preview=False, interactive=False,
            elem_id="examples", buttons=[], visible=bool(self.examples),
        )  # fmt: skip
        with gr.Column(visible=False) as self.editor:
            self.mask = gr.Image(
                label="Click to change what is kept", type="filepath",
                interactive=False, height=340, buttons=[], elem_id="mask",
            )  # fmt: skip
            with gr.Row():
                self.tool = gr.Radio(
                    [KEEP, ERASE], value=ERASE, label="A click will", elem_id="tool",
                    min_width=150,
                )  # fmt: skip
                self.brush = gr.Slider(1, 40, value=8, step=1, label="Brush, %", min_width=150)
            self.similar = gr.Checkbox(False, label="Only similar colours around the click")
            with gr.Row():
                self.undo = gr.Button("Undo", size="sm", elem_id="undo", min_width=80)
                self.reset = gr.Button("Start over", size="sm", elem_id="reset", min_width=80)
        settings = self.maker.settings
        with gr.Accordion("More settings", open=False):
            automatic = settings.elevation == "auto"
            self.auto = gr.Checkbox(automatic, label="Estimate the camera's elevation")
            self.elevation = gr.Slider(
                *ELEVATIONS, value=20 if automatic else settings.elevation, step=1,
                label="Elevation, degrees that the camera looked down", visible=not automatic,
            )  # fmt: skip
            self.samples = gr.Slider(
                1, max(settings.sample_num, 2), value=min(2, settings.sample_num), step=1,
                label="Samples to choose from", visible=settings.sample_num > 1,
            )  # fmt: skip
            self.seed = gr.Number(settings.seed, label="Seed", precision=0)
        with gr.Row():
            self.go = gr.Button("Make it 3D", variant="primary", size="lg", elem_id="go", scale=3)
            self.stop = gr.Button(
                "Stop", size="lg", elem_id="stop", scale=1, min_width=90, interactive=False
            )

    def _build_output(self) -> None:
        self.status = gr.HTML(elem_id="status")
        self.views = gr.HTML(html.EMPTY, elem_id="views")
        with gr.Row(visible=False) as self.picking:
            self.pick = gr.Radio([], label="Samples, the best one first", elem_id="pick", scale=3)
            self.rebuild = gr.Button(
                "Build the mesh from this sample", elem_id="rebuild", scale=1, min_width=200
            )
        with gr.Column(elem_classes=HIDDEN) as self.results:
            with gr.Row():
                self.model = gr.Model3D(
                    str(self.placeholder), label="Turn it by dragging",
                    height=400, elem_id="model",
                    clear_color=(1.0, 1.0, 1.0, 1.0), interactive=False, min_width=300,
                    camera_position=(90, 65, None), scale=2,
                )  # fmt: skip
                with gr.Column(scale=1, min_width=240):
                    self.turning = gr.HTML(elem_id="turning")
            self.files = gr.File(
                label="Downloads",
                file_count="multiple", interactive=False, elem_id="files",
            )  # fmt: skip
        gr.Markdown(
            "What you send is removed from the server after ten minutes, and all that was made of "
            "it when you close the page, or an hour after you last used it."
        )

    def _connect(self) -> None:
        """Say what happens when; what only looks up or redraws does not wait in the queue."""
        quick: dict[str, Any] = {
            "queue": False, "show_progress": "hidden", "api_visibility": "private"
        }  # fmt: skip
        shown = [self.upload, self.editor, self.mask, self.status]
        opening: dict[str, Any] = {
            "show_progress": "minimal",
            "show_progress_on": [self.status],
            "concurrency_id": "uploads",
            "concurrency_limit": UPLOADS_AT_ONCE,
            "api_visibility": "private",
        }
        self.upload.upload(self.take_upload, [self.upload], shown, **opening)
        self.gallery.select(self.take_example, None, shown, **opening)
        edits = [self.mask, self.status]
        self.mask.select(self.click, [self.tool, self.brush, self.similar], edits, **quick)
        self.undo.click(self.take_back, None, edits, **quick)
        self.reset.click(self.start_over, None, edits, **quick)
        self.auto.change(
            lambda auto: gr.update(visible=not auto), [self.auto], [self.elevation], **quick
        )
        wishes = [self.auto, self.elevation, self.samples, self.seed]
        changing = [
            self.status, self.views, self.picking, self.pick, self.results, self.model,
            self.turning, self.files, self.go, self.stop, self.rebuild,
        ]  # fmt: skip
        working: dict[str, Any] = {
            "show_progress": "minimal",
            "show_progress_on": [self.status],
            "concurrency_id": MODEL,
            "concurrency_limit": 1,
            "trigger_mode": "once",
            "api_visibility": "private",
        }
        running = [
            self.go.click(self.make, wishes, changing, **working),
            self.rebuild.click(self.make_again, [self.pick, *wishes], changing, **working),
        ]
        self.pick.input(self.look_at, [self.pick], [self.views], **quick)
        self.stop.click(
            self.halt, None, [self.status, self.go, self.stop, self.rebuild], cancels=running,
            **quick,
        )  # fmt: skip
        self.blocks.unload(self.leave)

    def leave(self, request: gr.Request) -> None:
        """End the work of a page that was closed, and remove its files."""
        if request.session_hash:
            self.visits.close(request.session_hash)

    def take_upload(self, path: str | None, request: gr.Request) -> Updates:
        """Show what was sent with the object's mask."""
        if path is None:
            return {self.status: ""}
        return self._open(Path(path), request)

    def take_example(self, chosen: gr.SelectData, request: gr.Request) -> Updates:
        """Show an example with its mask."""
        index = chosen.index if isinstance(chosen.index, int) else 0
        return self._open(self.examples[index % len(self.examples)], request)

    def _open(self, path: Path, request: gr.Request) -> Updates:
        visit = self.visits.open(str(request.session_hash))
        if visit.busy:
            return {self.upload: None, self.status: html.note(BUSY, "error")}
        try:
            editor = self.maker.open_picture(visit, path)
        except PictureError as error:
            return {self.upload: None, self.status: html.note(str(error), "error")}
        except Exception:
            log.exception("a visitor's picture cannot be taken")
            return {self.upload: None, self.status: html.note(FAILED, "error")}
        return {
            self.upload: None,
            self.editor: gr.update(visible=True),
            self.mask: self._masked(visit, editor),
            self.status: html.note(editor.found) if editor.found else "",
        }

    def _masked(self, visit: Visit, editor: MaskEditor) -> str:
        """Write the picture with its mask for the page; returns the path."""
        path = visit.file("object", ".webp")
        editor.shown().save(path, quality=90)
        return str(path)

    def click(
        self,
        tool: str,
        brush: float,
        similar: bool,
        place: gr.SelectData,
        request: gr.Request,
    ) -> Updates:
        """Keep or erase where the picture was clicked."""

        def change(editor: MaskEditor) -> None:
            x, y = place.index
            editor.click(float(x), float(y), tool == KEEP, float(brush) / 100, bool(similar))

        return self._edit(request, change)

    def take_back(self, request: gr.Request) -> Updates:
        """Undo a click."""
        return self._edit(request, MaskEditor.undo)

    def start_over(self, request: gr.Request) -> Updates:
        """Go back to the mask that was found."""
        return self._edit(request, MaskEditor.reset)

    def _edit(self, request: gr.Request, change: Callable[[MaskEditor], None]) -> Updates:
        visit = self.visits.find(str(request.session_hash))
        if visit is None or visit.editor is None:
            return {self.status: html.note(LOST, "error")}
        change(visit.editor)
        return {self.mask: self._masked(visit, visit.editor)}

    def make(
        self, auto: bool, elevation: float, samples: float, seed: float, request: gr.Request
    ) -> Iterator[Updates]:
        """Draw the views, order them, and build a mesh of the best; show all of it on the way."""
        visit = self.visits.find(str(request.session_hash))
        if visit is None or visit.editor is None:
            yield {self.status: html.note(NO_PICTURE, "error")}
            return
        maker, found = self.maker, visit
        try:
            picture = visit.editor.result()
            wishes = maker.wishes(auto, elevation, samples, seed)
        except (PictureError, MakingError) as error:
            yield {self.status: html.note(str(error), "error")}
            return
        cleared = {
            self.picking: gr.update(visible=False),
            self.results: gr.update(elem_classes=HIDDEN),
            self.files: None,
            self.turning: "",
        }
        yield from self._work(
            visit, lambda tell: maker.make_views(found, picture, wishes, tell), cleared, last=False
        )
        if visit.job is None or not visit.job.succeeded:
            return
        made = maker.samples(visit)
        offered = {
            self.picking: gr.update(visible=len(made) > 1),
            self.pick: gr.update(choices=_choices(made)),
            self.results: gr.update(elem_classes=HIDDEN),
        }
        yield {**offered, self.pick: gr.update(choices=_choices(made), value=made[0].number)}
        yield from self._build(visit, made[0], wishes, offered)

    def make_again(
        self,
        number: int,
        auto: bool,
        elevation: float,
        samples: float,
        seed: float,
        request: gr.Request,
    ) -> Iterator[Updates]:
        """Build the mesh of the sample that was picked."""
        visit = self.visits.find(str(request.session_hash))
        sample = self._picked(visit, number)
        if visit is None or sample is None:
            yield {self.status: html.note(LOST, "error")}
            return
        try:
            wishes = self.maker.wishes(auto, elevation, samples, seed)
        except MakingError as error:
            yield {self.status: html.note(str(error), "error")}
            return
        yield from self._build(visit, sample, wishes, {})

    def look_at(self, number: int, request: gr.Request) -> Updates:
        """Show the views of a sample."""
        sample = self._picked(self.visits.find(str(request.session_hash)), number)
        return {} if sample is None else {self.views: _views_of(sample)}

    def _picked(self, visit: Visit | None, number: Any) -> Sample | None:
        if visit is None:
            return None
        try:
            made = self.maker.samples(visit)
        except (OSError, ValueError):
            return None
        return next((sample for sample in made if sample.number == number), None)

    def _build(
        self, visit: Visit, sample: Sample, wishes: Wishes, offered: Updates
    ) -> Iterator[Updates]:
        made: list[Mesh] = []

        def work(tell: Tell) -> None:
            made.append(self.maker.make_mesh(visit, sample, wishes, tell))

        yield from self._work(visit, work, offered, last=True)
        if made:
            mesh = made[0]
            yield {
                **offered,
                **self._buttons(working=False),
                self.status: html.note("Done. Turn the mesh, or take the files with you.", "done"),
                self.results: gr.update(elem_classes=[]),
                self.model: str(mesh.glb),
                self.turning: html.video(mesh.video),
                self.files: [str(p) for p in (mesh.glb, mesh.ply, mesh.video, mesh.strip)],
            }

    def _buttons(self, working: bool) -> Updates:
        on, off = gr.update(interactive=True), gr.update(interactive=False)
        start, stop = (off, on) if working else (on, off)
        return {self.go: start, self.rebuild: start, self.stop: stop}

    def _work(
        self, visit: Visit, work: Callable[[Tell], None], also: Updates, last: bool
    ) -> Iterator[Updates]:
        """Work in a thread, and show how far it is; failures are shown, too.

        What changes is told again with every update: of updates in quick succession a page that
        is slow shows the last one only.
        """
        if visit.busy:  # another click of the same visitor
            yield {self.status: html.note(BUSY)}
            return
        job = visit.job = Job(work).start()
        also = {**also, **self._buttons(working=True)}
        yield also
        failure = ""
        drawn: Update | None = None
        try:
            for update in job.updates():
                visit.touch()
                changed = {**also, self.status: html.progress(update.share, update.words)}
                if update.strip is not None and (drawn is None or drawn.strip is not update.strip):
                    changed[self.views] = html.views(update.strip, update.title)
                drawn = update
                yield changed
        except Stopped:
            failure = "Stopped."
        except MakingError as error:
            failure = str(error)
        except Exception:
            log.exception("a visitor's work failed")
            failure = FAILED
        if failure:
            note = {self.status: html.note(failure, "error")}
            yield {**also, **note, **self._buttons(working=False)}
        elif last:
            yield {**also, **self._buttons(working=False)}

    def halt(self, request: gr.Request) -> Updates:
        """Stop what is being made."""
        visit = self.visits.find(str(request.session_hash))
        if visit is not None and visit.job is not None:
            visit.job.stop()
        kept = "Stopped. What was drawn is kept: the button goes on with it."
        return {self.status: html.note(kept), **self._buttons(working=False)}


def _choices(samples: list[Sample]) -> list[tuple[str, int]]:
    return [
        (f"Sample {sample.number}{', best' if sample.rank == 1 else ''} ({sample.score:.2f})",
         sample.number)
        for sample in samples
    ]  # fmt: skip


def _views_of(sample: Sample) -> str:
    strip = np.asarray(read_image(sample.path).convert("RGB"))
    return html.views(strip, f"Sample {sample.number}: 16 views")
