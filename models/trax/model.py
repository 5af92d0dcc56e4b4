"""The official Hourglass language model, `HourglassLM` of google/trax (trax/models/research/hourglass.py; arXiv 2110.13711).

It differs from `Hourglass` in its attention (relative, and over the whole past where it resamples) and in its norms: every
stack ends in one. The original shifts its input by one token, so that its logits[t] predict token t from those before it. Here
the caller does: feed id 0 first, and row t predicts the token after the t-th that was fed, as everywhere in foveal.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...hierarchy import Hierarchy
from ..architecture import Description, Stage
from ..layers.initialise import initialise
from .attention_resampling import AttentionMerge, AttentionShorten, HandBack
from .config import TraxConfig
from .relative_attention import SharedBiases, WholeSequence
from .relative_stack import RelativeStack
from .stages import split


class TraxLevel(nn.Module):
    """`x -> post(merge(pre(x), hand_back(inner(shorten(shift(pre(x)))))))`.

    Args:
        hierarchy: of this level and what is inside it, its strides counted from 1.
        pooling: tokens per row of this level.
    """

    def __init__(self, config: TraxConfig, hierarchy: Hierarchy, biases: SharedBiases, pooling: int) -> None:
        super().__init__()
        layer, resampling, inside = config.layer, config.resampling, hierarchy.inner
        self.factor = k = hierarchy.factor
        self.pre = RelativeStack(layer, biases, hierarchy.levels[0].layers, pooling)
        self.shorten = AttentionShorten(resampling, layer, biases, k, pooling)
        self.inner: TraxLevel | RelativeStack = (
            RelativeStack(layer, biases, inside.depth, pooling * k)
            if inside.is_vanilla
            else TraxLevel(config, inside, biases, pooling * k)
        )
        self.hand_back = HandBack(resampling, layer, k)
        self.merge = AttentionMerge(layer, biases, k)
        self.post = RelativeStack(layer, biases, hierarchy.levels[-1].layers, pooling)

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence `[B, L, D]`, L any length."""
        rows, k, memory = x.shape[1], self.factor, WholeSequence(x.device)
        fine = self.pre(x, memory)
        groups = -(-rows // k)
        shifted = F.pad(fine, (0, 0, k - 1, 0))[:, : groups * k]  # k-1 zero rows in front, the newest k-1 not used yet
        coarse = self.shorten(shifted, memory)  # [B, ceil(L / k), D]
        coarse = self.inner(coarse) if isinstance(self.inner, TraxLevel) else self.inner(coarse, memory)
        context, keys, values = self.hand_back(coarse, memory)
        y: Tensor = self.post(self.merge(fine, context[:, :rows], memory.positions(rows), keys, values), memory)
        return y


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
        return split(self)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state; L may exceed the context."""
        y: Tensor = self.head(self.root(self.embed(ids)))
        return y
