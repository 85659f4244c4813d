"""Run inside Blender: writes 3D models with Blender's exporters into the folder after "--".

They are balls of the colours and positions that `test_blender.py` expects.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import bpy
import numpy as np

for name in ("bool", "int", "float", "object"):  # the exporters use aliases that NumPy removed
    if name not in vars(np):
        setattr(np, name, {"bool": bool, "int": int, "float": float, "object": object}[name])


def add_ball(colour: list[float], place: list[float], radius: float):
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=4, radius=radius, location=place)
    ball = bpy.context.object
    material = bpy.data.materials.new("m")
    material.use_nodes = True
    shader = next(n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = (*colour, 1.0)
    ball.data.materials.append(material)
    return ball


def rig(ball) -> None:
    """Attach a ball to the bone of an armature that is rotated and scaled by 0.01."""
    bpy.ops.object.armature_add(location=(0.3, 0.2, 0.1), rotation=(math.pi / 2, 0, 0.5))
    armature = bpy.context.object
    armature.scale = (0.01, 0.01, 0.01)
    bpy.context.view_layer.update()
    group = ball.vertex_groups.new(name=armature.data.bones[0].name)
    group.add(list(range(len(ball.data.vertices))), 1.0, "REPLACE")
    place = ball.matrix_world.copy()
    ball.parent = armature
    ball.matrix_parent_inverse = armature.matrix_world.inverted()
    ball.matrix_world = place
    ball.modifiers.new("rig", "ARMATURE").object = armature


def main() -> None:
    folder, described = Path(sys.argv[-2]), json.loads(sys.argv[-1])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    balls = [add_ball(*ball) for ball in described]
    bpy.ops.export_scene.fbx(filepath=str(folder / "balls.fbx"))
    rig(balls[0])
    empty = bpy.data.objects.new("a root with a place of its own", None)
    empty.location, empty.scale = (2, -1, 3), (3, 3, 3)
    bpy.context.scene.collection.objects.link(empty)
    bpy.context.view_layer.update()
    place = balls[1].matrix_world.copy()
    balls[1].parent = empty
    balls[1].matrix_world = place
    bpy.ops.object.light_add(type="POINT", location=(0, 0, 3))
    lamp = bpy.context.object
    lamp.data.energy, lamp.data.color = 1e6, (0, 1, 1)
    bpy.context.view_layer.update()
    bpy.ops.object.camera_add(location=(9, 9, 9))
    bpy.context.scene.camera = bpy.context.object
    bpy.ops.export_scene.fbx(filepath=str(folder / "rigged.fbx"))
    place = balls[2].matrix_world.copy()
    balls[2].parent = lamp  # must not move when the light is hidden; .fbx does not store this
    balls[2].matrix_world = place
    path = str(folder / "rigged.glb")
    bpy.ops.export_scene.gltf(filepath=path, export_lights=True, export_cameras=True)


main()
