"""Where the coarse context meets the fine stream."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ModelConfig
from .feed_forward import FeedForward


class Merge(nn.Module):
    """`stream + context`, then with attention upsampling its feed-forward block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.feed_forward = FeedForward(config.layer) if config.upsampling.endswith("attention") else None

    def forward(self, stream: Tensor, context: Tensor) -> Tensor:
        """Both `[B, L, D]`."""
        x = stream + context
        if self.feed_forward is not None:
            x = self.feed_forward(x)
        return x
