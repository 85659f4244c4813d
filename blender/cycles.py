"""Blender's renderer with the training images' settings, for one object (inside Blender only)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import bpy
import numpy as np
from mathutils import Matrix

from blender.plan import ViewSettings, plan_cameras
from blender.scene import load_scene
from blender.view_folder import ViewFolder
from common.files import sha256

log = logging.getLogger(__name__)

Device = Literal["CUDA", "OPTIX", "METAL", "HIP", "CPU"]

FOCAL_LENGTH_MM, SENSOR_MM = 35.0, 32.0
"""A focal length of 280 pixels for images of 256 x 256."""
BOUNCES = {"diffuse": 1, "glossy": 1, "transmission": 3, "transparent_max": 3}
FILTER_WIDTH = 0.01
BLENDER_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
"""From this project's camera axes (y down, z forward) to Blender's (y up, z backward)."""
POSE_TOLERANCE = 1e-4
MIN_COVERAGE = 1e-3
"""Least mean alpha of the best view; a needle of length 1 and thickness 0.001 has about this."""
MIN_ALPHA = 0.5
"""Pixels with a lower alpha are background in depth maps."""


def configure_renderer(engine: str, device: Device, resolution: int, samples: int) -> str:
    """Configure the renderer, add a camera to the scene, and return the device in use.

    `engine` is "CYCLES" or "BLENDER_EEVEE"; Cycles falls back to the CPU with a warning.
    """
    scene = bpy.context.scene
    try:
        scene.render.engine = engine
    except TypeError:
        scene.render.engine = f"{engine}_NEXT"  # EEVEE since Blender 4.2
    image = scene.render.image_settings
    image.file_format, image.color_mode, image.color_depth = "PNG", "RGBA", "8"
    scene.render.resolution_x = scene.render.resolution_y = resolution
    scene.render.resolution_percentage = 100
    scene.render.film_transparent = True
    scene.render.use_persistent_data = True  # only the camera moves between views
    scene.render.filter_size = FILTER_WIDTH
    # Compat: the default before Blender 4.0, whose AgX gives paler colours
    scene.view_settings.view_transform = "Filmic"
    _add_camera()
    if engine != "CYCLES":
        scene.eevee.taa_render_samples = samples
        return "GPU"
    cycles = scene.cycles
    cycles.samples, cycles.filter_width = samples, FILTER_WIDTH
    for kind, bounces in BOUNCES.items():
        setattr(cycles, f"{kind}_bounces", bounces)
    used = _select_device(device)
    cycles.device = "CPU" if used == "CPU" else "GPU"
    _enable_denoiser(used)
    return used


def set_threads(count: int) -> None:
    """Set the number of render threads; 0 is one per core."""
    render = bpy.context.scene.render
    render.threads_mode = "FIXED" if count else "AUTO"
    if count:
        render.threads = count


def _select_device(device: Device) -> Device:
    if device == "CPU":
        return device
    try:
        preferences = bpy.context.preferences.addons["cycles"].preferences
        preferences.compute_device_type = device
        preferences.get_devices()
        for item in preferences.devices:
            item.use = item.type == device
        if any(item.use for item in preferences.devices):
            return device
        reason = "no such device"
    except (TypeError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
    log.warning("the device %s is not available (%s): rendering on the CPU", device, reason)
    return "CPU"


def _enable_denoiser(device: Device) -> None:
    cycles = bpy.context.scene.cycles
    try:
        cycles.denoiser = "OPTIX" if device == "OPTIX" else "OPENIMAGEDENOISE"
        cycles.use_denoising = True
    except TypeError:
        cycles.use_denoising = False
        log.warning("this Blender has no denoiser: images will be noisier")


def _add_camera() -> None:
    camera = bpy.data.cameras.new("camera")
    camera.lens, camera.sensor_width, camera.sensor_fit = FOCAL_LENGTH_MM, SENSOR_MM, "HORIZONTAL"
    item = bpy.data.objects.new("camera", camera)
    bpy.context.scene.collection.objects.link(item)
    bpy.context.scene.camera = item


def place_camera(world_to_camera: np.ndarray) -> None:
    """Set the pose of the scene's camera, `[R | t]` with y down and z into the scene, (3, 4)."""
    pose = np.vstack([world_to_camera, [0.0, 0.0, 0.0, 1.0]])
    camera = bpy.context.scene.camera
    camera.matrix_world = Matrix((np.linalg.inv(pose) @ BLENDER_AXES).tolist())
    bpy.context.view_layer.update()
    graph = bpy.context.evaluated_depsgraph_get()
    placed = np.array(camera.evaluated_get(graph).matrix_world, dtype=np.float64)
    error = np.abs(np.linalg.inv(placed @ BLENDER_AXES) - pose).max()
    if not error < POSE_TOLERANCE:
        raise RuntimeError(f"the pose of Blender's camera is off by {error:.1e}")


def render_view(image: Path) -> None:
    """Render one view into a PNG file; RuntimeError if Blender fails."""
    scene = bpy.context.scene
    scene.render.filepath = str(image.resolve())
    with _silence_stdout():
        try:
            bpy.ops.render.render(write_still=True)
        except RuntimeError as error:
            raise RuntimeError(f"Blender cannot render: {str(error).strip()}") from error
    if not image.is_file():
        raise RuntimeError(f"Blender rendered, but wrote no {image}: is the disk full?")


@contextmanager
def _silence_stdout() -> Iterator[None]:
    """Suppress Blender's progress output, which its C++ code writes; errors go to stderr."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def enable_depth_output(folder: Path) -> None:
    """Write the depth of each rendered view into `folder`; ValueError if Blender is too new."""
    scene = bpy.context.scene
    if bpy.app.version >= (5, 0, 0):
        raise ValueError(f"depth maps need Blender 3.4 to 4.5, this is {bpy.app.version_string}")
    bpy.context.view_layer.use_pass_z = True
    scene.use_nodes = True
    nodes, links = scene.node_tree.nodes, scene.node_tree.links
    nodes.clear()
    layers = nodes.new("CompositorNodeRLayers")
    result = nodes.new("CompositorNodeComposite")
    links.new(layers.outputs["Image"], result.inputs["Image"])
    output = nodes.new("CompositorNodeOutputFile")
    output.base_path = str(folder.resolve())
    output.format.file_format, output.format.color_depth = "OPEN_EXR", "32"
    output.file_slots.clear()
    for name, socket in (("z", "Depth"), ("alpha", "Alpha")):
        output.file_slots.new(f".depth.{name}.")
        links.new(layers.outputs[socket], output.inputs[-1])


def read_depth(folder: Path) -> np.ndarray:
    """Read and remove the last view's files: camera-z depth, infinite in the background, (H, W)."""
    frame = bpy.context.scene.frame_current
    depth, alpha = (_read_exr(folder / f".depth.{name}.{frame:04d}.exr") for name in ("z", "alpha"))
    return np.where(alpha >= MIN_ALPHA, depth, np.inf)


def _read_exr(path: Path) -> np.ndarray:
    """Read the first channel of a floating-point image, top row first, and remove the file."""
    values = _read_image(path)
    path.unlink()
    return values[::-1, :, 0]


def _read_image(path: Path) -> np.ndarray:
    """Read an image, bottom row first, (H, W, C) float32."""
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    values = np.empty(width * height * image.channels, dtype=np.float32)
    image.pixels.foreach_get(values)
    bpy.data.images.remove(image)
    return values.reshape(height, width, -1)


class RenderOptions(Protocol):
    """Settings of the renderer: the flags of `blender_script.py` with these names."""

    engine: str
    device: Device
    samples: int
    threads: int
    up: str
    save_depth: bool
    strict: bool


def render_object(
    model: Path, folder: Path, uid: str, settings: ViewSettings, options: RenderOptions
) -> None:
    """Render the missing views of a 3D model into a folder; the uid determines the elevations.

    Raises:
        OSError: the model does not exist, or the views cannot be written.
        ValueError: the model cannot be rendered; says why.
        RuntimeError: Blender failed.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model}: no such model")
    record = {name: getattr(options, name) for name in ("engine", "samples", "up")}
    record = {"model": sha256(model), **record}
    cameras = plan_cameras(settings, uid)
    views = ViewFolder(folder, cameras, settings.resolution, record, options.save_depth)
    if views.is_complete():
        log.info("%s: all %d views are complete", folder, settings.num_images)
        return
    problems = load_scene(model, options.up)  # before anything is written
    _report(model, problems, options.strict)
    set_threads(options.threads)
    size = settings.resolution
    device = configure_renderer(options.engine, options.device, size, options.samples)
    missing = views.prepare()
    if options.save_depth:
        enable_depth_output(folder)
    text = "%s: rendering %d of %d views on %s"
    log.info(text, folder, len(missing), settings.num_images, device)
    coverage: list[float] = []
    for index in missing:
        place_camera(views.cameras.world_to_camera[index])
        image = folder / ".view.tmp.png"
        render_view(image)
        coverage.append(float(_read_image(image)[..., 3].mean()))
        depth: np.ndarray | None = read_depth(folder) if options.save_depth else None
        views.add_view(index, image, depth)
    try:
        _report(model, _check_coverage(model, coverage), options.strict)
    except ValueError:
        views.remove(missing)
        raise
    log.info("%s: done", folder)


def _report(model: Path, problems: list[str], strict: bool) -> None:
    """Log problems as warnings, a line each that begins with the model; ValueError if `strict`."""
    if strict and problems:
        raise ValueError(f"{model}: {'; '.join(problems)} (--strict)")
    for problem in problems:
        log.warning("%s: %s", model, problem)


def _check_coverage(model: Path, coverage: list[float]) -> list[str]:
    """Sentences on empty views, whose mean alpha is 0; ValueError if nothing is visible in all."""
    empty = sum(share == 0 for share in coverage)
    if coverage and max(coverage) < MIN_COVERAGE:
        seen = f"at most {100 * max(coverage):.2g} % of a view, in {empty} of {len(coverage)} none"
        causes = "is it transparent, or tiny beside its bounding box?"
        raise ValueError(f"{model}: nothing of it is visible ({seen}): {causes}")
    return [f"{empty} of {len(coverage)} views show nothing of it"] if empty else []
