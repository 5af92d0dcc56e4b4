"""Caches and rows of one stage in a device's memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..bundle import ITEM_BYTES
from .device import Buffer, Device, Region
from .engines.resident import ResidentEngine
from .rows import Array


class StateTensor(NamedTuple):
    """`[B, H, rows, width]`, of which an engine reads the past and writes the present; one buffer, or two that take turns."""

    past: str
    present: str
    shape: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    buffers: tuple[Buffer, ...]

    @property
    def nbytes(self) -> int:
        """Of one buffer."""
        return self.buffers[0].nbytes


class StageState:
    """A stage's keys, values and log of rows. `turn` says which of two buffers is the newer; in place there is one."""

    def __init__(self, engine: ResidentEngine, device: Device, batch: int, firings: int, log_rows: int) -> None:
        self._device, self.turn, spec = device, 0, engine.spec
        self.sides = 1 if engine.in_place else 2

        def tensor(past: str, present: str, shape: tuple[int, int, int, int], dtype: str) -> StateTensor:
            nbytes = int(np.prod(shape)) * ITEM_BYTES[dtype]
            return StateTensor(past, present, shape, np.dtype(dtype), tuple(device.allocate(nbytes) for _ in range(self.sides)))

        self.caches = []
        for cache, width in zip(spec.caches, engine.cache_widths, strict=True):
            shape = (batch, cache.heads, cache.length(firings), width)
            past, present = f"past_key_values.{cache.name}", f"present.{cache.name}"
            self.caches.append(tensor(past, present, shape, engine.cache_dtype))
        self._by_name = {cache.name: made for cache, made in zip(spec.caches, self.caches, strict=True)}
        has_log = spec.output == "hidden"
        self.log = tensor("past_rows", "present_rows", (batch, 1, log_rows, spec.width), "float32") if has_log else None

    @property
    def tensors(self) -> list[StateTensor]:
        """All of them."""
        return self.caches if self.log is None else [*self.caches, self.log]

    @property
    def rewritten_bytes(self) -> int:
        """Bytes that a run writes only because it can't write in place."""
        return 0 if self.sides == 1 else sum(tensor.nbytes for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes reserved."""
        return self.sides * sum(tensor.nbytes for tensor in self.tensors)

    def bindings(self) -> Iterator[tuple[str, Buffer]]:
        """Where the next run reads and writes each of them."""
        for tensor in self.tensors:
            yield tensor.past, self.newest(tensor)
            yield tensor.present, tensor.buffers[(self.turn + 1) % self.sides]

    def lent(self, name: str) -> Buffer:
        """The buffer of one of its caches, for another stage to read."""
        return self.newest(self._by_name[name])

    def newest(self, tensor: StateTensor) -> Buffer:
        """The buffer that holds everything so far."""
        return tensor.buffers[self.turn]

    def newest_log(self) -> Buffer:
        """The buffer that holds the stage's rows so far; raises TypeError for the stage that gives logits."""
        if self.log is None:
            raise TypeError("a stage that gives logits keeps no rows")
        return self.newest(self.log)

    def swap(self) -> None:
        """After a run: what it wrote is the past now."""
        self.turn = (self.turn + 1) % self.sides

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
        batch, heads, capacity, width = tensor.shape
        row = width * tensor.dtype.itemsize
        here = Region(array.ctypes.data, array.shape[2] * row, batch * heads, array.shape[2] * row)
        there = Region(self.newest(tensor).address, here.width, here.height, capacity * row)
        self._device.copy(*((here, there) if is_read else (there, here)))
        self._device.synchronize()
