"""Where the scales of a bottom-up model meet again: each token chooses among them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import ModelConfig


class Aggregate(nn.Module):
    """`x + attention`: a token attends to its own row and to the newest row of every coarser scale, a softmax over scales.

    Each scale's rows go through a layer norm of their own, whose bias tells the scales apart; one projection makes keys and
    values of all of them, so that its weights are read once. The query is made of the normed row of the token.
    """

    def __init__(self, config: ModelConfig, scales: int) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        inner = config.heads * config.head_dim
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim, eps=config.norm_eps) for _ in range(scales))
        self.query = nn.Linear(config.dim, inner, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * inner, bias=False)
        self.out = nn.Linear(inner, config.dim)

    def forward(self, x: Tensor, *coarse: Tensor) -> Tensor:
        """Rows of the tokens, and for each coarser scale the row that each of them sees, all `[B, L, D]` -> `[B, L, D]`."""
        batch, length, _ = x.shape
        normed = [norm(rows) for norm, rows in zip(self.norms, (x, *coarse), strict=True)]
        query = self.query(normed[0]).view(batch, length, self.heads, 1, self.head_dim)  # [B, L, H, 1, Dh]
        key_value = self.key_value(torch.stack(normed, 2))  # [B, L, scales, 2 H Dh]
        heads = key_value.view(batch, length, len(normed), 2, self.heads, self.head_dim)
        key, value = heads.permute(3, 0, 1, 4, 2, 5).unbind(0)  # 2 x [B, L, H, scales, Dh]
        scores = query * self.head_dim**-0.5 @ key.transpose(3, 4)  # [B, L, H, 1, scales]
        found = scores.softmax(-1) @ value  # [B, L, H, 1, Dh]
        y: Tensor = x + self.out(found.reshape(batch, length, self.heads * self.head_dim))
        return y
