"""The shortcuts that are taken against the plain formulas they replace."""

from __future__ import annotations

import pytest
import torch

from ldm.depth_attention import DepthAttention, DepthTransformer
from ldm.networks.attention import ImageTokenAttention, SelfAttention
from ldm.networks.volume_nets import Conv3d, UpConv3d
from tests.reference import plain


def test_self_attention_is_the_plain_formula():
    layer = SelfAttention(32, heads=4)
    x = torch.randn(2, 10, 32)
    torch.testing.assert_close(layer(x), plain.self_attention(layer, x))


def test_attention_to_one_token_needs_neither_query_nor_key():
    layer = ImageTokenAttention(32, 20)
    x, context = torch.randn(3, 10, 32), torch.randn(3, 1, 20)
    expected = plain.cross_attention(layer, x, context, heads=4)
    torch.testing.assert_close(layer(context).expand(3, 10, 32), expected)
    with pytest.raises(ValueError, match="one context token"):
        layer(torch.randn(3, 2, 20))


def test_depth_attention_is_the_plain_formula_and_so_are_its_gradients():
    layer = DepthAttention(heads=4, head_dim=8, frustum_dim=16).double()
    x = torch.randn(2, 32, 3, 5, dtype=torch.float64, requires_grad=True)
    frustum = torch.randn(2, 16, 6, 3, 5, dtype=torch.float64, requires_grad=True)
    inputs = [x, frustum, *layer.parameters()]
    ours, expected = layer(x, frustum), plain.depth_attention(layer, x, frustum)
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(ours)
    got, wanted = (torch.autograd.grad((y * weights).sum(), inputs) for y in (ours, expected))
    torch.testing.assert_close(got, wanted)


def test_depth_attention_in_bf16_is_the_plain_formula_up_to_its_precision():
    layer = DepthAttention(heads=4, head_dim=8, frustum_dim=16).bfloat16()
    x = torch.randn(2, 32, 3, 5, dtype=torch.bfloat16)
    frustum = torch.randn(2, 16, 6, 3, 5, dtype=torch.bfloat16)
    expected = plain.depth_attention(layer.float(), x.float(), frustum.float())
    ours = layer.bfloat16()(x, frustum)
    torch.testing.assert_close(ours.float(), expected, atol=0.02, rtol=0.02)


def test_a_zero_volume_adds_the_same_to_any_features():
    layer = DepthTransformer(dim=24, frustum_dim=16).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for _ in range(2):
        x = torch.randn(2, 24, 6, 6, dtype=torch.float64)
        seen = layer(x, torch.zeros(2, 16, 8, 6, 6, dtype=torch.float64)) - x
        torch.testing.assert_close(seen, layer.null_residual(6, 6).expand_as(seen))
    assert layer.null_residual(6, 6).abs().max() > 0.1


def test_a_new_depth_transformer_changes_nothing():
    layer = DepthTransformer(dim=24, frustum_dim=16)
    x = torch.randn(2, 24, 6, 6)
    torch.testing.assert_close(layer(x, torch.randn(2, 16, 8, 6, 6)), x)


def test_the_two_steps_of_the_transposed_convolution_are_the_same_as_one():
    layer = UpConv3d(5, 3, 3, stride=2, padding=1, output_padding=1).double()
    x = torch.randn(2, 5, 2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(layer.in_two_steps(x), layer(x))
    assert layer(x).shape == (2, 3, 4, 6, 8)


def test_the_smallest_volumes_have_gradients_in_bf16():
    layer, x = Conv3d(64, 64), torch.randn(8, 64, 2, 2, 2)
    expected = torch.autograd.grad(layer(x).sum(), layer.weight)[0]
    for _ in range(10):
        for exponent in (12, 14, 16, 18, 20):  # what is read without being written shows
            torch.full((1 << exponent,), torch.nan)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        gradient = torch.autograd.grad(y.sum(), layer.weight)[0]
        torch.testing.assert_close(gradient, expected, rtol=0.02, atol=0.1)
