"""A stage in a few lines of numpy: stateful, exact and quick, to test the interpreter without an engine library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...contract import InputSpec, StageSpec
from ..rows import Array, Block, Ids


class FakeEngine:
    """Mixes each firing's inputs, remembers the mix in its cache and gives back a sum since the last reset; counts its firings.

    Every output depends on every input row, on the order of rows within a window and on all earlier firings, so a wrong
    window, a missed firing or a stale cache shows in the logits.
    """

    def __init__(self, spec: StageSpec, dim: int) -> None:
        self.spec, self.dim = spec, dim
        self.fired: list[int] = []

    def bind(self, batch: int, firings: int) -> FakeStage:
        """As `Engine.bind`; the stage must declare one cache, for the mixes."""
        return self.attach(self.new_caches(batch, firings), batch, firings)

    takes_each = True

    def new_caches(self, batch: int, firings: int) -> Sequence[Array]:
        """As `SlotsEngine.new_caches`."""
        (cache,) = self.spec.caches
        return [np.zeros((batch, 1, cache.length(firings), self.dim), np.float64)]

    def attach(self, caches: Sequence[Array], batch: int, firings: int) -> FakeStage:
        """As `SlotsEngine.attach`."""
        return FakeStage(self, caches)


class FakeStage:
    """A `FakeEngine` with its caches."""

    copied_bytes = 0

    def __init__(self, engine: FakeEngine, caches: Sequence[Array]) -> None:
        self.engine, self.caches = engine, caches
        self.lent: Sequence[Array] = ()

    def borrow(self, caches: Sequence[Array]) -> None:
        """As `BoundStage.borrow`: it makes nothing of them."""
        self.lent = caches

    def run_each(self, firsts: Ids, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `SlotsStage.run_each`: sequence by sequence."""
        for b, first in enumerate(firsts.tolist()):
            alone = self.engine.attach([cache[b : b + 1] for cache in self.caches], 1, 0)
            alone.borrow([cache[b : b + 1] for cache in self.lent])
            result = np.empty_like(_one(output.array, b, logit_rows is not None))
            taken = [Block.of(np.ascontiguousarray(_of_one(block.array, b))) for block in inputs]
            alone.run(first, 1, taken, Block.of(result), logit_rows)
            _one(output.array, b, logit_rows is not None)[...] = result

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        engine, spec = self.engine, self.engine.spec
        given = iter([block.array for block in inputs])
        mixed: Array = np.sum([self._read(one, given, firings) for one in spec.inputs], axis=0)
        y = np.sin(self._remember(mixed, first, firings) + mixed)
        if logit_rows is not None:
            spread = np.arange(1, spec.width + 1) / spec.width
            output.array[...] = (y.sum(-1, keepdims=True) * spread)[:, logit_rows.array]
        else:
            slots = np.arange(1, spec.output_rows + 1)[:, None]
            rows = y[:, :, None] * slots  # [B, L, k, D]
            output.array[...] = rows.reshape(y.shape[0], -1, engine.dim).transpose(1, 0, 2)
        engine.fired.extend(range(first, first + firings))

    def _remember(self, mixed: Array, first: int, firings: int) -> Array:
        """The sum of all mixes since the last reset, up to each of these firings, `[B, firings, D]`."""
        spec, memory = self.engine.spec, self.caches[0][:, 0]
        if spec.is_recurrent:  # it keeps the sum alone
            sums: Array = memory + np.cumsum(mixed, axis=1)
            memory[...] = sums[:, -1:]
            return sums
        start = first if spec.resets is None else first % spec.resets
        memory[:, start : start + firings] = mixed
        found: Array = np.cumsum(memory[:, : start + firings], axis=1)[:, start:]
        return found

    def _read(self, given: InputSpec, blocks: Iterator[Array], firings: int) -> Array:
        """What the firings make of one input: `[B, firings, D]`."""
        rows = next(blocks)
        if given.kind == "tokens":
            rows = np.repeat(rows.T[:, :, None] + 1.0, self.engine.dim, axis=2)  # [L, B, D]
        if given.reads == "stride":
            return _mix(rows.reshape(firings, -1, *rows.shape[1:]))
        if given.reads == "newest":
            return _mix(rows[next(blocks)[:, None] + np.arange(given.count)])
        first, within, lengths = (next(blocks) for _ in range(3))
        spans = rows[np.minimum(first[:, None] + within, len(rows) - 1)]  # [L, P, B, D]
        is_there = within[:, None] < lengths.T[:, None, :]
        return _mix(np.where(is_there[:, :, :, None], spans, 0))


def _mix(rows: Array) -> Array:
    """Weigh the rows `[L, k, B, D]` of each firing by their place: `[B, L, D]`."""
    weights = np.cos(np.arange(1, rows.shape[1] + 1))
    mixed: Array = np.einsum("nkbd,k->bnd", rows, weights)
    return mixed


def _of_one(array: Array, b: int) -> Array:
    """What one sequence is given: places that all share are as they are."""
    return array if array.ndim == 1 else _one(array, b, array.dtype == np.int64)


def _one(rows: Array, b: int, is_batch_first: bool) -> Array:
    """A view of one sequence's."""
    return rows[b : b + 1] if is_batch_first else rows[:, b : b + 1]
