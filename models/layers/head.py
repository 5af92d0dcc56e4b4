"""Vectors to logits."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ModelConfig
from .embed import Embed


class Head(nn.Module):
    """The final layer norm (the only norm at the end of a stack) and the projection to the vocabulary."""

    def __init__(self, dim: int, vocab_size: int, norm_eps: float, bias: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.logits = nn.Linear(dim, vocab_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> logits `[B, L, V]`; row t predicts token t+1."""
        y: Tensor = self.logits(self.norm(x))
        return y


def head_for(config: ModelConfig, embed: Embed) -> Head:
    """A new head; it shares the token table's weights if the configuration says so."""
    head = Head(config.dim, config.vocab_size, config.norm_eps, config.head_bias)
    if config.tie_embeddings:
        head.logits.weight = embed.tokens.weight
    return head
