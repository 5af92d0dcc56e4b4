"""The position-wise half of a Transformer block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..config import LayerConfig
from .norm import norm_of


class FeedForward(nn.Module):
    """Pre-norm residual perceptron: `x + down(gelu(up(norm(x))))`, or with SwiGLU `x + down(silu(gate) * wide)`.

    There `gate` and `wide` are the halves of what `up` gives: one matrix is read once in a decode step.
    """

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.is_gated = config.activation == "swiglu"
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"
        self.norm = norm_of(config)
        self.up = nn.Linear(config.dim, (2 if self.is_gated else 1) * config.ff_dim, bias=config.ff_bias)
        self.down = nn.Linear(config.ff_dim, config.dim, bias=config.ff_bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`; stateless, so a step is the same call."""
        return x + self.change(x)

    def change(self, x: Tensor) -> Tensor:
        """What is added to x."""
        y: Tensor = self.down(self._activated(self.up(self.norm(x))))
        return y

    def _activated(self, x: Tensor) -> Tensor:
        if not self.is_gated:
            return F.gelu(x, approximate=self.approximate)
        gate, wide = x.chunk(2, dim=-1)
        return gate * gate.sigmoid() * wide
