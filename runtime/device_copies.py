"""Copies of recurrent state in a device's memory, where the state is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .device import Buffer, Device, Region
from .resident_state import StageState, StateTensor
from .state_copies import StateCopies


class DeviceCopies(StateCopies):
    """As `StateCopies`, queued on a device.

    Args:
        device: the state's.
        state: of the stage.
        tensors: those of the state that are recurrent.
        every: firings from one copy to the next.
    """

    def __init__(self, device: Device, state: StageState, tensors: Sequence[StateTensor], every: int) -> None:
        super().__init__((), every)
        self._device, self._state, self._tensors = device, state, tensors
        self._zeros = device.allocate(max(tensor.nbytes for tensor in tensors))

    def _copy(self) -> Sequence[Buffer]:
        copies = [self._device.allocate(tensor.nbytes) for tensor in self._tensors]
        for tensor, copy in zip(self._tensors, copies, strict=True):
            self._move(copy, self._state.newest(tensor), tensor.nbytes)
        return copies

    def _put(self, copy: Sequence[Any] | None) -> None:
        for index, tensor in enumerate(self._tensors):
            self._move(self._state.newest(tensor), self._zeros if copy is None else copy[index], tensor.nbytes)

    def _move(self, target: Buffer, source: Buffer, nbytes: int) -> None:
        self._device.copy(Region(target.address, nbytes), Region(source.address, nbytes))
