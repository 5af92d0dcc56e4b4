"""Upsampling: one coarse vector becomes the k vectors its group's tokens will receive (Hourglass paper, section 2.2)."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ModelConfig


class Lengthen(nn.Module):
    """`[B, n, D]` -> `[B, n * k, D]`: repeat or linear, plus (with attention) a term that is constant over the group.

    With attention resampling each fine vector has a single key, its coarse vector, so the softmax is 1 whatever the
    query: only the value and output projections matter, and their product is computed once per group, here. (lucidrains'
    `attn_resampling_post_valley`, whose query weights are dead; its feed-forward half is in `Merge`.)
    """

    def __init__(self, config: ModelConfig, factor: int) -> None:
        super().__init__()
        self.factor, self.kind, self.dim = factor, config.upsampling, config.dim
        inner = config.heads * config.head_dim
        is_linear = config.upsampling.startswith("linear")
        is_attention = config.upsampling.endswith("attention")
        self.spread = nn.Linear(config.dim, factor * config.dim) if is_linear else None
        self.value = nn.Linear(config.dim, inner, bias=False) if is_attention else None
        self.out = nn.Linear(inner, config.dim) if is_attention else None

    def forward(self, x: Tensor) -> Tensor:
        """Spread every row of `[B, n, D]` over k rows, group by group."""
        batch, n, dim = x.shape
        if self.spread is None:
            rows = x[:, :, None].expand(batch, n, self.factor, dim)
        else:
            rows = self.spread(x).view(batch, n, self.factor, dim)
        if self.value is not None and self.out is not None:
            rows = rows + self.out(self.value(x))[:, :, None]
        return rows.reshape(batch, n * self.factor, dim)
