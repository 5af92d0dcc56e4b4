"""The position-wise half of a Transformer block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..config import LayerConfig
from .norm import norm_of


class FeedForward(nn.Module):
    """Pre-norm residual two-layer perceptron: `x + W2 gelu(W1 norm(x))`."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"
        self.norm = norm_of(config)
        self.up = nn.Linear(config.dim, config.ff_dim)
        self.down = nn.Linear(config.ff_dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`; stateless, so a step is the same call."""
        return x + self.change(x)

    def change(self, x: Tensor) -> Tensor:
        """What is added to x."""
        y: Tensor = self.down(F.gelu(self.up(self.norm(x)), approximate=self.approximate))
        return y
