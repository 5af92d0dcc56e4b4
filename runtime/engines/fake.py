"""A stage in a few lines of numpy: stateful, exact and quick, to test the interpreter without an engine library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...contract import StageSpec
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
            taken = [Block.of(np.ascontiguousarray(_one(block.array, b, block.array.dtype == np.int64))) for block in inputs]
            alone.run(first, 1, taken, Block.of(result), logit_rows)
            _one(output.array, b, logit_rows is not None)[...] = result

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        engine, spec = self.engine, self.engine.spec
        mixed = sum(self._mix(block.array, spec.inputs[i].kind == "tokens", firings) for i, block in enumerate(inputs))
        memory = self.caches[0][:, 0]
        start = first if spec.resets is None else first % spec.resets
        memory[:, start : start + firings] = mixed
        sums = np.cumsum(memory[:, : start + firings], axis=1)[:, start:]  # [B, L, D]
        y = np.sin(sums + mixed)
        if logit_rows is not None:
            spread = np.arange(1, spec.width + 1) / spec.width
            output.array[...] = (y.sum(-1, keepdims=True) * spread)[:, logit_rows.array]
        else:
            slots = np.arange(1, spec.output_rows + 1)[:, None]
            rows = y[:, :, None] * slots  # [B, L, k, D]
            output.array[...] = rows.reshape(y.shape[0], -1, engine.dim).transpose(1, 0, 2)
        engine.fired.extend(range(first, first + firings))

    def _mix(self, rows: Array, is_tokens: bool, firings: int) -> Array:
        """Weigh the rows of each firing by their place: `[B, firings, D]`."""
        if is_tokens:
            rows = np.repeat(rows.T[:, :, None] + 1.0, self.engine.dim, axis=2)  # [L, B, D]
        grouped = rows.reshape(firings, -1, *rows.shape[1:])
        weights = np.cos(np.arange(1, grouped.shape[1] + 1))
        mixed: Array = np.einsum("nkbd,k->bnd", grouped, weights)
        return mixed


def _one(rows: Array, b: int, is_batch_first: bool) -> Array:
    """A view of one sequence's."""
    return rows[b : b + 1] if is_batch_first else rows[:, b : b + 1]
