from __future__ import annotations

import colorsys

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from demo.augmentation import augment, shift_colours


def scene() -> trimesh.Scene:
    image = Image.new("RGBA", (4, 4), (200, 40, 40, 128))
    textured = trimesh.creation.box((1, 2, 3))
    look = PBRMaterial(baseColorTexture=image, metallicFactor=0.0, alphaMode="BLEND")
    textured.visual = TextureVisuals(uv=np.zeros((len(textured.vertices), 2)), material=look)
    plain = trimesh.creation.icosphere(2)
    plain.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[10, 200, 30, 255]))
    assert len(plain.vertex_normals)
    painted = trimesh.creation.box()
    painted.visual.vertex_colors = [200, 100, 50, 255]
    return trimesh.Scene([textured, plain, painted])


def corners(scene: trimesh.Scene) -> np.ndarray:
    """Vertices of all parts where they are in the scene."""
    return np.concatenate([
        trimesh.transform_points(scene.geometry[name].vertices, transform)
        for transform, name in (scene.graph[node] for node in sorted(scene.graph.nodes_geometry))
    ])  # fmt: skip


def test_colours_shift_as_pythons_own_conversion_does_and_alpha_is_kept():
    colours = np.random.default_rng(0).integers(0, 256, (50, 3), dtype=np.uint8)
    colours[:3] = [[0, 0, 0], [255, 255, 255], [7, 7, 7]]
    shifted = shift_colours(colours, 0.3, 0.5, 0.8)
    for before, after in zip(colours, shifted, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = colorsys.hsv_to_rgb((hue + 0.3) % 1, saturation * 0.5, value * 0.8)
        np.testing.assert_allclose(after, np.array(expected) * 255, atol=1)
    colours = np.random.default_rng(1).integers(0, 256, (5, 5, 4), dtype=np.uint8)
    np.testing.assert_array_equal(shift_colours(colours, 0, 1, 1), colours)
    np.testing.assert_array_equal(shift_colours(colours, 0.4, 2, 2)[..., 3], colours[..., 3])


def test_the_name_determines_a_variant():
    one, same, other = (augment(scene(), name) for name in "aab")
    np.testing.assert_array_equal(corners(one), corners(same))
    assert np.abs(corners(one) - corners(other)).max() > 0.01


def test_a_variant_is_within_its_limits_and_upright(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("demo.augmentation.STRETCH", 1.0)
        turned = augment(scene(), "x")
    original = scene()
    np.testing.assert_allclose(corners(turned)[:, 2], corners(original)[:, 2], atol=1e-9)
    distances = [np.linalg.norm(corners(each), axis=1) for each in (turned, original)]
    np.testing.assert_allclose(*distances)
    heights = [augment(original, str(k)).extents[2] / original.extents[2] for k in range(20)]
    assert 1 / 1.3 - 1e-9 <= min(heights) < 0.95
    assert 1.05 < max(heights) <= 1.3 + 1e-9


def test_the_original_is_not_changed_and_everything_is_recoloured():
    original = scene()
    variant = augment(original, "y")
    before, after = list(original.geometry.values()), list(variant.geometry.values())
    assert before[0].visual.material.baseColorTexture.getpixel((0, 0)) == (200, 40, 40, 128)
    pixel = after[0].visual.material.baseColorTexture.getpixel((0, 0))
    assert pixel[:3] != (200, 40, 40)
    assert pixel[3] == 128
    assert list(before[1].visual.material.baseColorFactor) == [10, 200, 30, 255]
    assert list(after[1].visual.material.baseColorFactor) != [10, 200, 30, 255]
    assert "vertex_normals" in after[1]._cache.cache
    assert list(before[2].visual.vertex_colors[0]) == [200, 100, 50, 255]
    assert list(after[2].visual.vertex_colors[0]) != [200, 100, 50, 255]
