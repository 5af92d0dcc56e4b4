"""How hard the next byte is to foresee."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import LayerConfig
from ..layers.norm import norm_of


class Entropy(nn.Module):
    """The patcher's head: the entropy of the next id, in nats, as the only column of a row."""

    def __init__(self, config: LayerConfig, vocab_size: int) -> None:
        super().__init__()
        self.norm = norm_of(config)
        self.next = nn.Linear(config.dim, vocab_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, 1]`."""
        log_chances = self.next(self.norm(x)).log_softmax(-1)
        entropy: Tensor = -(log_chances.exp() * log_chances).sum(-1, keepdim=True)
        return entropy
