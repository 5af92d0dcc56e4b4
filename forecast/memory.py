"""The memory that a model takes on a device, and whether there is as much."""

from __future__ import annotations

import msgspec

from ..contract import rows_within
from ..runtime.host import MOST_TOKENS
from .shapes import Shape, StageShape


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes.

    Attributes:
        weights: all of them, however rarely a stage fires.
        state: keys, values and rows of all sequences, at the room that they were opened for.
        working: activations of the longest call, and logits.
        program: the process itself, its libraries, and a context on the device.
        available: what the device has for one program; None: not known.
        fits: whether the sum is less; None: not known.
    """

    weights: float
    state: float
    working: float
    program: float
    available: float | None
    fits: bool | None

    @property
    def total(self) -> float:
        """All together."""
        return self.weights + self.state + self.working + self.program


def memory_of(shape: Shape, context: int, batch: int, prompt: int, program: float, available: float | None) -> Memory:
    """What `batch` sequences with room for `context` tokens each take, prompts read in calls of at most `MOST_TOKENS`."""
    weights = sum(stage.weight_bytes + stage.table_bytes for stage in shape.stages)
    state = float(batch * (sum(_caches(stage, context) for stage in shape.stages) + _rows(shape, context)))
    working = float(_ROWS_AT_ONCE * 4 * min(prompt, MOST_TOKENS) * (shape.widest + shape.dim) + 4 * batch * shape.vocab_size)
    total = weights + state + working + program
    fits = None if available is None else total <= available
    return Memory(weights=weights, state=state, working=working, program=program, available=available, fits=fits)


_ROWS_AT_ONCE = 3
"""Activations that live at the same time: what a product reads and gives, and the residual stream."""


def _caches(stage: StageShape, context: int) -> float:
    firings = stage.spec.capacity_firings(context)
    return sum(cache.length(firings) * stage.row_bytes[cache.name] for cache in stage.spec.caches)


def _rows(shape: Shape, context: int) -> int:
    """Rows that stages hand to one another, fp32; where the data decides, as many as there may be."""
    if any(spec.clock is not None for spec in shape.specs):
        counts = [spec.capacity_firings(context) * spec.output_rows for spec in shape.specs]
    else:
        counts = rows_within(shape.specs, context)
    return sum(4 * rows * spec.width for rows, spec in zip(counts, shape.specs, strict=True) if spec.output == "hidden")
