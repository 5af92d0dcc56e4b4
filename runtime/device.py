"""What the resident decoder asks of a device, and the host as one: memory at fixed addresses, work in order."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .rows import Array

Work = Callable[[], None]


class Buffer(NamedTuple):
    """Memory of a device; the owner keeps it alive."""

    address: int
    nbytes: int
    owner: object

    def at(self, offset: int, nbytes: int) -> Buffer:
        """A part of it."""
        return Buffer(self.address + offset, nbytes, self.owner)


class Region(NamedTuple):
    """`height` runs of `width` bytes, the first at `address`, each `pitch` bytes after the one before."""

    address: int
    width: int
    height: int = 1
    pitch: int = 0


class Device(Protocol):
    """A queue of work on a memory of its own, and a second one beside it. Not thread-safe."""

    @property
    def has_graphs(self) -> bool:
        """Whether `capture` makes something that is quicker than doing the work again."""
        ...

    @property
    def alignment(self) -> int:
        """The bytes of whose multiples a view of memory must begin at one to be an engine's tensor."""
        ...

    def allocate(self, nbytes: int) -> Buffer:
        """Zeroed memory; given back when nothing refers to it any more."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A zeroed array on the host that copies to and from the device need not stage."""
        ...

    def copy(self, target: Region, source: Region) -> None:
        """Queue a copy of regions of equal width and height, each on the host or on the device."""
        ...

    def beside(self) -> AbstractContextManager[None]:
        """What is queued inside the block goes to the second queue, and begins when all that was queued before it is done."""
        ...

    def join(self) -> None:
        """Let what is queued from now on begin when all that was queued beside is done."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was queued is done; what was queued beside only if it was joined."""
        ...

    def capture(self, work: Work) -> Work:
        """Record what `work` queues, without doing it; the result queues it all at once.

        Raises:
            DeviceError: it can't be recorded, as it can't while something that was queued beside is not joined.
        """
        ...


def timed(device: Device, work: Work) -> int:
    """Do what `work` queues by itself; the nanoseconds that took."""
    device.synchronize()
    began = time.perf_counter_ns()
    work()
    device.synchronize()
    return time.perf_counter_ns() - began


class HostDevice:
    """The host's own memory, on which everything is done at once."""

    has_graphs, alignment = False, 1

    def allocate(self, nbytes: int) -> Buffer:
        """As `Device.allocate`."""
        array = np.zeros(nbytes, np.uint8)
        return Buffer(array.ctypes.data, nbytes, array)

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """As `Device.pinned`."""
        return np.zeros(shape, dtype)

    def copy(self, target: Region, source: Region) -> None:
        """As `Device.copy`."""
        for row in range(target.height):
            ctypes.memmove(target.address + row * target.pitch, source.address + row * source.pitch, target.width)

    def beside(self) -> AbstractContextManager[None]:
        """As `Device.beside`."""
        return nullcontext()

    def join(self) -> None:
        """As `Device.join`."""

    def synchronize(self) -> None:
        """As `Device.synchronize`."""

    def capture(self, work: Work) -> Work:
        """As `Device.capture`."""
        return work
