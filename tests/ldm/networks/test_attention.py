"""The shortcuts that are taken against the plain formulas they replace."""

from __future__ import annotations

import pytest
import torch

from ldm.depth_attention import DepthAttention, DepthTransformer
from ldm.networks.attention import ImageTokenAttention, SelfAttention
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
    for got, wanted in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


def random_depth_transformer() -> DepthTransformer:
    layer = DepthTransformer(dim=24, frustum_dim=16)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.3)
    return layer


def test_a_zero_volume_adds_the_same_to_any_features():
    layer = random_depth_transformer().double()
    for _ in range(2):
        x = torch.randn(2, 24, 6, 6, dtype=torch.float64)
        seen = layer(x, torch.zeros(2, 16, 8, 6, 6, dtype=torch.float64)) - x
        torch.testing.assert_close(seen, layer.null_residual(6, 6).expand_as(seen))
    assert layer.null_residual(6, 6).abs().max() > 0.1


def test_a_new_depth_transformer_changes_nothing():
    layer = DepthTransformer(dim=24, frustum_dim=16)
    x = torch.randn(2, 24, 6, 6)
    torch.testing.assert_close(layer(x, torch.randn(2, 16, 8, 6, 6)), x)
