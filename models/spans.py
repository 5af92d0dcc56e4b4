"""Rows that a firing reads where the data decides which: the newest of a coarser scale, or a span of unknown length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..contract import InputSpec, StageSpec
from .architecture import time_major


@dataclass(frozen=True)
class Spans:
    """The rows of L spans, which lie one after another in a block, and where each of them begins.

    Attributes:
        rows: float32 `[B, M, D]`: all rows of all spans, and maybe more.
        first: int64 `[L]`: index of each span's first row in the block.
        within: int64 `[P]`: 0 to P - 1; P is the length of the longest span.
        lengths: int64 `[B, L]`: rows of each span, at most P; 0 where there are none.
    """

    rows: Tensor
    first: Tensor
    within: Tensor
    lengths: Tensor

    @property
    def mask(self) -> Tensor:
        """bool `[B, L, P]`: which rows are there."""
        return self.within[None, None, :] < self.lengths[:, :, None]

    def gather(self, rows: Tensor) -> Tensor:
        """What was made of the block `[B, M, W]`, by span: `[B, L, P, W]`, with other rows where a span is shorter."""
        places = (self.first[:, None] + self.within[None, :]).clamp(max=rows.shape[1] - 1)  # [L, P]
        found = rows.index_select(1, places.reshape(-1))
        return found.reshape(rows.shape[0], self.first.shape[0], self.within.shape[0], rows.shape[2])

    def mean(self) -> Tensor:
        """The average of each span's rows `[B, L, D]`; of an empty one, zeros."""
        kept = torch.where(self.mask[:, :, :, None], self.gather(self.rows), 0.0)
        return kept.sum(2) / self.lengths.clamp(min=1)[:, :, None].to(kept.dtype)

    def max(self) -> Tensor:
        """The largest of each span's rows, column by column `[B, L, D]`; of an empty one, a very small number."""
        lowest = torch.finfo(self.rows.dtype).min
        return torch.where(self.mask[:, :, :, None], self.gather(self.rows), lowest).amax(2)


def read_inputs(spec: StageSpec, tensors: Iterator[Tensor]) -> list[Tensor | Spans]:
    """What a stage's module is given, by its inputs, out of the tensors of its contract (`contract.read_tensors`)."""
    return [_read(given, tensors) for given in spec.inputs]


def _read(given: InputSpec, tensors: Iterator[Tensor]) -> Tensor | Spans:
    rows = next(tensors)
    if given.reads == "newest":
        rows = _newest(rows, next(tensors), given.count, axis=1 if given.kind == "tokens" else 0)
    batch_first = rows if given.kind == "tokens" else time_major(rows)
    if given.reads == "span":
        return Spans(batch_first, next(tensors), next(tensors), next(tensors))
    return batch_first


def _newest(rows: Tensor, index: Tensor, count: int, axis: int) -> Tensor:
    """Of a block, the `count` rows from each index `[L]` on: `count * L` rows along an axis."""
    if count > 1:
        index = (index[:, None] + torch.arange(count)[None, :]).reshape(-1)
    return rows.index_select(axis, index)
