"""The stages of an H-Net: encoders from fine to coarse, the innermost tower, decoders from coarse to fine.

A row of an encoder ends with the chance that it begins a chunk, by which all stages of the next scale fire. Row f of theirs is
of the row that fired it: there is no pooling. An inner encoder hands on, one column before its own chance, that of the row it
was picked from, which its decoder smooths by.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..cache import State
from .last_row import LastRow
from .router import QUERY, Router
from .smoothing import SMOOTH, smooth_step
from .tower import Tower


class Widen(nn.Module):
    """Rows of a scale, with learned columns behind them where the next one is wider."""

    def __init__(self, dim: int, wider: int) -> None:
        super().__init__()
        self.dim = dim
        self.columns = nn.Parameter(torch.zeros(wider - dim)) if wider > dim else None

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, D']`."""
        if self.columns is None:
            return x
        return torch.cat((x, self.columns.expand(*x.shape[:2], -1)), -1)


class Encode(nn.Module):
    """The outermost encoder: tokens to rows `[h, chance]`."""

    def __init__(self, embed: nn.Embedding, tower: Tower, router: Router) -> None:
        super().__init__()
        self.embed, self.tower, self.router = embed, tower, router
        self.last = LastRow(QUERY, tower.dim, tower.has_states)

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`; the input is ids `[B, L]`."""
        y = self.tower.step(self.embed(inputs[0]), state)
        return torch.cat((y, self.router.step(y, self.last, state)), -1)


class EncodePicked(nn.Module):
    """An inner encoder: picked rows of the one around it to rows `[h, chance of the picked row, chance]`."""

    def __init__(self, widen: Widen, tower: Tower, router: Router) -> None:
        super().__init__()
        self.widen, self.tower, self.router = widen, tower, router
        self.last = LastRow(QUERY, tower.dim, tower.has_states)

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`; the input is rows `[B, L, D + 1]` or `[B, L, D + 2]`."""
        (picked,) = inputs
        y = self.tower.step(self.widen(picked[..., : self.widen.dim]), state)
        return torch.cat((y, picked[..., -1:], self.router.step(y, self.last, state)), -1)


class Innermost(nn.Module):
    """The innermost tower: picked rows to smoothed rows of the scale around it."""

    def __init__(self, widen: Widen, tower: Tower) -> None:
        super().__init__()
        self.widen, self.tower = widen, tower
        self.last = LastRow(SMOOTH, widen.dim, tower.has_states)

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        (picked,) = inputs
        y = self.tower.step(self.widen(picked[..., : self.widen.dim]), state)
        return smooth_step(y[..., : self.widen.dim], picked[..., -1], self.last, state)


class Decode(nn.Module):
    """An inner decoder: smoothed rows of the next scale and its encoder's to smoothed rows of the scale around it."""

    def __init__(self, residual: nn.Linear, tower: Tower, narrow: int) -> None:
        super().__init__()
        self.residual, self.tower = residual, tower
        self.last = LastRow(SMOOTH, narrow, tower.has_states)

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`; inputs are the newest smoothed row `[B, L, D]` and the encoder's `[B, L, D + 2]`."""
        coarse, own = inputs
        y = self.tower.step(coarse + self.residual(own[..., : self.tower.dim]), state)
        return smooth_step(y[..., : self.last.cache.width], own[..., -2], self.last, state)


class ToLogits(nn.Module):
    """Rows to logits; the tower before it has the norm."""

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.logits = nn.Linear(dim, vocab_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, V]`."""
        y: Tensor = self.logits(x)
        return y


class DecodeTokens(nn.Module):
    """The outermost decoder: smoothed rows of the next scale and its encoder's to logits."""

    def __init__(self, residual: nn.Linear, tower: Tower, exit: ToLogits) -> None:
        super().__init__()
        self.residual, self.tower, self.exit = residual, tower, exit

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`; inputs are the newest smoothed row `[B, L, D]` and the encoder's `[B, L, D + 1]`."""
        coarse, own = inputs
        y = self.tower.step(coarse + self.residual(own[..., : self.tower.dim]), state)
        if logit_rows is not None:
            y = y.index_select(1, logit_rows)
        logits: Tensor = self.exit(y)
        return logits
