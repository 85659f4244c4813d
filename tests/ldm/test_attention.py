"""The shortcuts that are taken against the plain formulas they replace."""

from __future__ import annotations

import pytest
import torch
from einops import einsum, rearrange

from ldm.attention import ImageTokenAttention, SelfAttention
from ldm.depth_attention import DepthAttention, DepthTransformer


def plain_attention(q, k, v, heads: int) -> torch.Tensor:
    """softmax(q k^T / sqrt(c)) v written out, (B, L, C) each."""
    q, k, v = (rearrange(x, "b l (n c) -> b n l c", n=heads) for x in (q, k, v))
    logits = einsum(q, k, "b n i c, b n j c -> b n i j") * q.shape[-1] ** -0.5
    return rearrange(logits.softmax(-1) @ v, "b n l c -> b l (n c)")


def test_self_attention_is_the_plain_formula():
    layer = SelfAttention(32, heads=4)
    x = torch.randn(2, 10, 32)
    plain = plain_attention(layer.to_q(x), layer.to_k(x), layer.to_v(x), 4)
    torch.testing.assert_close(layer(x), layer.to_out(plain))


def test_attention_to_one_token_needs_neither_query_nor_key():
    layer = ImageTokenAttention(32, 20)
    x, context = torch.randn(3, 10, 32), torch.randn(3, 1, 20)
    plain = plain_attention(layer.to_q(x), layer.to_k(context), layer.to_v(context), 4)
    torch.testing.assert_close(layer(context).expand(3, 10, 32), layer.to_out(plain))
    with pytest.raises(ValueError, match="one context token"):
        layer(torch.randn(3, 2, 20))


def plain_depth_attention(layer: DepthAttention, x, frustum) -> torch.Tensor:
    """Keys and values at every depth, as the paper draws it."""
    q = rearrange(layer.to_q(x), "b (n c) h w -> b n c h w", n=layer.heads)
    k = rearrange(layer.to_k(frustum), "b (n c) d h w -> b n c d h w", n=layer.heads)
    v = rearrange(layer.to_v(frustum), "b (n c) d h w -> b n c d h w", n=layer.heads)
    logits = einsum(q, k, "b n c h w, b n c d h w -> b n d h w") * layer.scale
    out = einsum(logits.softmax(dim=2), v, "b n d h w, b n c d h w -> b n c h w")
    return layer.to_out(rearrange(out, "b n c h w -> b (n c) h w"))


def test_depth_attention_is_the_plain_formula_and_so_are_its_gradients():
    layer = DepthAttention(heads=4, head_dim=8, frustum_dim=16).double()
    x = torch.randn(2, 32, 3, 5, dtype=torch.float64, requires_grad=True)
    frustum = torch.randn(2, 16, 6, 3, 5, dtype=torch.float64, requires_grad=True)
    inputs = [x, frustum, *layer.parameters()]
    ours, plain = layer(x, frustum), plain_depth_attention(layer, x, frustum)
    torch.testing.assert_close(ours, plain)
    weights = torch.randn_like(ours)
    for got, expected in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((plain * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


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
