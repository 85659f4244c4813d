"""Reference implementation: the model's formulas as in the paper, without any optimisation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from einops import einsum, rearrange
from torch import Tensor

from ldm.depth_attention import DepthAttention
from ldm.model import Conditioning, SyncDreamer
from ldm.networks.attention import ImageTokenAttention, SelfAttention, TransformerBlock


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Return softmax(q k^T / sqrt(c)) v with the full matrix of weights, (B, L, C) each."""
    q, k, v = (rearrange(x, "b l (n c) -> b n l c", n=heads) for x in (q, k, v))
    logits = einsum(q, k, "b n i c, b n j c -> b n i j") * q.shape[-1] ** -0.5
    return rearrange(logits.softmax(-1) @ v, "b n l c -> b l (n c)")


def self_attention(layer: SelfAttention, x: Tensor) -> Tensor:
    """Self-attention, (B, L, C) -> (B, L, C)."""
    return layer.to_out(attention(layer.to_q(x), layer.to_k(x), layer.to_v(x), layer.heads))


def cross_attention(layer: ImageTokenAttention, x: Tensor, context: Tensor, heads: int) -> Tensor:
    """Cross-attention with queries and keys, (B, L, C) and (B, M, context_dim) -> (B, L, C)."""
    q, k, v = layer.to_q(x), layer.to_k(context), layer.to_v(context)
    return layer.to_out(attention(q, k, v, heads))


def transformer_block(block: TransformerBlock, x: Tensor, context: Tensor) -> Tensor:
    """Self-attention, cross-attention and feed-forward, each with normalisation and residual."""
    x = x + self_attention(block.attn1, block.norm1(x))
    x = x + cross_attention(block.attn2, block.norm2(x), context, block.attn1.heads)
    return x + block.ff(block.norm3(x))


def depth_attention(layer: DepthAttention, x: Tensor, frustum: Tensor) -> Tensor:
    """Depth attention with keys and values, (B, n c, H, W), (B, F, D, H, W) -> (B, n c, H, W)."""
    q = rearrange(layer.to_q(x), "b (n c) h w -> b n c 1 h w", n=layer.heads)
    k = rearrange(layer.to_k(frustum), "b (n c) d h w -> b n c d h w", n=layer.heads)
    v = rearrange(layer.to_v(frustum), "b (n c) d h w -> b n c d h w", n=layer.heads)
    weights = ((q * k).sum(dim=2, keepdim=True) * layer.scale).softmax(dim=3)
    return layer.to_out(rearrange((weights * v).sum(dim=3), "b n c h w -> b (n c) h w"))


@contextmanager
def plain_layers() -> Iterator[None]:
    """Replace the attention layers by the reference formulas within the context."""
    with (
        mock.patch.object(DepthAttention, "forward", depth_attention),
        mock.patch.object(TransformerBlock, "forward", transformer_block),
    ):
        yield


def predict_noise(
    model: SyncDreamer,
    latents: Tensor,
    timestep: int,
    conditioning: Conditioning,
    guidance_scale: float,
    views_at_once: int,
) -> Tensor:
    """Classifier-free guidance with two full passes; the unconditional one has zeroed conditions.

    The views are encoded one by one, and the geometry is computed at each step.
    """
    geometry = model.view_geometry()
    timesteps = torch.tensor([timestep], device=latents.device)
    time = model.embed_time(timesteps).expand(len(latents), -1)
    net, encoder = model.spatial_volume, model.spatial_volume.target_encoder
    views = conditioning.viewpoints
    one_by_one = [encoder(latents[:, n], time, views[:, n]) for n in range(latents.shape[1])]
    encoded = torch.stack(one_by_one, dim=1).flatten(0, 1)
    with mock.patch.object(type(encoder), "forward", return_value=encoded):
        volume = net.build_spatial_volume(latents, time, views, geometry)
    out = []
    for start in range(0, latents.shape[1], views_at_once):
        part = slice(start, start + views_at_once)
        frustums = net.view_frustums(volume, time, views[:, part], geometry.rays_in_volume[part])
        x = latents[:, part].flatten(0, 1)
        count = x.shape[0] // len(latents)
        seen = conditioning.input_latents.repeat_interleave(count, 0)
        token = rearrange(conditioning.context[:, part], "b t c -> (b t) 1 c")
        both = model.unet(
            torch.cat([torch.cat([x, seen], 1), torch.cat([x, torch.zeros_like(seen)], 1)]),
            timesteps,
            torch.cat([token, torch.zeros_like(token)]),
            [torch.cat([f, torch.zeros_like(f)]) for f in frustums],
        )
        with_image, without = both.chunk(2)
        noise = without + guidance_scale * (with_image - without)
        out.append(noise.unflatten(0, (len(latents), count)))
    return torch.cat(out, dim=1)
