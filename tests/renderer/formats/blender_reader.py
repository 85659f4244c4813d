"""Run in Blender: import mesh files, and print their sizes, volumes and textures as JSON.

blender --background --factory-startup --python blender_reader.py -- a.glb b.stl
"""

from __future__ import annotations

import json
import sys

import bmesh
import bpy
import numpy as np

if not hasattr(np, "bool"):  # Debian's Blender 3.4 wants it, its NumPy 1.24 has it no more
    np.bool = bool
IMPORTERS = {
    "glb": ("import_scene.gltf",),
    "obj": ("wm.obj_import", "import_scene.obj"),
    "ply": ("wm.ply_import", "import_mesh.ply"),
    "stl": ("wm.stl_import", "import_mesh.stl"),
    "usdz": ("wm.usd_import",),
}
"""Their names differ between Blender 3 and 4."""


def run_importer(path: str) -> bool:
    """Import a file, if this Blender can: Debian's cannot read USD."""
    for name in IMPORTERS[path.rpartition(".")[2]]:
        group, _, operator = name.partition(".")
        if operator in dir(getattr(bpy.ops, group)):
            getattr(getattr(bpy.ops, group), operator)(filepath=path)
            return True
    return False


def measure(path: str) -> dict[str, object] | None:
    """Bounds in Blender's axes (z up), volume, corners with texture coordinates, image sizes."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    if not run_importer(path):
        return None
    corners, volume, faces, uvs, points = [], 0.0, 0, 0, 0
    for thing in [each for each in bpy.context.scene.objects if each.type == "MESH"]:
        shape = bmesh.new()
        shape.from_mesh(thing.data)
        shape.transform(thing.matrix_world)
        corners += [vertex.co.copy() for vertex in shape.verts]
        volume += shape.calc_volume(signed=True)
        faces += len(shape.faces)
        points += len(shape.verts)
        uvs += sum(len(layer.data) for layer in thing.data.uv_layers)
        shape.free()
    low, high = ([pick(v[k] for v in corners) for k in range(3)] for pick in (min, max))
    images = [list(image.size) for image in bpy.data.images if image.size[0]]
    found = {"low": low, "high": high, "volume": volume, "faces": faces, "points": points}
    return {**found, "uvs": uvs, "images": images}


paths = sys.argv[sys.argv.index("--") + 1 :]
sys.stdout.write("MEASURED " + json.dumps({path: measure(path) for path in paths}) + "\n")
