"""The position-wise half of a Transformer block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig


class FeedForward(nn.Module):
    """Pre-norm residual two-layer perceptron with exact (erf) GELU: `x + W2 gelu(W1 norm(x))`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.up = nn.Linear(config.dim, config.ff_dim)
        self.down = nn.Linear(config.ff_dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`; stateless, so a step is the same call."""
        y: Tensor = x + self.down(F.gelu(self.up(self.norm(x))))
        return y
