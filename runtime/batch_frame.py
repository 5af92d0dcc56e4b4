"""What the host tells resident engines in a decode step of a batch, and what it gets back.

Every range of slots that a stage runs for is a call of its own and finds its tensors at places of its own; these follow from
the ranges, so that a step with the same ranges finds them where they were.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..contract import StageSpec
from .batches.ranges import Range
from .device import Buffer, Device, Region
from .resident_state import aligned
from .rows import Ids, TokenLog

_INT64_BYTES, _FLOAT32_BYTES = 8, 4
Ranges = tuple[tuple[Range, ...], ...]
"""By stage, the slots `[first, last)` of every call."""


class _Place(NamedTuple):
    """Where a call finds what it is told, as offsets in bytes: positions `[n]`, ids `[n, count]`, and logits `[n, 1, V]`."""

    stage: int
    slots: Range
    position: int
    ids: int
    logits: int


class _Layout(NamedTuple):
    """The places of all calls, by stage and slots, and how much is told and answered."""

    places: dict[tuple[int, Range], _Place]
    told_bytes: int
    answer_bytes: int


@functools.lru_cache(256)
def _laid_out(ranges: Ranges, counts: tuple[int, ...], vocab_size: int) -> _Layout:
    """Of the calls of a step, whose stages read so many ids at each firing; the last of them gives logits."""
    places, told, answer = {}, aligned(_INT64_BYTES), 0
    for stage, (calls, count) in enumerate(zip(ranges, counts, strict=True)):
        for slots in calls:
            sequences = slots[1] - slots[0]
            ids = told + aligned(_INT64_BYTES * sequences)
            places[stage, slots] = _Place(stage, slots, told, ids, answer)
            told = ids + aligned(_INT64_BYTES * sequences * count)
            if stage == len(counts) - 1:
                answer += aligned(sequences * vocab_size * _FLOAT32_BYTES)
    return _Layout(places, told, answer)


class BatchFrame:
    """Positions and token ids in one block, so that one copy brings all of them; and the logits, so that one takes them back.

    In order, each aligned: the wanted row of a call (its only one, 0), and for every call the position of its slots, and their
    token ids if the stage reads any.
    """

    def __init__(self, device: Device, specs: Sequence[StageSpec], slots: int, vocab_size: int) -> None:
        self._device, self._specs, self._vocab_size = device, specs, vocab_size
        self._counts = [next((given.count for given in spec.inputs if given.source is None), 0) for spec in specs]
        self._shifts = [next((given.shift for given in spec.inputs if given.source is None), 0) for spec in specs]
        most = sum(aligned(_INT64_BYTES) + aligned(_INT64_BYTES * count) for count in self._counts)  # of calls of one slot each
        self._told = device.pinned(((aligned(_INT64_BYTES) + slots * most) // _INT64_BYTES,), np.int64)
        self._block = device.allocate(self._told.nbytes)
        self._answer = device.pinned((slots * aligned(vocab_size * _FLOAT32_BYTES) // _FLOAT32_BYTES,), np.float32)
        self._logits = device.allocate(self._answer.nbytes)
        self._layout = _Layout({}, 0, 0)

    @property
    def wanted(self) -> Buffer:
        """The wanted row of every call."""
        return self._block.at(0, _INT64_BYTES)

    def lay_out(self, ranges: Ranges) -> None:
        """Let the next step be one of these calls."""
        self._layout = _laid_out(ranges, tuple(self._counts), self._vocab_size)

    def tensors(self, stage: int, slots: Range) -> Iterator[tuple[str, Buffer]]:
        """Where a call finds what the host tells it, and leaves its logits; by the tensor's name."""
        place, count = self._layout.places[stage, slots], slots[1] - slots[0]
        yield "position", self._block.at(place.position, count * _INT64_BYTES)
        if self._counts[stage]:
            yield "input_ids", self._block.at(place.ids, count * self._counts[stage] * _INT64_BYTES)
        if self._specs[stage].output == "logits":
            yield "logits", self._logits.at(place.logits, count * self._vocab_size * _FLOAT32_BYTES)

    def tell(self, firsts: Ids, tokens: TokenLog) -> None:
        """Write down where every slot fires, `[stages, slots]`, and the ids that it reads there."""
        for place in self._layout.places.values():
            (first, last), count = place.slots, self._counts[place.stage]
            firings = firsts[place.stage, first:last]
            self._put(place.position, firings)
            if count:
                starts = firings * count + (tokens.lead - self._shifts[place.stage])
                self._put(place.ids, tokens.array[np.arange(first, last)[:, None], starts[:, None] + np.arange(count)])

    def _put(self, offset: int, numbers: Ids) -> None:
        start = offset // _INT64_BYTES
        self._told[start : start + numbers.size] = numbers.reshape(-1)

    def upload(self) -> None:
        """Queue what was told."""
        nbytes = self._layout.told_bytes
        self._device.copy(Region(self._block.address, nbytes), Region(self._told.ctypes.data, nbytes))

    def download(self) -> None:
        """Queue the answer."""
        nbytes = self._layout.answer_bytes
        self._device.copy(Region(self._answer.ctypes.data, nbytes), Region(self._logits.address, nbytes))

    def logits(self, slots: Ids) -> npt.NDArray[np.float32]:
        """Those of some of the slots, ascending, `[n, V]`, once the device is done; a copy."""
        answer, start = np.empty((len(slots), self._vocab_size), np.float32), 0
        for place in self._layout.places.values():
            if self._specs[place.stage].output == "logits":
                first, last = place.slots
                here = self._answer[place.logits // _FLOAT32_BYTES :][: (last - first) * self._vocab_size]
                asked = slots[(slots >= first) & (slots < last)] - first
                answer[start : start + len(asked)] = here.reshape(last - first, self._vocab_size)[asked]
                start += len(asked)
        return answer
