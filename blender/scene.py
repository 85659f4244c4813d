"""A Blender scene with one normalised and lit 3D model (inside Blender only)."""

from __future__ import annotations

import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

from blender.model_file import find_file, repair_model

log = logging.getLogger(__name__)

GEOMETRY_TYPES = {"MESH", "CURVE", "SURFACE", "META", "FONT"}
"""Types of Blender objects that have faces."""
Y_UP = {".obj"}
"""Formats for which `up="auto"` means y; .glb, .gltf and .fbx define their axes themselves."""
LIGHT_POSITION = (4.076245, 1.005454, 5.903862)
LIGHT_WATTS, LIGHT_RADIUS = 1000.0, 0.1
"""The point light of Blender's default scene. Compat: the published script moved it together with
the object when centring; here its position is fixed."""
WORLD_GREY = 0.5
MAX_DEPTH = 10_000
"""Recursion limit of importers, for nodes that are nested deeply."""


def load_scene(path: Path, up: str = "auto") -> list[str]:
    """Replace the scene by a 3D model with longest side 1, centred on the origin, and lights.

    `up` is "y" or "z", the up axis of .obj, .ply and .stl files, or "auto". Returns what the
    rendering will not show as it is meant, such as missing textures, a sentence each.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, has no visible faces, or has no finite bounding box.
    """
    suffix = path.suffix.lower()
    if suffix not in IMPORTERS:
        raise ValueError(f"{path}: expected a model of type {' '.join(IMPORTERS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with tempfile.TemporaryDirectory() as folder:
        file, problems, hint = repair_model(path, Path(folder))
        _import(path, file, IMPORTERS[suffix], hint)
        for image in bpy.data.images:  # their paths may lead through the folder
            if image.filepath:
                image.filepath = os.path.normpath(bpy.path.abspath(image.filepath))
    _hide_lights_and_bone_shapes()
    _add_vertex_colour_materials()
    problems += _texture_problems()
    y_up = suffix in {".obj", ".ply", ".stl"} and (up == "y" or (up == "auto" and suffix in Y_UP))
    _normalise(path, math.pi / 2 if y_up else 0.0)
    _add_lights()
    return problems


def _import(path: Path, file: Path, importer: Callable[[str], set[str]], hint: str) -> None:
    """Import `file`, which has the content of `path`; `hint` is added to the error."""
    sys.setrecursionlimit(MAX_DEPTH)
    for name in ("bool", "int", "float", "object"):
        # Blender 3's glTF importer uses aliases that NumPy 1.24 to 1.26 do not have
        if name not in vars(np):
            setattr(np, name, {"bool": bool, "int": int, "float": float, "object": object}[name])
    try:
        result = importer(str(file.resolve()))
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = _reason(error).replace(str(file.resolve()), str(path))
        raise ValueError(f"{path}: cannot be read: {reason}{hint}") from error
    if "FINISHED" not in result:
        raise ValueError(f"{path}: cannot be read, Blender's importer gave up{hint}")


def _reason(error: Exception) -> str:
    """The line of an importer's error report that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Location:")] or [type(error).__name__]
    line = lines[-1] if any("Traceback" in line for line in lines) else lines[0]
    return line.removeprefix("Error: ")


def _obj(path: str) -> set[str]:
    return bpy.ops.wm.obj_import(filepath=path, forward_axis="Y", up_axis="Z")


def _ply(path: str) -> set[str]:
    if "ply" in dir(bpy.ops.import_mesh):  # before Blender 4
        return bpy.ops.import_mesh.ply(filepath=path)
    return bpy.ops.wm.ply_import(filepath=path, forward_axis="Y", up_axis="Z")


def _stl(path: str) -> set[str]:
    if "stl" in dir(bpy.ops.import_mesh):  # before Blender 4.2
        return bpy.ops.import_mesh.stl(filepath=path, axis_forward="Y", axis_up="Z")
    return bpy.ops.wm.stl_import(filepath=path, forward_axis="Y", up_axis="Z")


IMPORTERS: dict[str, Callable[[str], set[str]]] = {
    ".glb": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    ".gltf": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    ".fbx": lambda path: bpy.ops.import_scene.fbx(filepath=path),
    ".obj": _obj,
    ".ply": _ply,
    ".stl": _stl,
}


def _hide_lights_and_bone_shapes() -> None:
    """Hide the file's lights, and shapes that only display bones; removing would move children."""
    for item in bpy.data.objects:
        if item.type in {"LIGHT", "LIGHT_PROBE"}:
            item.hide_render = True
        if item.pose is not None:
            for bone in item.pose.bones:
                if bone.custom_shape is not None:
                    bone.custom_shape.hide_render = True


def _add_vertex_colour_materials() -> None:
    """Add materials to meshes that have vertex colours and no material."""
    for mesh in bpy.data.meshes:
        colours = mesh.color_attributes
        if not len(colours) or any(material is not None for material in mesh.materials):
            continue
        material = bpy.data.materials.new("vertex colours")
        material.use_nodes = True
        nodes = material.node_tree.nodes
        shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
        source = nodes.new("ShaderNodeVertexColor")
        source.layer_name = colours[0].name
        material.node_tree.links.new(source.outputs["Color"], shader.inputs["Base Color"])
        mesh.materials.clear()
        mesh.materials.append(material)


def _texture_problems() -> list[str]:
    """Sentences on textures that Blender cannot load, whose faces will be magenta.

    A missing file is first looked for with other capitals and other slashes, as on Windows.
    """
    trees = [item.node_tree for item in bpy.data.materials if item.node_tree is not None]
    trees += list(bpy.data.node_groups)
    nodes = [node for tree in trees for node in tree.nodes if node.type == "TEX_IMAGE"]
    nodes = [node for node in nodes if any(output.is_linked for output in node.outputs)]
    found = {node.image: None for node in nodes if node.image is not None}
    reasons = [_load_error(image) for image in found]
    if len(nodes) > sum(node.image is not None for node in nodes):
        reasons.append("a texture has no image")
    return [f"{reason}, its faces will be magenta" for reason in reasons if reason]


def _load_error(image: bpy.types.Image) -> str | None:
    """Load an image; None if that succeeds, else what is wrong with it."""
    file = Path(bpy.path.abspath(image.filepath))
    on_disk = image.source == "FILE" and image.packed_file is None
    if on_disk and not file.is_file():
        other = find_file(file)
        if other is None and not len(image.pixels):
            return f"texture {file} is missing"
        if other is not None:
            loaded = bpy.data.images.load(str(other))
            image.user_remap(loaded)
            image = loaded
    if len(image.pixels):  # reads the file
        return None
    return f"texture {file if on_disk else image.name} cannot be decoded"


def _rendered_objects() -> Iterator[bpy.types.Object]:
    """Yield the visible objects that can have faces."""

    def walk(layer: bpy.types.LayerCollection) -> Iterator[bpy.types.Object]:
        if not layer.exclude and not layer.collection.hide_render:
            yield from layer.collection.objects
            for child in layer.children:
                yield from walk(child)

    shown = {item.name: item for item in walk(bpy.context.view_layer.layer_collection)}
    for item in shown.values():
        if item.type in GEOMETRY_TYPES and not item.hide_render:
            yield item


def bounding_box() -> tuple[np.ndarray, np.ndarray]:
    """Bounding box of all visible faces in world coordinates, with poses and modifiers applied.

    Compat: the published script joins the transformed bounding boxes of the parts, which gives a
    larger box for rotated parts. This is the box of the vertices, as in the evaluation.

    Returns the lower and upper corner, (3,) each; ValueError without faces or if not finite.
    """
    bpy.context.view_layer.update()
    graph = bpy.context.evaluated_depsgraph_get()
    boxes = []
    for item in _rendered_objects():
        evaluated = item.evaluated_get(graph)
        mesh = evaluated.to_mesh()
        if mesh is not None and len(mesh.polygons):
            points = _corners(mesh) @ np.array(evaluated.matrix_world, dtype=np.float64).T
            boxes.append((points[:, :3].min(axis=0), points[:, :3].max(axis=0)))
        evaluated.to_mesh_clear()
    if not boxes:
        raise ValueError("there is no mesh with faces")
    lower, upper = np.min(boxes, axis=0)[0], np.max(boxes, axis=0)[1]
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):  # `min` propagates NaN
        raise ValueError("its bounding box is not finite")
    return lower, upper


def _corners(mesh: bpy.types.Mesh) -> np.ndarray:
    """Homogeneous vertices of the faces of a mesh, (P, 4), without unused vertices."""
    points = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.vertices.foreach_get("co", points)
    used = np.empty(len(mesh.loops), dtype=np.int32)
    mesh.loops.foreach_get("vertex_index", used)
    corners = points.reshape(-1, 3)[np.unique(used)].astype(np.float64)
    return np.concatenate([corners, np.ones((len(corners), 1))], axis=1)


def _normalise(path: Path, angle: float) -> None:
    """Rotate (about x, radians), scale and centre the scene: all roots get one empty as parent."""
    frame = bpy.data.objects.new("frame of the model", None)
    bpy.context.scene.collection.objects.link(frame)
    for item in list(bpy.context.scene.objects):
        if item.parent is None and item != frame:
            item.parent = frame
    try:
        frame.matrix_world = Matrix.Rotation(angle, 4, "X")
        lower, upper = bounding_box()
        size = float((upper - lower).max())
        if not 1e-30 < size < 1e30:
            raise ValueError(f"its longest side is {size:g}, which cannot be scaled to 1")
        centre = (lower + upper) / 2
        move = Matrix.Translation((-centre / size).tolist())
        frame.matrix_world = move @ Matrix.Scale(1 / size, 4) @ Matrix.Rotation(angle, 4, "X")
        lower, upper = bounding_box()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if abs((upper - lower).max() - 1) > 1e-3 or np.abs(lower + upper).max() > 2e-3:
        box = f"its box is then {lower.round(3)} to {upper.round(3)}"
        cause = "the model is too far from its origin, or constraints hold it"
        raise ValueError(f"{path}: could not be scaled to 1 and centred, {box}; {cause}")


def _add_lights() -> None:
    """Add the default point light and a uniform grey world."""
    light = bpy.data.lights.new("light", "POINT")
    light.energy, light.shadow_soft_size = LIGHT_WATTS, LIGHT_RADIUS
    item = bpy.data.objects.new("light", light)
    item.location = LIGHT_POSITION
    bpy.context.scene.collection.objects.link(item)
    world = bpy.data.worlds.new("grey")
    world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (WORLD_GREY, WORLD_GREY, WORLD_GREY, 1.0)
    background.inputs["Strength"].default_value = 1.0
    bpy.context.scene.world = world
