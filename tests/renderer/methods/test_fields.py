from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from renderer.methods.fields import NeuSField, SDFNetwork, SDFNetworkConfig
from tests.renderer.small_runs import TINY_MLP

SMALL = TINY_MLP.networks


def seeded_weight(name: str, shape: torch.Size) -> Tensor:
    """The weight that the published numbers were made with, from its name in a checkpoint."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    values = rng.standard_normal(tuple(shape))
    if name.endswith("weight_v"):
        values = values / np.sqrt(shape[1])
    elif name.endswith("weight_g"):
        values = 1.0 + 0.1 * values
    else:
        values = values * (0.05 if name.endswith("bias") else 0.02)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@pytest.fixture(scope="module")
def seeded_field() -> NeuSField:
    network = NeuSField()
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict({n: seeded_weight(f"renderer.{n}", s) for n, s in shapes.items()})
    return network


def test_names_and_shapes_follow_the_published_pattern():
    state = NeuSField().state_dict()
    linear = [f"{part}.lin{i}" for part, n in (("sdf", 9), ("color", 5)) for i in range(n)]
    names = [f"{part}.{leaf}" for part in linear for leaf in ("bias", "weight_g", "weight_v")]
    names = [name.replace(".", "_network.", 1) for name in names]
    assert list(state) == [*names, "deviation_network.variance"]
    assert sum(value.numel() for value in state.values()) == 802491
    assert state["sdf_network.lin3.weight_v"].shape == (217, 256)
    assert state["sdf_network.lin8.weight_g"].shape == (257, 1)
    assert state["color_network.lin0.weight_v"].shape == (256, 289)


def test_the_networks_compute_the_published_numbers(seeded_field, published):
    points, to_camera = published["net_points"], published["net_dirs"]
    with torch.no_grad():
        surface = seeded_field.surface(points)
        normals = F.normalize(surface.gradients, dim=-1)
        colors = seeded_field.color(points, normals, to_camera, surface.features)
    out = torch.cat([surface.sdf[:, None], surface.features], dim=-1)
    assert_close(out, published["net_sdf_and_features"], atol=1e-5, rtol=0)
    assert_close(surface.gradients, published["net_gradient"], atol=1e-5, rtol=0)
    assert_close(colors, published["net_color"], atol=1e-5, rtol=0)


def test_an_untrained_network_is_roughly_a_sphere_of_sharpness_exp_3():
    assert NeuSField(SMALL).inv_s().item() == pytest.approx(20.0855, abs=1e-3)
    network = SDFNetwork(SDFNetworkConfig())
    radius = torch.linspace(0.1, 1.0, 200)
    points = F.normalize(torch.randn(200, 3), dim=-1) * radius[:, None]
    with torch.no_grad():
        surface = network.with_gradients(points)
    error = surface.sdf - (radius - 0.5)
    assert abs(error.mean()) < 0.15
    assert error.square().mean().sqrt() < 0.25
    assert (surface.sdf[radius < 0.2] < 0).all()
    assert surface.sdf[radius > 0.8].mean() > 0.15
    assert (surface.gradients * points).sum(dim=-1).min() > 0


def test_gradients_are_the_differences_of_the_distance():
    network = SDFNetwork(SMALL.sdf).double()
    points = 0.5 * torch.randn(4, 3, dtype=torch.float64)
    gradients = network.with_gradients(points).gradients
    steps = 1e-5 * torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        ahead = network(points[:, None] + steps)[..., 0]
        behind = network(points[:, None] - steps)[..., 0]
    assert_close(gradients, (ahead - behind) / 2e-5, atol=1e-6, rtol=1e-6)


def test_gradients_can_be_trained_and_cost_no_graph_without_training():
    network = SDFNetwork(SMALL.sdf)
    points = torch.randn(4, 3)
    training = network.with_gradients(points)
    training.gradients.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None or name == "lin3.bias", name
    with torch.no_grad():
        evaluation = network.with_gradients(points)
    assert_close(evaluation.gradients, training.gradients.detach())
    tensors = (evaluation.sdf, evaluation.gradients, evaluation.features)
    assert not any(tensor.requires_grad for tensor in tensors)
    assert not points.requires_grad
