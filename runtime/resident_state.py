"""What is kept of one stage in a device's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..bundle import ITEM_BYTES
from ..contract import Limits, StageSpec, rows_within, sizes_of
from .decoder import Written
from .device import Buffer, Device, Region
from .engines.resident import ResidentEngine
from .rows import Array

ALIGNMENT = 256
"""TensorRT takes no tensor whose address is not a multiple of so many bytes (IExecutionContext::setTensorAddress)."""


class StateTensor(NamedTuple):
    """`[B, H, rows, width]`, of which an engine reads the past and writes the present.

    It is in one buffer, or in two that take turns; or it `settles`: the second is where a run leaves what is then copied back.
    """

    past: str
    present: str
    shape: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    buffers: tuple[Buffer, ...]
    settles: bool = False

    @property
    def nbytes(self) -> int:
        """Of one buffer."""
        return self.buffers[0].nbytes

    @property
    def slot_bytes(self) -> int:
        """Of one sequence."""
        return self.nbytes // self.shape[0]

    def slots(self, first: int, last: int) -> StateTensor:
        """That of some of its sequences, the same memory."""
        size = self.slot_bytes
        parts = tuple(buffer.at(first * size, (last - first) * size) for buffer in self.buffers)
        return self._replace(shape=(last - first, *self.shape[1:]), buffers=parts)


class _Kept(NamedTuple):
    """What an engine keeps of one sequence: `[H, rows, width]`."""

    past: str
    present: str
    shape: tuple[int, int, int]
    dtype: str
    recurrent: bool = False

    @property
    def slot_bytes(self) -> int:
        """Of it."""
        return int(np.prod(self.shape)) * ITEM_BYTES[self.dtype]


def kept_by(engine: ResidentEngine, limits: Limits, specs: Sequence[StageSpec]) -> list[_Kept]:
    """Its caches, and at the end its log, if it has one."""
    spec, sizes = engine.spec, sizes_of(limits, specs, engine.spec.name)
    kept = [
        _Kept(
            f"past_key_values.{cache.name}",
            f"present.{cache.name}",
            (cache.heads, cache.length(sizes["S"]), width),
            engine.cache_dtype,
            cache.recurrent,
        )
        for cache, width in zip(spec.caches, engine.cache_widths, strict=True)
    ]
    return kept + [_Kept("past_rows", "present_rows", (1, sizes["R"], spec.width), "float32")] * (spec.output == "hidden")


class StageState:
    """A stage's keys, values and log of rows. `turn` says which of two buffers is the newer; in place there is one."""

    def __init__(self, device: Device, spec: StageSpec, caches: Sequence[StateTensor], log: StateTensor | None) -> None:
        self._device, self._spec, self.turn = device, spec, 0
        self.caches, self.log = tuple(caches), log
        self._by_name = {cache.name: made for cache, made in zip(spec.caches, self.caches, strict=True)}

    @classmethod
    def new(cls, engine: ResidentEngine, device: Device, limits: Limits, specs: Sequence[StageSpec], sides: int) -> StageState:
        """Zeroed, for as many sequences, firings and rows as there may be, in one buffer or two."""

        def tensor(kept: _Kept) -> StateTensor:
            nbytes, settles = limits.batch * kept.slot_bytes, kept.recurrent and sides == 1 and not engine.replaces_in_place
            buffers = tuple(device.allocate(nbytes) for _ in range(2 if settles else sides))
            return StateTensor(kept.past, kept.present, (limits.batch, *kept.shape), np.dtype(kept.dtype), buffers, settles)

        made = [tensor(kept) for kept in kept_by(engine, limits, specs)]
        log = made.pop() if engine.spec.output == "hidden" else None
        return cls(device, engine.spec, made, log)

    @property
    def tensors(self) -> list[StateTensor]:
        """All of them."""
        return [*self.caches] if self.log is None else [*self.caches, self.log]

    @property
    def sides(self) -> int:
        """Buffers of each tensor that take turns."""
        return max((len(tensor.buffers) for tensor in self.tensors if not tensor.settles), default=1)

    @property
    def rewritten_bytes(self) -> int:
        """Bytes that a run writes only because it can't write in place."""
        return sum(tensor.nbytes for tensor in self.tensors if len(tensor.buffers) > 1)

    @property
    def nbytes(self) -> int:
        """Bytes reserved."""
        return sum(buffer.nbytes for tensor in self.tensors for buffer in tensor.buffers)

    def bindings(self) -> Iterator[tuple[str, Buffer]]:
        """Where the next run reads and writes each of them."""
        for tensor in self.tensors:
            yield tensor.past, self.newest(tensor)
            yield tensor.present, tensor.buffers[1 if tensor.settles else (self.turn + 1) % self.sides]

    def lent(self, name: str) -> Buffer:
        """The buffer of one of its caches, for another stage to read."""
        return self.newest(self._by_name[name])

    def newest(self, tensor: StateTensor) -> Buffer:
        """The buffer that holds everything so far."""
        return tensor.buffers[0 if tensor.settles else self.turn]

    def newest_log(self) -> Buffer:
        """The buffer that holds the stage's rows so far; raises TypeError for the stage that gives logits."""
        if self.log is None:
            raise TypeError("a stage that gives logits keeps no rows")
        return self.newest(self.log)

    def swap(self) -> None:
        """After a run: what it wrote is the past now."""
        self.turn = (self.turn + 1) % self.sides

    def slots(self, first: int, last: int, scratch: Buffer | None = None) -> StageState:
        """The state of sequences `[first, last)`, the same memory.

        Args:
            scratch: where a run leaves what it writes, until `settle` puts it back; None: it writes in place.
        """
        parts, offset = [], 0
        for tensor in self.tensors:
            part = tensor.slots(first, last)
            if scratch is not None:
                part = part._replace(buffers=(*part.buffers, scratch.at(offset, part.nbytes)), settles=True)
                offset += aligned(part.nbytes)
            parts.append(part)
        log = None if self.log is None else parts.pop()
        return StageState(self._device, self._spec, parts, log)

    @property
    def scratch_bytes(self) -> int:
        """Of the scratch memory that `slots` takes for all of them."""
        return sum(aligned(tensor.nbytes) for tensor in self.tensors)

    def settle(self) -> None:
        """After a run: queue the copy back of what it left elsewhere."""
        for tensor in self.tensors:
            if tensor.settles:
                past, present = tensor.buffers
                self._device.copy(Region(past.address, past.nbytes), Region(present.address, present.nbytes))

    def read(self, tensor: StateTensor, rows: int) -> Array:
        """Copy the first rows, `[B, H, rows, width]`."""
        batch, heads, _, width = tensor.shape
        array = np.empty((batch, heads, rows, width), tensor.dtype)
        self._copy(tensor, array, is_read=True)
        return array

    def write(self, tensor: StateTensor, array: Array) -> None:
        """Put the first rows back, `[B, H, rows, width]`."""
        self._copy(tensor, np.ascontiguousarray(array), is_read=False)

    def _copy(self, tensor: StateTensor, array: Array, is_read: bool) -> None:
        there, nbytes = self._first_rows(tensor, array.shape[2]), array.shape[2] * _row_bytes(tensor)
        here = Region(array.ctypes.data, nbytes, there.height, nbytes)
        self._device.copy(*((here, there) if is_read else (there, here)))
        self._device.synchronize()

    def _first_rows(self, tensor: StateTensor, rows: int) -> Region:
        batch, heads, capacity, _ = tensor.shape
        size = _row_bytes(tensor)
        return Region(self.newest(tensor).address, rows * size, batch * heads, capacity * size)

    def copy_from(self, other: StageState, log_rows: int, firings: int) -> None:
        """Queue a copy of the first rows of another's log and of what so many firings left in its caches."""
        lengths = [cache.length(firings) for cache in self._spec.caches]
        lengths += [] if self.log is None else [log_rows]
        for ours, theirs, rows in zip(self.tensors, other.tensors, lengths, strict=True):
            if rows:
                self._device.copy(self._first_rows(ours, rows), other._first_rows(theirs, rows))

    def read_rows(self, rows: int) -> Array | None:
        """A copy of the first rows of the log, `[rows, B, D]`; None if there is none."""
        return None if self.log is None else self.read(self.log, rows)[:, 0].transpose(1, 0, 2)

    def write_rows(self, rows: Array) -> None:
        """Put them back, if there is a log."""
        if self.log is not None:
            self.write(self.log, rows.transpose(1, 0, 2)[:, None])

    def read_caches(self, firings: int) -> tuple[Array, ...]:
        """A copy of what so many firings left in the caches."""
        return tuple(
            self.read(tensor, cache.length(firings)) for tensor, cache in zip(self.caches, self._spec.caches, strict=True)
        )

    def write_caches(self, caches: Sequence[Array]) -> None:
        """Put it back."""
        for tensor, saved in zip(self.caches, caches, strict=True):
            self.write(tensor, saved)


def _row_bytes(tensor: StateTensor) -> int:
    return tensor.shape[3] * tensor.dtype.itemsize


def aligned(nbytes: int) -> int:
    """So many bytes, or some more, after which another tensor may begin."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def bindings_of(spec: StageSpec, states: Mapping[str, StageState]) -> Iterator[tuple[str, Buffer]]:
    """A stage's own state, and the logs and caches of others that it reads, as they stand now."""
    yield from states[spec.name].bindings()
    for given in spec.inputs:
        if given.source is not None:
            yield f"rows.{given.source}", states[given.source].newest_log()
    for borrowed in spec.borrows:
        yield borrowed.name, states[borrowed.stage].lent(borrowed.cache.name)


def read_states(specs: Sequence[StageSpec], states: Sequence[StageState], position: int) -> Written:
    """A copy of what the first `position` tokens have written."""
    rows = tuple(state.read_rows(count) for state, count in zip(states, rows_within(specs, position), strict=True))
    caches = (state.read_caches(spec.firings_within(position)) for state, spec in zip(states, specs, strict=True))
    return Written(rows, tuple(caches))


def write_states(states: Sequence[StageState], written: Written) -> None:
    """Put it back."""
    for state, rows, caches in zip(states, written.rows, written.caches, strict=True):
        if rows is not None:
            state.write_rows(rows)
        state.write_caches(caches)
