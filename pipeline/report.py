"""The report on one image: an HTML page that needs no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from common.files import atomic_write
from common.html import data_url, image_url, load_template, printable, video_url
from common.optional import import_optional
from multiview.image_file import read_image
from multiview.mask_check import WHOLE_IMAGE
from pipeline.paths import CURVE, ELEVATION, EXPORTED, FRAMED, METRICS, OBJECT, RECONSTRUCTION
from pipeline.selection.elevation_drafts import UNCERTAIN
from pipeline.selection.ranking import POOR_SCORE, SCORES
from renderer.formats.options import FORMATS, PRINT_REPORT
from renderer.output_dir import VIDEO_FILE
from renderer.reconstruction import POOR_IOU

TEMPLATE = Path(__file__).parent / "report.html.j2"
MAX_MESH_BYTES = 20 * 2**20
"""Larger mesh.glb files are not embedded."""
VIEW_SIDE = 128
"""Pixels a side of an embedded view; the browser scales it."""
NUM_TRAINING_IMAGES = 3
"""The last training images of the reconstruction are shown."""
SCORE_PARTS = (
    ("leave_one_out", "masks with others' hull"),
    ("halves_volume", "volumes of both halves"),
    ("halves_pattern", "patterns of both halves"),
    ("halves_psnr", "colours of both halves, dB"),
    ("input_silhouette", "outline with the input's"),
    ("input_pattern", "pattern with the input's"),
    ("input_psnr", "colours with the input's, dB"),
    ("off_centre", "distance from the middle"),
    ("new_colours", "colours that view 0 lacks"),
)
"""Attributes of `pipeline.selection.ranking.SampleScore` and their labels."""
NUMBERS = (
    ("psnr", "PSNR of the mesh in the views, dB", 2),
    ("field_psnr", "PSNR of the field, dB", 2),
    ("mask_iou", "IoU of the mesh with the masks", 3),
    ("faces", "faces of mesh.ply", 0),
    ("textured_faces", "faces of mesh.glb", 0),
    ("watertight", "closed", None),
    ("manifold", "manifold", None),
    ("steps", "training steps", 0),
    ("kind", "method", None),
    ("preset", "preset", None),
    ("device", "device", None),
)
"""Of metrics.json: key, label, digits (None for words)."""


def write_page(
    path: Path,
    name: str,
    small: Image.Image,
    folder: Path,
    records: dict[str, dict[str, Any]],
    samples: Sequence[Path],
) -> None:
    """Write the report on an image atomically.

    Args:
        path: of the page.
        name: of the image's file.
        small: thumbnail of the image.
        folder: of its results.
        records: of the steps, by their names and in their order, see `common.records`.
        samples: strips of views.
    """
    rows = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    segment, elevation = records["segment"], records["elevation"]
    cut_out = read_image(folder / OBJECT)
    framed = read_image(folder / FRAMED)
    framed_as = f"framed, crop size {records['frame']['facts']['crop_size']}"
    mask = f"mask, {segment['facts']['mask']}: {segment['facts']['covered']:.1%}"
    training = sorted(
        (folder / RECONSTRUCTION / "images").glob("*.jpg"), key=lambda p: (len(p.stem), p.stem)
    )
    seconds = [record["seconds"] for record in records.values()]
    files = dict.fromkeys((*EXPORTED, *FORMATS.values(), PRINT_REPORT))
    page = load_template(TEMPLATE).render(
        name=printable(name),
        records=records,
        segment=segment,
        elevation=elevation,
        rows=rows,
        metrics=metrics,
        warnings=quality_warnings(records, rows, metrics),
        small=small,
        viewer=mesh_viewer(folder / "mesh.glb"),
        video=video_url(folder / VIDEO_FILE),
        files=[
            f"{file} ({(folder / file).stat().st_size / 2**20:.1f} MiB)"
            for file in files
            if (folder / file).is_file()
        ],
        inputs=[(cut_out.getchannel("A"), mask), (cut_out, "object"), (framed, framed_as)],
        curve=elevation_curve(folder) if "uncertainty_deg" in elevation["facts"] else "",
        parts=[part for part in SCORE_PARTS if any(row.get(part[0]) for row in rows)],
        strips={sample.name: image_url(small_strip(sample), "JPEG") for sample in samples},
        numbers=[
            (title, _value(metrics[key], digits))
            for key, title, digits in NUMBERS
            if metrics.get(key) is not None
        ],
        training=training[-NUM_TRAINING_IMAGES:],
        seconds=sum(seconds),
        longest=max(seconds) or 1.0,
        words=_words,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def quality_warnings(
    records: dict[str, dict[str, Any]], rows: list[dict[str, Any]], metrics: dict[str, Any]
) -> list[str]:
    """Likely problems of the results as sentences; `rows` are those of scores.json."""
    warnings = []
    if records["segment"]["facts"]["covered"] > WHOLE_IMAGE:
        warnings.append("The mask covers the whole image: the object may not have been found.")
    if records["elevation"]["facts"].get("uncertainty_deg", 0.0) > UNCERTAIN:
        warnings.append(
            "The elevation is uncertain: drafts for many elevations are similar to the image. "
            "If you know it, give it."
        )
    if rows[0]["problem"]:
        warnings.append(f"No sample shows an object: {rows[0]['problem']}.")
    elif rows[0]["score"] < POOR_SCORE:
        warnings.append("The views of the best sample do not fit together; try another seed.")
    if metrics.get("replaced_masks"):
        views = ", ".join(map(str, metrics["replaced_masks"]))
        warnings.append(f"The views of the best sample are inconsistent; replaced masks: {views}.")
    if metrics.get("mask_iou") is not None and metrics["mask_iou"] < POOR_IOU:
        warnings.append("The silhouettes of the mesh differ from the masks of the views.")
    return warnings


def mesh_viewer(path: Path) -> str:
    """A page with a mesh to be turned by mouse or touch; empty above `MAX_MESH_BYTES`.

    It has the mesh and trimesh's copy of three.js in it, and loads nothing.
    """
    if path.stat().st_size > MAX_MESH_BYTES:
        return ""
    import trimesh
    from trimesh.viewer.notebook import scene_to_html

    scene: Any = trimesh.load(path, file_type="glb", force="scene")
    for mesh in scene.geometry.values():
        texture = getattr(getattr(mesh.visual, "material", None), "baseColorTexture", None)
        if texture is not None:  # shines by itself: the colours are those of the views
            mesh.visual.material = trimesh.visual.material.PBRMaterial(
                baseColorFactor=[0, 0, 0, 255], emissiveTexture=texture, emissiveFactor=[1, 1, 1],
                metallicFactor=0, roughnessFactor=1,
            )  # fmt: skip
    # up is glTF's y axis, the input's camera on x: from there, a little to the side and above
    angles = (math.radians(-20), math.radians(70), 0)
    scene.set_camera(angles, distance=1.6 * scene.scale, center=scene.centroid, fov=(40, 40))
    # the viewer's own output is linear, which is dark
    srgb = "renderer.outputEncoding=THREE.sRGBEncoding;renderer.setPixelRatio("
    return scene_to_html(scene).replace("renderer.setPixelRatio(", srgb)


def elevation_curve(folder: Path) -> str:
    """Data URL of the scores over the elevations; drawn by Matplotlib if it is installed."""
    try:
        figures = import_optional("matplotlib.figure", "drawing curves")
    except ModuleNotFoundError:
        return data_url(folder / CURVE, "image/png")
    found = json.loads((folder / ELEVATION).read_text(encoding="utf-8"))
    middle, spread = found["elevation_deg"], found["uncertainty_deg"]
    figure = figures.Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(middle - spread, middle + spread, color="#dbe8f6")
    axes.axvline(middle, color="#c03020", label=f"{middle:.1f} ± {spread:.1f} degrees")
    axes.plot(found["candidates_deg"], found["scores"], color="#1f5fa8")
    axes.set(xlabel="elevation, degrees", ylabel="score", xmargin=0)
    axes.legend()
    content = BytesIO()
    figure.savefig(content, format="svg")
    return data_url(content.getvalue(), "image/svg+xml")


def small_strip(path: Path) -> Image.Image:
    """A strip of views of at most `VIEW_SIDE` pixels, RGB."""
    strip = read_image(path).convert("RGB")
    side = min(strip.height, VIEW_SIDE)
    return strip.resize((strip.width * side // strip.height, side))


def _value(value: object, digits: int | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if digits is None or not isinstance(value, int | float):
        return str(value)
    return f"{value:.{digits}f}"


def _words(values: dict[str, Any]) -> str:
    def word(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return json.dumps(value) if isinstance(value, dict | list) else str(value)

    return ", ".join(f"{key} {word(value)}" for key, value in values.items())
