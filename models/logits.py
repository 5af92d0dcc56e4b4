"""Vectors to logits, in models that are not foveal's own."""

from __future__ import annotations

from torch import Tensor, nn


class Logits(nn.Module):
    """A final layer norm and the projection to the vocabulary, which has no bias."""

    def __init__(self, dim: int, vocab_size: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.logits = nn.Linear(dim, vocab_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> logits `[B, L, V]`."""
        y: Tensor = self.logits(self.norm(x))
        return y
