"""Vectors to logits."""

from __future__ import annotations

from torch import Tensor, nn

from .config import ModelConfig


class Head(nn.Module):
    """The final layer norm (the only norm at the end of a stack) and the projection to the vocabulary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.logits = nn.Linear(config.dim, config.vocab_size, bias=config.head_bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> logits `[B, L, V]`; row t predicts token t+1."""
        y: Tensor = self.logits(self.norm(x))
        return y
