"""Token ids to vectors."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ModelConfig


class Embed(nn.Module):
    """Token embedding, plus learned absolute positions unless the model rotates."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.dim)
        self.positions = nn.Embedding(config.max_positions, config.dim) if config.positions == "learned" else None

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Ids `[B, L]` at token indices `[B or 1, L]` -> `[B, L, D]`."""
        x: Tensor = self.tokens(ids)
        return x if self.positions is None else x + self.positions(positions)
