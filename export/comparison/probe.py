"""One call of a stage at any position and of any size, on random rows and random state: what a sequence reaches only late.

Nothing before it has to run, so that the end of a long context costs as little as its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...contract import InputSpec, StageSpec, contract_of, size_of
from ...runtime.engines.base import Engine
from ...runtime.rows import Array, Block
from .errors import Comparison
from .paired import PairedEngine

_SEED = 20211026
_BLOCK_ROWS = 3
"""The most rows that a firing goes forward in a block whose places are not those of a stride."""


class Probe(NamedTuple):
    """A call: of firings `[first, first + firings)`, with room for `capacity` tokens."""

    batch: int
    capacity: int
    first: int
    firings: int


class Surroundings(NamedTuple):
    """What a stage's call takes beside the stage: token ids below `vocab_size`, the other `stages`, which lend caches, and how
    many tokens the model has positions for."""

    vocab_size: int
    stages: Sequence[StageSpec]
    context: int


def room_from(spec: StageSpec, first: int) -> int:
    """Firings from `first` on that one call may have: it crosses no reset and no page."""
    rooms = [] if spec.resets is None else [spec.resets - first % spec.resets]
    if spec.page is not None:
        per_page = max(spec.page // spec.stride, 1)
        rooms.append(per_page - first % per_page)
    return min(rooms, default=1 << 30)


def run_probe(reference: Engine, other: Engine, comparison: Comparison, probe: Probe, around: Surroundings) -> None:
    """Compare rows or logits, and caches, after one call.

    Raises:
        RunError: one of the engines can't run it.
    """
    spec, rng = reference.spec, np.random.default_rng(_SEED + probe.first)
    bound = PairedEngine(reference, other, comparison).bind(probe.batch, spec.capacity_firings(probe.capacity))
    bound.fill_caches(rng)
    bound.borrow(lent_caches(spec, probe, around, rng))
    bound.run(probe.first, probe.firings, *blocks_of(spec, probe, around.vocab_size, rng))


def blocks_of(
    spec: StageSpec, probe: Probe, vocab_size: int, rng: np.random.Generator
) -> tuple[list[Block], Block, Block | None]:
    """Random inputs of a call, room for its output, and the rows whose logits are wanted: all, the last first."""
    letters = {"B": probe.batch, "L": probe.firings, "N": probe.firings}
    contract = contract_of(spec)
    inputs = []
    for name, given in zip(spec.names(), spec.inputs, strict=True):
        places = _places(given, probe, rng)
        letters[f"M.{name}"] = _BLOCK_ROWS * probe.firings + given.count
        tensor = next(tensor for tensor in contract.inputs if tensor.name == name)
        shape = tuple(size_of(dimension, letters) for dimension in tensor.shape)
        is_ids = tensor.dtype == "int64"
        rows = rng.integers(0, vocab_size, shape) if is_ids else rng.standard_normal(shape, np.float32)
        inputs += [Block.of(array) for array in (rows, *places)]
    output = Block.of(np.zeros([size_of(dimension, letters) for dimension in contract.outputs[0].shape], np.float32))
    wanted = Block.of(np.arange(probe.firings)[::-1].copy()) if spec.output == "logits" else None
    return inputs, output, wanted


def _places(given: InputSpec, probe: Probe, rng: np.random.Generator) -> list[Array]:
    """Where the firings of a call find their rows in the block of an input: what follows its rows (`contract.read_tensors`)."""
    steps = rng.integers(1, _BLOCK_ROWS + 1, probe.firings)
    starts = np.cumsum(steps) - steps
    if given.reads == "newest":
        return [starts]
    if given.reads == "span":
        within = np.arange(int(steps.max()))
        lengths = rng.integers(1, steps + 1, (probe.batch, probe.firings))
        lengths[0] = steps
        return [starts, within, lengths]
    return []


def lent_caches(spec: StageSpec, probe: Probe, around: Surroundings, rng: np.random.Generator) -> list[Array]:
    """Random caches of the stages that lend theirs."""
    by_name, found = {stage.name: stage for stage in around.stages}, []
    for borrowed in spec.borrows:
        firings = by_name[borrowed.stage].capacity_firings(probe.capacity)
        cache = borrowed.cache
        found.append(rng.standard_normal((probe.batch, cache.heads, cache.length(firings), cache.width), np.float32))
    return found
