"""What the host tells one resident engine in a call, at addresses that never change: positions, ids, places, lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..contract import Contract, size_of
from .device import Buffer, Device, Region
from .resident_state import aligned
from .rows import Ids

_INT64_BYTES = 8


class StageFrame:
    """A block that holds all integer inputs of a stage one after another; a call copies the part of each that it tells.

    Args:
        device: that the engine runs on.
        contract: the stage's, in its resident form.
        most: the most that each letter of its dimensions may stand for.
        leave_out: inputs that are the same in every call.
    """

    def __init__(self, device: Device, contract: Contract, most: Mapping[str, int], leave_out: Sequence[str] = ()) -> None:
        self._device, self._places = device, {}  # type: Device, dict[str, tuple[int, int]]
        end = 0
        for tensor in contract.inputs:
            if tensor.dtype == "int64" and tensor.name not in leave_out:
                count = int(np.prod([size_of(size, most) for size in tensor.shape]))
                self._places[tensor.name] = end, count
                end += aligned(count * _INT64_BYTES) // _INT64_BYTES
        self._told = device.pinned((end,), np.int64)
        self._block = device.allocate(self._told.nbytes)
        self.is_queued = False
        """Whether what was told may still be on its way, so that nothing else may be told yet."""

    def tensors(self) -> dict[str, Buffer]:
        """Where the engine finds each of them."""
        return {
            name: self._block.at(start * _INT64_BYTES, count * _INT64_BYTES) for name, (start, count) in self._places.items()
        }

    def tell(self, numbers: Mapping[str, Ids]) -> None:
        """Queue what the next call is told: of every tensor, as many numbers as it has in that call."""
        runs: list[tuple[int, int]] = []  # what lies close together is one copy
        for name, (start, _) in self._places.items():
            if name not in numbers:
                continue
            values = numbers[name]
            self._told[start : start + values.size] = values.reshape(-1)
            if runs and start - runs[-1][1] < _CLOSE:
                runs[-1] = runs[-1][0], start + values.size
            else:
                runs.append((start, start + values.size))
        for start, stop in runs:
            nbytes, offset = (stop - start) * _INT64_BYTES, start * _INT64_BYTES
            self._device.copy(Region(self._block.address + offset, nbytes), Region(self._told.ctypes.data + offset, nbytes))
        self.is_queued = True


_CLOSE = 512
"""Numbers between two parts of a block that are rather copied along than queued apart."""
