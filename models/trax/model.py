"""The official Hourglass language model, `HourglassLM` of google/trax (trax/models/research/hourglass.py; arXiv 2110.13711).

It differs from `Hourglass` in its attention (relative, and over the whole past where it resamples) and in its norms: every
stack ends in one. The original shifts its input by one token, so that its logits[t] predict token t from those before it. Here
the caller does: feed id 0 first, and row t predicts the token after the t-th that was fed, as everywhere in foveal.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..architecture import Description, Stage
from ..layers.initialise import initialise
from ..layers.relative_attention import SharedBiases
from .config import TraxConfig
from .level import TraxLevel
from .stages import split


class TraxHourglass(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts what follows `ids[t]`, where `ids[0]` is 0."""

    def __init__(self, config: TraxConfig) -> None:
        super().__init__()
        self.config = config
        self.biases = SharedBiases(config.layer)
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.root = TraxLevel(config, config.levels, self.biases, 1)
        self.head = nn.Linear(config.dim, config.vocab_size)
        initialise(self, config.levels.depth)

    def describe(self) -> Description:
        """As `Architecture.describe`; positions are relative, but no more than `context` of them are tabled."""
        config = self.config
        return Description(
            architecture="trax-hourglass",
            hierarchy=str(config.levels),
            vocab_size=config.vocab_size,
            dim=config.dim,
            max_positions=config.context,
            context=config.context,
        )

    def stages(self) -> list[Stage]:
        """As `Architecture.stages`; tables of relative positions are worked out of the weights as they are now."""
        return split(self.config, self.embed, self.root, self.head)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state; L may exceed the context."""
        y: Tensor = self.head(self.root(self.embed(ids)))
        return y
