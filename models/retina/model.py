"""The retina multi-scale language model, in the manner of arXiv 2005.00581: sharp near the newest token, coarser further back.

The paper's text could not be had, so this is our definition of what its abstract and others describe. There is one stack, at
token scale. Every layer attends to the newest tokens one by one, and to keys and values pooled by 4, by 16 and by 64 further
back: the means of those that the layer has made of the tokens. There is no coarse engine; what fires is a compaction, whenever
a page of tokens is full. `compaction.py` has the arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..architecture import Description, Stage
from ..config import ModelConfig
from ..describe import describe
from ..layers.embed import Embed
from ..layers.head import head_for
from ..layers.initialise import initialise
from .attention import RetinaBlock
from .compaction import Compaction
from .stages import retina_stages


class Retina(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1. The hierarchy has one level: `"6@1"`.

    Positions are learned and absolute: the mean of keys that were rotated by different angles would mean nothing.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not isinstance(config.compaction, Compaction):
            raise ConfigError(f'expected a configuration of a retina model, got the architecture "{config.architecture}"')
        self.config, self.compaction = config, config.compaction
        self.embed = Embed(config)
        self.layers = nn.ModuleList(RetinaBlock(config.layer) for _ in range(config.levels.depth))
        self.head = head_for(config, self.embed)
        initialise(self, config.levels.depth)

    def describe(self) -> Description:
        """As `Architecture.describe`."""
        return describe(self.config)

    def stages(self) -> list[Stage]:
        """As `Architecture.stages`: `compact`, which has no weights and fires when a page begins, and `1`, all the rest."""
        layers = [layer for layer in self.layers if isinstance(layer, RetinaBlock)]
        return retina_stages(self.embed, layers, self.head, self.config.layer, self.compaction)

    def kv_rows(self, tokens: int) -> int:
        """Rows of keys, and as many of values, that each layer keeps for so many tokens; a vanilla one keeps one per token."""
        return self.compaction.kept_rows(tokens)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        mask = self._mask(positions)
        x = self.embed(ids, positions[None])
        for layer in self.layers:
            x = layer(x, self.compaction.poolings, mask)
        y: Tensor = self.head(x)
        return y

    def _mask(self, positions: Tensor) -> Tensor:
        """What each token sees `[L, n]`: of the fine rows, and of those of each pooling, in complete groups only."""
        size = self.compaction.page
        page = positions[:, None] // size
        parts = [(positions <= positions[:, None]) & (positions // size >= page - 1)]
        for past in self.compaction.peripheries:
            groups = positions[: len(positions) // past.pooling]
            parts.append(past.sees(page - 1 - groups // past.rows))
        return torch.cat(parts, 1)
