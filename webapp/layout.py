"""The page's components and their arrangement; `webapp.ui` connects them to the service."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from pipeline.config import PipelineConfig
from renderer.formats.options import ALWAYS, FORMATS, SIZE_MM
from webapp import html
from webapp.service import ELEVATIONS

KEEP, ERASE = "Keep", "Erase"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Consolas", "monospace")
HIDDEN = ["sd-hidden"]
"""CSS classes of a component that is loaded but not displayed."""


def theme() -> gr.themes.Base:
    """A theme of system fonts: nothing is loaded from other servers."""
    return gr.themes.Soft(
        primary_hue="indigo", neutral_hue="slate", font=list(FONTS), font_mono=list(MONO_FONTS)
    ).set(
        block_label_background_fill="transparent", block_title_background_fill="none",
        block_label_text_color="*body_text_color_subdued", block_title_padding="0",
        block_title_text_color="*body_text_color_subdued",
        block_title_text_weight="400", block_label_text_weight="400",
    )  # fmt: skip


class Layout:
    """All components of the page; created inside a `gr.Blocks` context.

    `config` has initial values and limits. `placeholder` is a mesh file, loaded but not displayed:
    Gradio 6.31 loads its mesh viewer only if the page has a mesh from the start.
    """

    def __init__(self, config: PipelineConfig, examples: list[Path], placeholder: Path) -> None:
        gr.HTML(html.HEADER)
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                self._build_input(examples)
                self._build_mask_editor()
                self._build_settings(config)
            with gr.Column(scale=7, min_width=320):
                self._build_output(placeholder)

    def _build_input(self, examples: list[Path]) -> None:
        label = "Input image: PNG, JPEG or WebP"
        self.upload = gr.File(label=label, file_types=["image"], height=150, elem_id="upload")
        if examples:
            gr.HTML('<p class="sd-caption">Or choose an example:</p>')
        self.gallery = gr.Gallery(
            [str(path) for path in examples], label="Examples", show_label=False, columns=8,
            height="auto", object_fit="contain", allow_preview=False, interactive=False,
            elem_id="examples", buttons=[], visible=bool(examples),
        )  # fmt: skip

    def _build_mask_editor(self) -> None:
        with gr.Column(visible=False) as self.editor:
            self.mask = gr.Image(
                label="Click to correct the mask", type="filepath", interactive=False, height=340,
                buttons=[], elem_id="mask",
            )  # fmt: skip
            with gr.Row():
                self.tool = gr.Radio(
                    [KEEP, ERASE], value=ERASE, label="Click to", elem_id="tool", min_width=150
                )
                self.brush = gr.Slider(1, 40, value=8, step=1, label="Brush, %", min_width=150)
            self.similar = gr.Checkbox(False, label="Only similar colours around the click")
            with gr.Row():
                self.undo = gr.Button("Undo", size="sm", elem_id="undo", min_width=80)
                self.reset = gr.Button("Reset", size="sm", elem_id="reset", min_width=80)

    def _build_settings(self, config: PipelineConfig) -> None:
        automatic = config.elevation == "auto"
        most = config.num_samples
        with gr.Accordion("More settings", open=False):
            self.auto = gr.Checkbox(automatic, label="Estimate the camera's elevation")
            self.elevation = gr.Slider(
                *ELEVATIONS, value=20 if automatic else config.elevation, step=1,
                label="Camera elevation, degrees", visible=not automatic,
            )  # fmt: skip
            self.samples = gr.Slider(
                1, max(most, 2), value=min(2, most), step=1, label="Samples", visible=most > 1
            )
            self.seed = gr.Number(config.seed, label="Seed", precision=0)
        with gr.Row():
            self.go = gr.Button("Make it 3D", variant="primary", size="lg", elem_id="go", scale=3)
            self.stop = gr.Button(
                "Stop", size="lg", elem_id="stop", scale=1, min_width=90, interactive=False
            )

    def _build_output(self, placeholder: Path) -> None:
        self.status = gr.HTML(elem_id="status")
        self.views = gr.HTML(html.EMPTY, elem_id="views")
        with gr.Row(visible=False) as self.picking:
            self.pick = gr.Radio([], label="Samples, best first", elem_id="pick", scale=3)
            self.rebuild = gr.Button(
                "Build the mesh from this sample", elem_id="rebuild", scale=1, min_width=200
            )
        with gr.Column(elem_classes=HIDDEN) as self.results:
            with gr.Row():
                self.model = gr.Model3D(
                    str(placeholder), label="Mesh: drag to rotate", height=400, elem_id="model",
                    clear_color=(1.0, 1.0, 1.0, 1.0), interactive=False, min_width=300,
                    camera_position=(90, 65, None), scale=2,
                )  # fmt: skip
                with gr.Column(scale=1, min_width=240):
                    self.turning = gr.HTML(elem_id="turning")
            self.files = gr.File(
                label="Downloads", file_count="multiple", interactive=False, elem_id="files"
            )
            with gr.Row():
                others = [name for name in FORMATS if name not in ALWAYS]
                self.format = gr.Dropdown(
                    others, value=others[0], label="Another format", elem_id="format", min_width=120
                )
                self.size = gr.Number(SIZE_MM, label="Longest edge, mm", min_width=120)
                self.flat_base = gr.Checkbox(False, label="Flat base, to print", min_width=120)
                self.convert = gr.Button("Convert", elem_id="convert", min_width=120)
        gr.Markdown(
            "Uploaded images are deleted from the server after ten minutes. All other files are "
            "deleted when you close the page, or after an hour without activity."
        )
