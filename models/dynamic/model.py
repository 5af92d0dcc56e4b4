"""A language model that learns where its middle fires, in the manner of dynamic pooling (arXiv 2211.09761).

A first tower sees every token; its row says whether a span ends here. The rows of a span are averaged into one of the middle
tower's; a token is served the newest row that there is, its own span's if it ends it, and before the first a learned one. The
last tower sees the sum of both.

Boundaries are learned as the paper's "entropy" ones: from the uncertainty of the model itself, which is largest where a word
begins. Unlike there, what is learned is the entropy, not where it has peaks, and the threshold is where the wanted
share of tokens is above it; towers are pre-norm with rotary positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Description, Stage
from ..config import ModelConfig
from ..describe import describe
from ..dynamic_pooling.boundaries import pool, serve
from ..layers.embed import Embed
from ..layers.head import head_for
from ..layers.initialise import initialise
from ..layers.stack import Stack
from .predictor import BoundaryPredictor, entropies
from .stages import dynamic_stages


class Dynamic(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1. A hierarchy says the rate: `"1@1 6@~5 1@1"`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        first, middle, last = config.levels.levels
        self.tokens_per_firing = middle.tokens_per_vector
        self.embed = Embed(config)
        self.pre = Stack(config.layer, first.layers)
        self.predictor = BoundaryPredictor(config.dim, config.norm_eps, self.tokens_per_firing)
        self.null = nn.Parameter(torch.zeros(1, config.dim))
        self.middle = Stack(config.layer, middle.layers)
        self.post = Stack(config.layer, last.layers)
        self.head = head_for(config, self.embed)
        initialise(self, config.levels.depth)

    def describe(self) -> Description:
        """As `Architecture.describe`."""
        return describe(self.config)

    def stages(self) -> list[Stage]:
        """As `Architecture.stages`: `pre`, `middle`, `post`."""
        return dynamic_stages(self)

    def boundaries(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> whether each token ends a span, bool `[B, L]`."""
        return self._ends(self.predictor(self._first(ids)))

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state."""
        rows = self._first(ids)
        return self._rest(rows, self._ends(self.predictor(rows)))

    def forward_to_train(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The logits with as many boundaries as are wanted, of the batch as a whole, and what to add to their loss.

        That is how far the estimates of entropies are off, but for their mean, which means nothing to a threshold that follows
        the batch's; a number.
        """
        rows = self._first(ids)
        estimates = self.predictor.estimate(rows)
        logits = self._rest(rows, self._ends(estimates + self.predictor.aim(estimates)))
        found = entropies(logits)
        return logits, _WEIGHT * F.mse_loss(estimates - estimates.mean(), found - found.mean())

    @torch.no_grad()
    def aim(self, ids: Tensor) -> None:
        """Let the wanted share of these tokens `[B, L]` be boundaries: for weights that were never trained."""
        self.predictor.aim(self.predictor.estimate(self._first(ids)), pace=1.0)

    def _first(self, ids: Tensor) -> Tensor:
        """The first tower's rows `[B, L, D]`."""
        rows: Tensor = self.pre(self.embed(ids, torch.arange(ids.shape[1], device=ids.device)[None]))
        return rows

    def _ends(self, boundary_logits: Tensor) -> Tensor:
        found: Tensor = boundary_logits[:, :, 0] > 0
        return found

    def _rest(self, rows: Tensor, boundaries: Tensor) -> Tensor:
        null = self.null.expand(len(rows), 1, -1)
        coarse = self.middle(torch.cat((null, pool(rows, boundaries)), 1))  # [B, 1 + F, D]
        y: Tensor = self.head(self.post(rows + serve(coarse, boundaries)))
        return y


_WEIGHT = 0.1
"""Of the squared errors of entropies, beside the loss of the language."""
