"""Run inside Blender: renders an ellipsoid by random cameras, and writes what Blender says of them.

Arguments after "--": the folder, width and height in pixels, the number of images, the centre and
the half axes of the ellipsoid.
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path

import bpy
from mathutils import Vector

folder, width, height, count, *numbers = sys.argv[sys.argv.index("--") + 1 :]
centre, radii = Vector(map(float, numbers[:3])), list(map(float, numbers[3:]))
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_uv_sphere_add(segments=96, ring_count=48, radius=1, location=centre)
bpy.context.object.scale = radii
scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.cycles.samples, scene.render.threads_mode, scene.render.threads = 16, "FIXED", 1
scene.cycles.use_denoising = False  # not in every build
scene.render.film_transparent = True
scene.render.resolution_x, scene.render.resolution_y = int(width), int(height)
bpy.ops.object.light_add(type="SUN", rotation=(0.5, 0.3, 0))
camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
camera.data.lens = 45
scene.collection.objects.link(camera)
scene.camera = camera
generator, frames = random.Random(0), []
for k in range(int(count)):
    azimuth, z = generator.uniform(0, 2 * math.pi), generator.uniform(-0.3, 0.9)
    flat = math.sqrt(1 - z**2)
    towards = Vector((flat * math.cos(azimuth), flat * math.sin(azimuth), z))
    camera.location = centre + towards * max(radii) * generator.uniform(5, 8)
    aim = centre + Vector([generator.uniform(-0.2, 0.2) for _ in range(3)])
    camera.rotation_euler = (aim - camera.location).to_track_quat("-Z", "Y").to_euler()
    bpy.context.view_layer.update()
    scene.render.filepath = str(Path(folder, f"r_{k}.png"))
    bpy.ops.render.render(write_still=True)
    matrix = [list(row) for row in camera.matrix_world]
    frames.append({"file_path": f"./r_{k}", "transform_matrix": matrix})
content = {"camera_angle_x": camera.data.angle_x, "frames": frames}
Path(folder, "transforms.json").write_text(json.dumps(content))
