"""Networks of NeuS: signed distance, colour, sharpness (Wang et al. 2021).

Attribute names, and the order of the parameters, are those of the published checkpoints
(`renderer.sdf_network.lin0.weight_g`, ...).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import check_positive

_BETA = 100.0
"""Sharpness of the softplus in the network of the signed distance, published."""
_INIT_RADIUS = 0.5
"""Of the sphere that this network approximates before training, world units; published."""
_INIT_VARIANCE = 0.3
"""Published; the sharpness starts at exp(3)."""


@dataclass(frozen=True)
class SurfaceSamples:
    """Signed distance (P,), its gradient (P, 3) and features for the colour (P, F) at P points.

    The distance is positive outside, in world units; the gradient is not normalised.
    """

    sdf: Tensor
    gradients: Tensor
    features: Tensor


def encode_frequencies(x: Tensor, bands: int) -> Tensor:
    """Encode (..., C) as x, sin(2^k x), cos(2^k x), k < bands (NeRF Eq. 4 without pi)."""
    parts = [x]
    for k in range(bands):
        parts += [torch.sin(x * 2.0**k), torch.cos(x * 2.0**k)]
    return torch.cat(parts, dim=-1)


class WeightNormLinear(nn.Module):
    """Linear layer with weight = g v / |v| row by row (weight normalisation, Salimans & Kingma).

    Torch's own `parametrizations.weight_norm` names its parameters differently.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(out_features))
        self.weight_g = nn.Parameter(torch.empty(out_features, 1))
        self.weight_v = nn.Parameter(torch.empty(out_features, in_features))
        bound = 1.0 / math.sqrt(in_features)
        self.set_weight(
            torch.empty_like(self.weight_v).uniform_(-bound, bound),
            torch.empty_like(self.bias).uniform_(-bound, bound),
        )

    @torch.no_grad()
    def set_weight(self, weight: Tensor, bias: Tensor) -> None:
        """Set direction and length so that the layer's weight is `weight`, (out, in)."""
        self.weight_v.copy_(weight)
        self.weight_g.copy_(weight.norm(dim=1, keepdim=True))
        self.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        scale = self.weight_g / self.weight_v.norm(dim=1, keepdim=True)
        return F.linear(x, self.weight_v * scale, self.bias)


@dataclass(frozen=True)
class SDFNetworkConfig:
    """Size of the signed-distance network.

    Attributes:
        width: of the hidden layers.
        depth: number of hidden layers.
        skip: the layer with a skip connection from the encoded point.
        bands: frequencies of the point's encoding.
        features: outputs besides the signed distance.
    """

    width: int = 256
    depth: int = 8
    skip: int = 4
    bands: int = 6
    features: int = 256

    def __post_init__(self) -> None:
        check_positive(self)
        if not 1 <= self.skip < self.depth:
            raise ValueError(f"skip must be from 1 to {self.depth - 1}, got {self.skip}")
        if self.width <= self.encoded:
            raise ValueError(f"width must exceed {self.encoded}, the encoding's, got {self.width}")

    @property
    def encoded(self) -> int:
        """Channels of the encoded point."""
        return 3 * (1 + 2 * self.bands)


class SDFNetwork(nn.Module):
    """MLP from a point to its signed distance and a feature vector (NeuS, network architecture)."""

    def __init__(self, config: SDFNetworkConfig) -> None:
        super().__init__()
        self.config = config
        for i in range(config.depth + 1):
            inputs = config.encoded if i == 0 else config.width
            outputs = config.width - config.encoded if i + 1 == config.skip else config.width
            if i == config.depth:
                outputs = 1 + config.features
            layer = WeightNormLinear(inputs, outputs)
            self._start_as_sphere(i, layer)
            self.add_module(f"lin{i}", layer)

    def _start_as_sphere(self, i: int, layer: WeightNormLinear) -> None:
        """Initialise layer i so that the network is about |p| - r (SAL, Atzmon & Lipman 2020).

        The frequencies have weight 0, hidden layers keep the length of their input, the last one
        takes the mean. The softplus, which is not 0 at 0, raises the centre.
        """
        outputs, inputs = layer.weight_v.shape
        if i == self.config.depth:
            mean = math.sqrt(math.pi / inputs)
            weight = torch.empty_like(layer.weight_v).normal_(mean, 1e-4)
            bias = torch.full_like(layer.bias, -_INIT_RADIUS)
        else:
            weight = torch.empty_like(layer.weight_v).normal_(0.0, math.sqrt(2.0 / outputs))
            bias = torch.zeros_like(layer.bias)
        if i == 0:
            weight[:, 3:] = 0.0
        elif i == self.config.skip:
            weight[:, 3 - self.config.encoded :] = 0.0
        layer.set_weight(weight, bias)

    def forward(self, points: Tensor) -> Tensor:
        """Map points (..., 3) to the signed distance and the features, (..., 1 + F)."""
        encoded = encode_frequencies(points, self.config.bands)
        x = encoded
        for i in range(self.config.depth + 1):
            if i == self.config.skip:
                x = torch.cat([x, encoded], dim=-1) / math.sqrt(2.0)
            x = self.get_submodule(f"lin{i}")(x)
            if i < self.config.depth:
                x = F.softplus(x, beta=_BETA)
        return x

    def with_gradients(self, points: Tensor) -> SurfaceSamples:
        """Evaluate the network and its gradient by the points (P, 3) in one pass.

        Works under `torch.no_grad` too. The gradients can be differentiated by the parameters
        unless gradients are off, but not by the points.
        """
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            out = self(points)
            sdf = out[..., 0]
            (gradients,) = torch.autograd.grad(sdf.sum(), points, create_graph=training)
        if not training:
            out, sdf = out.detach(), sdf.detach()
        return SurfaceSamples(sdf=sdf, gradients=gradients, features=out[..., 1:])


@dataclass(frozen=True)
class ColorNetworkConfig:
    """Size of the colour network: its hidden layers, and the frequencies of the direction."""

    width: int = 256
    depth: int = 4
    bands: int = 4

    def __post_init__(self) -> None:
        check_positive(self)


class ColorNetwork(nn.Module):
    """MLP from point, reflected direction, normal and features to a colour.

    Compat: the view direction is mirrored at the normal, as in Ref-NeRF (Verbin et al. 2022); NeuS
    does not mirror it.
    """

    def __init__(self, config: ColorNetworkConfig, features: int) -> None:
        super().__init__()
        self.config = config
        inputs = 3 + 3 * (1 + 2 * config.bands) + 3 + features
        sizes = [inputs, *[config.width] * config.depth, 3]
        for i in range(config.depth + 1):
            self.add_module(f"lin{i}", WeightNormLinear(sizes[i], sizes[i + 1]))

    def forward(
        self, points: Tensor, normals: Tensor, to_camera: Tensor, features: Tensor
    ) -> Tensor:
        """Colours in [0, 1], (..., 3), of surface points.

        Normals point outwards, `to_camera` from the points to the camera; both have length 1.
        """
        reflected = 2.0 * (to_camera * normals).sum(dim=-1, keepdim=True) * normals - to_camera
        encoded = encode_frequencies(reflected, self.config.bands)
        x = torch.cat([points, encoded, normals, features], dim=-1)
        for i in range(self.config.depth):
            x = F.relu(self.get_submodule(f"lin{i}")(x))
        return torch.sigmoid(self.get_submodule(f"lin{self.config.depth}")(x))


class SingleVariance(nn.Module):
    """Learned sharpness of the surface, s = exp(10 v)."""

    def __init__(self) -> None:
        super().__init__()
        self.variance = nn.Parameter(torch.tensor(_INIT_VARIANCE))

    def forward(self) -> Tensor:
        """Return s, a scalar kept in [1e-6, 1e6]."""
        return torch.exp(10.0 * self.variance).clamp(1e-6, 1e6)


@dataclass(frozen=True)
class NeuSFieldConfig:
    """Sizes of the three networks; the defaults are the published ones."""

    sdf: SDFNetworkConfig = field(default_factory=SDFNetworkConfig)
    color: ColorNetworkConfig = field(default_factory=ColorNetworkConfig)


class NeuSField(nn.Module):
    """The three networks with their published names."""

    def __init__(self, config: NeuSFieldConfig | None = None) -> None:
        super().__init__()
        config = config or NeuSFieldConfig()
        self.sdf_network = SDFNetwork(config.sdf)
        self.color_network = ColorNetwork(config.color, config.sdf.features)
        self.deviation_network = SingleVariance()

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances (...,) of points (..., 3)."""
        return self.sdf_network(points)[..., 0]

    def surface(self, points: Tensor) -> SurfaceSamples:
        """Signed distances with gradients and features of points (P, 3)."""
        return self.sdf_network.with_gradients(points)

    def color(self, points: Tensor, normals: Tensor, to_camera: Tensor, features: Tensor) -> Tensor:
        """Colours in [0, 1], (P, 3), see `ColorNetwork.forward`."""
        return self.color_network(points, normals, to_camera, features)

    def inv_s(self) -> Tensor:
        """The sharpness s of the surface, a scalar."""
        return self.deviation_network()


class AutocastField(NeuSField):
    """A field on CUDA with colours in bfloat16, and float16 distances for choosing samples.

    Colours have gradients and need the range of float32; distances for sampling have none and need
    more digits. Distances that are differentiated twice stay in float32.
    """

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances (...,) without gradients, for choosing samples."""
        with torch.autocast(points.device.type, torch.float16):
            return super().sdf(points).float()

    def color(self, points: Tensor, normals: Tensor, to_camera: Tensor, features: Tensor) -> Tensor:
        """Colours in [0, 1], (P, 3)."""
        with torch.autocast(points.device.type, torch.bfloat16):
            return super().color(points, normals, to_camera, features).float()
