"""Dynamic token pooling (arXiv 2211.09761), as PiotrNawrot/dynamic-pooling at 1e6f360 computes it (`MemTransformerLM`).

A first tower runs for every token. Where it says so, or the text, a token closes its group; the group's mean is a row of the
coarse tower, whose row 0, before all groups, is learned. A last tower runs for every token on the first one's row plus that of
the newest closed group. The original draws noise for `gumbel` boundaries in eval mode, too, so that no two runs of it agree:
here, as for all that is predicted, a boundary is where the probability is above one half.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..architecture import Description, Stage
from ..layers.initialise import initialise
from ..layers.relative_attention import SharedBiases, WholeSequence, usual_frequencies
from .boundaries import BoundaryPredictor, boundaries_of, pool, serve
from .config import DynamicPoolingConfig
from .stages import PostStage, PreStage, split
from .tower import CoarseTower, Tower


class DynamicPooling(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1.

    Args:
        config: its sizes.
        frequencies: of the sinusoids of positions, `[dim / 2]`; None: the usual ones.
    """

    def __init__(self, config: DynamicPoolingConfig, frequencies: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        first, coarse, last = config.layers
        frequencies = (usual_frequencies(config.dim) if frequencies is None else frequencies).double()
        self.biases = SharedBiases(config.layer)
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.pre = Tower(config, first, self.biases, frequencies)
        self.predictor = BoundaryPredictor(config) if config.is_predicted else None
        self.middle = None if config.is_vanilla else CoarseTower(config, coarse, self.biases, frequencies)
        self.post = Tower(config, last, self.biases, frequencies)
        self.head = nn.Linear(config.dim, config.vocab_size)
        initialise(self, sum(config.layers))

    def describe(self) -> Description:
        """As `Architecture.describe`; positions are relative, but no more than `context` of them are tabled."""
        config = self.config
        return Description(
            architecture="dynamic-pooling",
            hierarchy=config.hierarchy,
            vocab_size=config.vocab_size,
            dim=config.dim,
            max_positions=config.context,
            context=config.context,
        )

    def stages(self) -> list[Stage]:
        """As `Architecture.stages`; tables of relative positions are worked out of the weights as they are now."""
        pre, post = PreStage(self.embed, self.pre, self.predictor), PostStage(self.post, self.head)
        return split(self.config, pre, self.middle, post)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state; each sequence has boundaries of its own."""
        memory = WholeSequence(ids.device)
        x = self.pre(self.embed(ids), memory)
        if self.middle is not None:
            boundaries = self.boundaries(ids, x)
            x = self.post(x + serve(self.middle(pool(x, boundaries), memory), boundaries), memory)
        y: Tensor = self.head(x)
        return y

    def boundaries(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Which tokens `[B, L]` close their group, bool, given the first tower's rows `[B, L, D]`."""
        return boundaries_of(self.config, self.predictor, ids, rows)
