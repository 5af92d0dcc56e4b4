"""Shortening: k fine vectors become one coarse vector (Hourglass paper, section 2.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .feed_forward import FeedForward


class GroupAttention(nn.Module):
    """Each pooled vector attends to the k raw vectors of its own group, with a residual.

    As lucidrains' `attn_resampling_pre_valley`: only the query is normed, nothing is masked (so the zero vectors in front
    of the first group take their share of the softmax), and the key/value projection has no bias.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        inner = config.heads * config.head_dim
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.query = nn.Linear(config.dim, inner, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * inner, bias=False)
        self.out = nn.Linear(inner, config.dim)

    def forward(self, pooled: Tensor, groups: Tensor) -> Tensor:
        """Add to pooled `[B, n, D]` what each finds in its group `[B, n, k, D]`."""
        batch, n, k, _ = groups.shape
        query = self.query(self.norm(pooled)).view(batch, n, self.heads, 1, self.head_dim)  # [B, n, H, 1, D]
        key_value = self.key_value(groups).view(batch, n, k, 2, self.heads, self.head_dim)  # [B, n, k, 2, H, D]
        key, value = key_value.permute(3, 0, 1, 4, 2, 5).unbind(0)  # 2 x [B, n, H, k, D]
        found = F.scaled_dot_product_attention(query, key, value)  # [B, n, H, 1, D]
        y: Tensor = pooled + self.out(found.reshape(batch, n, self.heads * self.head_dim))
        return y


class Shorten(nn.Module):
    """`[B, n * k, D]` -> `[B, n, D]`, group by group: average or linear pooling, then optionally attention.

    Stateless. The causal shift by k-1 is not here: the caller lays the groups so that each ends with its newest vector.
    """

    def __init__(self, config: ModelConfig, factor: int) -> None:
        super().__init__()
        self.factor, self.kind, self.dim = factor, config.shortening, config.dim
        is_linear = config.shortening.startswith("linear")
        is_attention = config.shortening.endswith("attention")
        self.pool = nn.Linear(factor * config.dim, config.dim) if is_linear else None
        self.attention = GroupAttention(config) if is_attention else None
        self.feed_forward = FeedForward(config.layer) if is_attention else None

    def forward(self, x: Tensor) -> Tensor:
        """Pool every k consecutive rows of `[B, n * k, D]`."""
        batch, rows, dim = x.shape
        groups = x.view(batch, rows // self.factor, self.factor, dim)  # [B, n, k, D]
        pooled: Tensor = groups.mean(2) if self.pool is None else self.pool(groups.flatten(2))  # [B, n, D]
        if self.attention is None or self.feed_forward is None:
            return pooled
        y: Tensor = self.feed_forward(self.attention(pooled, groups))
        return y
