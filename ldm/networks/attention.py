"""The transformer that Stable Diffusion's UNet puts after its residual blocks."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.networks.layers import zeroed


class SelfAttention(nn.Module):
    """Multi-head attention of all positions to all positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Attend within x, (B, L, C) -> (B, L, C)."""
        q, k, v = (
            rearrange(project(x), "b l (n c) -> b n l c", n=self.heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(out, "b n l c -> b l (n c)"))


class ImageTokenAttention(nn.Module):
    """Cross-attention to one context token, whose weight is 1 whatever the queries and keys are.

    `to_q` and `to_k` are part of the checkpoint but never computed with.
    """

    def __init__(self, dim: int, context_dim: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.0))

    def forward(self, context: Tensor) -> Tensor:
        """Return what each position adds, (B, 1, context_dim) -> (B, 1, C)."""
        if context.shape[1] != 1:
            raise ValueError(f"expected one context token a sample, got {context.shape[1]}")
        return self.to_out(self.to_v(context))


class GEGLU(nn.Module):
    """Linear layer whose first half of outputs is gated by the GELU of the second."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim_in) -> (..., dim_out)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Position-wise GEGLU network, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Dropout(0.0), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, image-token attention, feed-forward; each normed before and added."""

    def __init__(self, dim: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.attn1 = SelfAttention(dim, heads)
        self.ff = FeedForward(dim)
        self.attn2 = ImageTokenAttention(dim, context_dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)  # only ever fed the unused queries; kept for the checkpoint
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, L, C) and (B, 1, context_dim) -> (B, L, C)."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block over the positions of a feature map, in a residual branch."""

    def __init__(self, dim: int, heads: int, context_dim: int, groups: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, dim, eps=1e-6)
        self.proj_in = nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(dim, heads, context_dim)])
        self.proj_out = zeroed(nn.Conv2d(dim, dim, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, C, H, W) and (B, 1, context_dim) -> (B, C, H, W)."""
        height = x.shape[2]
        tokens = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(rearrange(tokens, "b (h w) c -> b c h w", h=height))
