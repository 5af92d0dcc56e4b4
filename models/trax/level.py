"""One level of the official Hourglass: a finer stack on both sides of a coarser level or stack."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...hierarchy import Hierarchy
from ..layers.relative_attention import SharedBiases, WholeSequence
from .attention_resampling import AttentionMerge, AttentionShorten, HandBack
from .config import TraxConfig
from .relative_stack import RelativeStack


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
