"""One level of an hourglass: pre layers, a shorter sequence inside, post layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...hierarchy import Hierarchy
from ..cache import StackState
from ..config import ModelConfig
from .lengthen import Lengthen
from .merge import Merge
from .shorten import Shorten
from .stack import Stack


@dataclass
class LevelState:
    """What a level remembers: its stacks, the last k pre outputs, and the k rows the inside holds for this group."""

    pre: StackState
    inner: LevelState | StackState
    post: StackState
    window: Tensor  # [B, k, D], zeros until there is a past: the causal shift by k-1
    held: Tensor  # [B, k, D]
    position: int = 0


class Level(nn.Module):
    """`x -> post(merge(pre(x), lengthen(inner(shorten(shift(pre(x)))))))` (Hourglass paper, algorithm 1).

    The inside fires when a row opens a group (`position % k == 0`), on the previous k-1 rows and that one.
    """

    def __init__(self, config: ModelConfig, hierarchy: Hierarchy) -> None:
        super().__init__()
        self.factor, inside = hierarchy.factor, hierarchy.inner
        self.pre = Stack(config.layer, hierarchy.levels[0].layers)
        self.shorten = Shorten(config, self.factor)
        self.inner = Stack(config.layer, inside.levels[0].layers) if inside.is_vanilla else Level(config, inside)
        self.lengthen = Lengthen(config, self.factor)
        self.merge = Merge(config)
        self.post = Stack(config.layer, hierarchy.levels[-1].layers)

    def init_state(self, batch: int, capacity: int) -> LevelState:
        """Empty state for at most `capacity` rows at this level's rate."""
        weight = next(self.parameters())
        rows = weight.new_zeros(batch, self.factor, self.lengthen.dim)
        return LevelState(
            pre=self.pre.init_state(batch, capacity),
            inner=self.inner.init_state(batch, -(-capacity // self.factor)),
            post=self.post.init_state(batch, capacity),
            window=rows,
            held=torch.zeros_like(rows),
        )

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence `[B, L, D]`, L any length."""
        rows, k = x.shape[1], self.factor
        fine = self.pre(x)
        groups = -(-rows // k)
        shifted = F.pad(fine, (0, 0, k - 1, 0))[:, : groups * k]  # k-1 zero rows in front, the newest k-1 not used yet
        coarse = self.inner(self.shorten(shifted))  # [B, ceil(L / k), D]
        context = self.lengthen(coarse)[:, :rows]
        y: Tensor = self.post(self.merge(fine, context))
        return y

    def step(self, x: Tensor, state: LevelState) -> Tensor:
        """The next row `[B, 1, D]`; the inside runs only when this row opens a group."""
        fine = self.pre.step(x, state.pre)
        state.window = torch.cat((state.window[:, 1:], fine), 1)
        phase = state.position % self.factor
        if phase == 0:
            state.held = self.lengthen(self.inner.step(self.shorten(state.window), state.inner))  # type: ignore[arg-type]
        state.position += 1
        merged = self.merge(fine, state.held[:, phase : phase + 1])
        return self.post.step(merged, state.post)
