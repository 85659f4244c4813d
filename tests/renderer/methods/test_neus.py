from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from renderer.methods.fields import NeuSField, SurfaceSamples
from renderer.methods.neus import (
    LearningRateConfig,
    Rendering,
    SamplingConfig,
    eikonal_loss,
    learning_rate,
    neus_losses,
    render_rays,
    sample_depths,
)
from renderer.rays import points_on_rays
from tests.renderer.small_runs import TINY_MLP

SMALL = TINY_MLP.networks


class Sphere:
    """A sphere of radius 0.3 at the origin, coloured by its normals."""

    def __init__(self, sharpness: float = 64.0) -> None:
        self.sharpness = sharpness

    def sdf(self, points: Tensor) -> Tensor:
        return points.norm(dim=-1) - 0.3

    def surface(self, points: Tensor) -> SurfaceSamples:
        return SurfaceSamples(self.sdf(points), F.normalize(points, dim=-1), points[:, :0])

    def color(self, points: Tensor, normals: Tensor, to_camera: Tensor, features: Tensor) -> Tensor:
        return 0.5 + 0.5 * normals

    def inv_s(self) -> Tensor:
        return torch.tensor(self.sharpness)


@pytest.fixture(scope="module")
def rays(published) -> dict[str, Tensor]:
    return {
        "origins": published["rays_o"].reshape(16, 3),
        "directions": published["rays_d"].reshape(16, 3),
        "near": published["near"].reshape(16),
        "far": published["far"].reshape(16),
    }


@pytest.fixture(scope="module")
def rendering(published, rays) -> Rendering:
    return render_rays(Sphere(), rays["origins"], rays["directions"], published["z_vals"])


def parallel_rays(heights: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rays along -x from x = 2 at the given z, with near and far."""
    count = len(heights)
    origins = torch.tensor([[2.0, 0.0, z] for z in heights])
    directions = torch.tensor([[-1.0, 0.0, 0.0]]).expand(count, 3)
    return origins, directions, torch.full((count,), 1.2), torch.full((count,), 2.8)


def test_depths_are_the_published_ones(published, rays):
    depths = sample_depths(Sphere().sdf, **rays, config=SamplingConfig())
    assert_close(depths, published["z_vals"], atol=1e-5, rtol=0)
    uniforms = published["perturb_rand"][:, 0]
    shifted = sample_depths(Sphere().sdf, **rays, config=SamplingConfig(), uniforms=uniforms)
    assert_close(shifted, published["z_vals_perturbed"], atol=1e-5, rtol=0)


def test_a_rendered_sphere_is_the_published_one(published, rendering):
    assert_close(rendering.color, published["render_rgb"], atol=1e-5, rtol=0)
    assert_close(rendering.opacity, published["render_mask"][:, 0], atol=1e-5, rtol=0)
    assert_close(rendering.normal, published["render_normal"], atol=1e-5, rtol=0)
    assert_close(rendering.inside.float(), published["render_inner_mask"])
    errors = published["render_gradient_error"]
    assert_close(rendering.gradient_error, errors, atol=1e-10, rtol=0)


def test_losses_are_the_published_ones(published, rendering):
    masks = published["loss_mask_gt"][:, 0]
    total, terms = neus_losses(rendering, published["loss_rgb_gt"], masks)
    ours = torch.stack([total, terms["eikonal"], terms["color"], terms["mask"]])
    expected = published["loss_total_eikonal_rendering_mask"].float()
    assert_close(ours, expected, atol=1e-6, rtol=1e-6)


def test_a_sharp_sphere_is_seen_where_the_rays_meet_it():
    heights = [0.0, 0.1, -0.2, 0.28]
    origins, directions, near, far = parallel_rays(heights)
    sphere = Sphere(sharpness=2000.0)
    depths = sample_depths(sphere.sdf, origins, directions, near, far, SamplingConfig())
    seen = render_rays(sphere, origins, directions, depths)
    expected = 2.0 - (0.09 - torch.tensor(heights).square()).sqrt()
    hits = points_on_rays(origins, directions, expected[:, None])[:, 0]
    assert_close(seen.normal, hits / 0.3, atol=2e-2, rtol=0)
    assert_close(seen.opacity, torch.ones(4), atol=1e-3, rtol=0)


def test_rays_past_the_cube_are_white_and_empty():
    origins, directions, near, far = parallel_rays([0.7, -0.9])
    field = NeuSField(SMALL)
    depths = sample_depths(field.sdf, origins, directions, near, far, SamplingConfig())
    seen = render_rays(field, origins, directions, depths)
    assert not seen.inside.any()
    assert_close(seen.color, torch.ones(2, 3))
    assert_close(seen.opacity, torch.zeros(2))
    assert eikonal_loss(seen.gradient_error, seen.inside) == 0.0


def test_every_parameter_gets_a_gradient():
    """Five rays, three of which hit a red object."""
    field = NeuSField(SMALL)
    origins, directions, near, far = parallel_rays([0.0, 0.1, 0.2, 0.4, 0.5])
    config = SamplingConfig(coarse=16, importance=8, rounds=2)
    depths = sample_depths(field.sdf, origins, directions, near, far, config, torch.rand(5))
    masks = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
    colors = torch.where(masks[:, None] > 0, torch.tensor([0.8, 0.2, 0.1]), torch.ones(3))
    seen = render_rays(field, origins, directions, depths, cos_anneal=0.0)
    neus_losses(seen, colors, masks)[0].backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_without_masks_their_term_is_zero(rendering, published):
    total, terms = neus_losses(rendering, published["loss_rgb_gt"], None)
    assert terms["mask"] == 0.0
    assert_close(total, 0.5 * terms["color"] + 0.1 * terms["eikonal"])


def test_the_learning_rate_rises_for_100_steps_and_falls_every_1000():
    config = LearningRateConfig()
    factors = {0: 0.02, 50: 0.51, 100: 1.0, 999: 1.0, 1000: 0.1414, 2000: 0.02}
    for step, factor in factors.items():
        assert learning_rate(step, config) == pytest.approx(5e-4 * factor, rel=1e-3)
