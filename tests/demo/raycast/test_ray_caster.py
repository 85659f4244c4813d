from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

pytest.importorskip("embreex", reason="needs requirements/demo.txt")

from blender.plan import META, ViewSettings, plan_cameras
from blender.process import blender_command
from blender.view_folder import ViewFolder
from demo.raycast.ray_caster import filmic, render_light
from demo.raycast.ray_scene import RayScene, build_embree, run_embree
from demo.raycast.render_views import render_view_folders, render_views
from demo.raycast.scene_arrays import flatten_scene
from demo.raycast.shading import LIGHT, LIGHT_POSITION, lamp_light
from demo.raycast.textures import srgb_to_linear
from multiview.cameras import Cameras, orbit_cameras

BLENDER = os.environ.get("BLENDER") or shutil.which("blender")
SIZE = 64
DULL = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
Y_UP = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])


def coloured(mesh: trimesh.Trimesh, *colour: float, mode: str = "OPAQUE") -> trimesh.Trimesh:
    rgba = np.array([*colour, 1.0][:4])
    mesh.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=rgba, alphaMode=mode, **DULL))
    return mesh


def board(image: np.ndarray) -> trimesh.Trimesh:
    """A square in the plane of y and z that faces the camera at azimuth 0, image upright."""
    corners = [[0, -0.5, -0.5], [0, 0.5, -0.5], [0, 0.5, 0.5], [0, -0.5, 0.5]]
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
    look = PBRMaterial(baseColorTexture=Image.fromarray(image), alphaMode="OPAQUE", **DULL)
    mesh.visual = TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], material=look)
    return mesh


def ball(subdivisions: int = 4) -> trimesh.Trimesh:
    mesh = coloured(trimesh.creation.icosphere(subdivisions, 0.5), 0.5, 0.5, 0.5)
    assert len(mesh.vertex_normals)  # from now on it is smooth
    return mesh


def ahead() -> Cameras:
    return orbit_cameras(1, 0.0, 1.5, SIZE)


def light(mesh: trimesh.Trimesh | list[trimesh.Trimesh]) -> np.ndarray:
    return render_light(RayScene(flatten_scene(mesh)), ahead(), SIZE, 1)[0]


def test_the_silhouette_of_a_ball_is_a_disc_of_the_right_size():
    (view,) = render_views(ball(5), ahead(), SIZE, supersampling=3)
    # the tangent cone: sin = 0.5 / 1.5
    radius = 70 * np.tan(np.arcsin(1 / 3))
    assert view[..., 3].sum() / 255 == pytest.approx(np.pi * radius**2, rel=0.005)
    rows, columns = np.nonzero(view[..., 3])
    assert columns.min() + columns.max() == rows.min() + rows.max() == SIZE - 1
    assert len(np.unique(view[..., 3])) > 3  # soft edges
    (view,) = render_views(ball(), ahead(), SIZE, supersampling=1)
    assert set(np.unique(view[..., 3])) == {0, 255}  # hard ones


def test_colours_at_the_edge_are_not_darkened_by_the_background():
    image = np.full((4, 4, 3), 200, np.uint8)
    turned = board(image).apply_transform(trimesh.transformations.rotation_matrix(0.3, [1, 0, 0]))
    (view,) = render_views(turned, ahead(), SIZE, supersampling=3)
    edge = (view[..., 3] > 0) & (view[..., 3] < 255)
    assert edge.sum() > 20
    inside = view[view[..., 3] == 255][:, 0].astype(int)
    assert np.abs(view[edge][:, 0].astype(int) - inside.mean()).max() < 12


def test_the_lamp_lights_by_the_cosine_and_the_square_of_the_distance():
    scene = RayScene(flatten_scene(ball()))
    normals = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0]], np.float32)
    places = normals * np.float32(0.51)
    found, towards = lamp_light(scene, places, normals, normals)
    way = LIGHT_POSITION - places
    distance = np.linalg.norm(way, axis=1)
    expected = LIGHT * np.clip((way * normals).sum(1) / distance, 0, None) / distance**2
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[1] == 0
    np.testing.assert_allclose(towards, way / distance[:, None], rtol=1e-5)


def test_a_ball_is_lit_smoothly_and_a_ball_of_facets_is_not():
    facets = coloured(trimesh.creation.icosphere(2, 0.5), 0.5, 0.5, 0.5)
    rows = (light(mesh)[32, 16:48, 0].round(4) for mesh in (facets, ball(2)))
    flat, smooth = map(np.unique, rows)
    assert len(flat) < len(smooth)


def test_in_a_closed_room_there_is_less_light_than_outside():
    room = trimesh.creation.box((1, 1, 1))
    room.update_faces(np.abs(room.face_normals[:, 0] - 1) > 0.1)  # open towards the camera
    inside, back = coloured(room, 0.3, 0.3, 0.3), board(np.full((4, 4, 3), 149, np.uint8))
    assert light(inside)[32, 32, 0] < 0.6 * light(back)[32, 32, 0]


def test_a_texture_is_upright_and_not_mirrored():
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    (view,) = render_views(board(corners.repeat(8, 0).repeat(8, 1)), ahead(), SIZE)
    brightest = [[view[r, c, :3].argmax() for c in (20, 44)] for r in (20, 44)]
    assert brightest[0] == [0, 1]
    assert brightest[1][0] == 2
    assert np.ptp(view[44, 44, :3].astype(int)) == 0


def test_textures_are_sampled_between_texels_repeat_and_fine_ones_are_averaged():
    ramp = np.zeros((1, 4, 3), np.uint8)
    ramp[0, :, 0] = [0, 255, 0, 0]
    surfaces = flatten_scene(board(ramp))
    u = np.array([0.125, 0.25, 0.375, 1.375, -0.625, 0.0, 1.0], np.float32)
    uv = np.stack([u, np.full_like(u, 0.5)], axis=1)
    red = surfaces.textures.sample(np.zeros(len(u), np.int32), uv)[:, 0]
    np.testing.assert_allclose(red, [0, 0.5, 1, 1, 1, 0, 0], atol=1e-6)
    chequered = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    (view,) = render_views(board(np.dstack([chequered] * 3)), ahead(), SIZE)
    inside = view[24:40, 24:40, 0]
    assert np.ptp(inside.astype(int)) <= 8  # of 255


@pytest.mark.parametrize(("mode", "alpha"), [("OPAQUE", 255), ("MASK", 0), ("BLEND", 102)])
def test_alpha_counts_as_the_material_says(mode: str, alpha: int):
    mesh = coloured(trimesh.creation.box((0.001, 1, 1)), 0.5, 0.5, 0.5, 0.4, mode=mode)
    mesh.update_faces(mesh.face_normals[:, 0] > 0.5)
    (view,) = render_views(mesh, ahead(), SIZE)
    assert view[32, 32, 3] == pytest.approx(alpha, abs=1)


def test_what_is_behind_glass_shows_through():
    glass = coloured(trimesh.creation.box((0.01, 1, 1)), 0.0, 0.0, 0.0, 0.25, mode="BLEND")
    glass.update_faces(glass.face_normals[:, 0] > 0.5)
    wall = coloured(trimesh.creation.box((0.01, 1, 1)), 1.0, 0.0, 0.0)
    wall.apply_translation([-0.5, 0, 0])
    through = light([glass, wall])[32, 32]
    assert through[3] == pytest.approx(1)
    assert through[0] > 4 * through[1]
    (view,) = render_views(glass, ahead(), SIZE)  # glass only casts no shadows
    assert 0 < view[32, 32, 3] < 128


def test_colours_of_vertices_faces_and_simple_materials_are_shown():
    green, (vertices, faces, simple) = [0, 255, 0, 255], (trimesh.creation.box() for _ in range(3))
    vertices.visual.vertex_colors = faces.visual.face_colors = green
    material = trimesh.visual.material.SimpleMaterial(diffuse=green)
    simple.visual = TextureVisuals(material=material)
    for mesh in (vertices, faces, simple):
        (view,) = render_views(mesh, ahead(), SIZE)
        assert view[32, 32, 1] > 100 > view[32, 32, 0]


def test_an_object_is_scaled_and_centred_with_its_transforms():
    scene = trimesh.Scene()
    box = coloured(trimesh.creation.box((1, 2, 1)), 1.0, 1.0, 1.0)
    away = trimesh.transformations.translation_matrix([5, 6, 7])
    scene.add_geometry(box, transform=away)
    scene.add_geometry(box, transform=away @ np.diag([2.0, 1, 3, 1]))
    corners = flatten_scene(scene).corners.reshape(-1, 3)
    np.testing.assert_allclose(np.ptp(corners, axis=0), [2 / 3, 2 / 3, 1], atol=1e-6)
    np.testing.assert_allclose(corners.max(0) + corners.min(0), 0, atol=1e-6)


def test_what_cannot_be_seen_and_rays_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="no mesh with faces"):
        flatten_scene(trimesh.Scene())
    for corner in (np.nan, np.inf):
        mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [corner, 1, 0]], [[0, 1, 2]], process=False)
        with pytest.raises(ValueError, match="longest side"):
            flatten_scene(mesh)
    scene = build_embree(np.zeros((1, 3, 3), np.float32))
    with pytest.raises(ValueError, match="origins"):  # before Embree reads beyond them
        run_embree(scene, np.zeros((3, 3)), np.zeros((4, 3)))


def test_views_in_chunks_are_nearly_the_views_at_once(monkeypatch: pytest.MonkeyPatch):
    cameras = orbit_cameras(4, 30.0, 1.5, SIZE)
    at_once = render_views(ball(), cameras, SIZE)
    monkeypatch.setattr("demo.raycast.ray_caster.RAYS_AT_ONCE", 1)
    one_by_one = render_views(ball(), cameras, SIZE)
    assert np.abs(at_once.astype(int) - one_by_one).max() <= 8
    np.testing.assert_array_equal(at_once[..., 3], one_by_one[..., 3])


def test_the_tone_curve_is_blenders():
    greys = np.array([0.0, 0.01, 0.18, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(filmic(greys) * 255, [0, 25.8, 127.6, 177.2, 205.8, 227.5], atol=1.5)
    np.testing.assert_allclose(srgb_to_linear(np.array([0, 0.5, 1.0])), [0, 0.21404, 1], atol=1e-4)


def test_a_folder_of_views_is_written_as_blenders_job_does_and_kept(tmp_path: Path):
    fixed = ViewSettings(num_images=3, resolution=32)
    random = ViewSettings(camera_type="random", num_images=3, resolution=32)
    folders = [(tmp_path / "target" / "ball", fixed), (tmp_path / "input" / "ball", random)]
    assert render_view_folders(ball(), folders, "ball", "a ball") == 6
    for path, settings in folders:
        names = sorted(file.name for file in path.iterdir())
        assert names == ["000.png", "001.png", "002.png", META]
        with Image.open(path / "000.png") as file:
            assert (file.mode, file.size) == ("RGBA", (32, 32))
        record = {"model": "a ball", "engine": "RAYS 1", "supersampling": 2}
        cameras = plan_cameras(settings, "ball")
        assert ViewFolder(path, cameras, 32, record).is_complete()
    assert render_view_folders(ball(), folders, "ball", "a ball") == 0
    (folders[0][0] / META).unlink()
    assert render_view_folders(ball(), folders, "ball", "a ball") == 0
    assert (folders[0][0] / META).is_file()
    (folders[0][0] / "001.png").unlink()
    assert render_view_folders(ball(), folders, "ball", "a ball") == 1
    assert render_view_folders(ball(), folders, "ball", "another ball") == 6


@pytest.fixture(scope="module")
def still_life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of several colours, one of them with a texture; a .glb has y up."""
    image = np.full((16, 16, 3), (60, 200, 90), np.uint8)
    image[:8, :8] = (220, 220, 40)
    parts = [board(image), coloured(trimesh.creation.torus(0.4, 0.15), 0.8, 0.2, 0.1)]
    parts.append(coloured(trimesh.creation.icosphere(4, 0.25), 0.1, 0.2, 0.8))
    parts[1].apply_translation([0.0, 0.1, -0.5])
    parts[2].apply_translation([0.4, 0.2, 0.2])
    assert all(len(part.vertex_normals) for part in parts[1:])
    path = tmp_path_factory.mktemp("models") / "still-life.glb"
    scene = trimesh.Scene(parts)
    scene.apply_transform(Y_UP)
    scene.export(path)
    return path


@pytest.mark.blender
@pytest.mark.skipif(BLENDER is None, reason="needs Blender (in $PATH or $BLENDER)")
@pytest.mark.parametrize("camera_type", ["fixed", "random"])
def test_views_are_near_blenders(still_life: Path, tmp_path: Path, camera_type: str):
    flags = [f"--object_path={still_life}", f"--output_dir={tmp_path}", "--device=CPU"]
    flags += ["--num_images=4", "--samples=16", f"--resolution={4 * SIZE}"]
    command = blender_command(BLENDER, [*flags, f"--camera_type={camera_type}", "--threads=2"])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    files = [tmp_path / "still-life" / f"{i:03d}.png" for i in range(4)]
    real = np.stack([np.asarray(Image.open(file), np.float64) for file in files])
    # an average of 4 x 4 hard pixels has soft edges
    blocks = real.reshape(4, SIZE, 4, SIZE, 4, 4)
    alpha = blocks[..., 3:].mean(axis=(2, 4))
    colour = (blocks[..., :3] * blocks[..., 3:]).mean(axis=(2, 4)) / np.maximum(alpha, 1)
    settings = ViewSettings(camera_type=camera_type, num_images=4, resolution=SIZE)
    scene = trimesh.load(still_life, force="scene")
    scene.apply_transform(np.linalg.inv(Y_UP))
    ours = render_views(scene, plan_cameras(settings, "still-life"), SIZE).astype(np.float64)
    seen, expected = ours[..., 3] > 127, alpha[..., 0] > 127
    assert (seen & expected).sum() / (seen | expected).sum() >= 0.98
    difference = (ours[..., :3] - colour)[seen & expected]
    assert np.abs(difference.mean(axis=0)).max() < 6
    assert 10 * np.log10(255**2 / (difference**2).mean()) > 25


def test_without_embreex_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -r requirements/demo\.txt"):
        RayScene(flatten_scene(ball(1)))
