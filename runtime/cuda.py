"""An NVIDIA GPU as a `Device`: memory, two streams and recorded graphs, through cuda-python."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BackendUnavailable, DeviceError, install
from .device import Buffer, Region, Work
from .rows import Array


def import_cudart() -> Any:
    """The module `cuda.bindings.runtime`; raises BackendUnavailable with the line that installs it."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendUnavailable(
            f"cuda-bindings can't be imported ({error}); GPU engines need it: {install('rtx')} (or [tensorrt])"
        ) from error
    return runtime


class _Side(NamedTuple):
    """A second stream, and the event by which it and the first wait for each other."""

    stream: int
    event: int


class CudaDevice:
    """GPU `index`, with a stream of its own on which work is queued in order, and one beside it. Use it from one thread.

    Attributes:
        stream: the one to queue on now.

    Raises:
        BackendUnavailable: cuda-bindings is not installed, or there is no driver or GPU.
    """

    has_graphs = True
    alignment = 256
    """TensorRT takes no other tensor (IExecutionContext::setTensorAddress)."""

    def __init__(self, index: int = 0, cudart: Any = None) -> None:
        self._cudart = import_cudart() if cudart is None else cudart
        try:
            self._call("cudaSetDevice", index)
            self.stream = self._new_stream()
        except DeviceError as error:
            raise BackendUnavailable(
                f"GPU {index} can't be used: {error}; `foveal doctor` shows what this machine has"
            ) from error
        self._is_forked = False  # whether something was queued beside, and not joined

    def _new_stream(self) -> int:
        stream = int(self._call("cudaStreamCreateWithFlags", self._cudart.cudaStreamNonBlocking))
        weakref.finalize(self, _release, self._cudart.cudaStreamDestroy, stream)
        return stream

    @cached_property
    def _side(self) -> _Side:
        """Made when something is first queued beside."""
        event = int(self._call("cudaEventCreateWithFlags", self._cudart.cudaEventDisableTiming))
        weakref.finalize(self, _release, self._cudart.cudaEventDestroy, event)
        return _Side(self._new_stream(), event)

    def allocate(self, nbytes: int) -> Buffer:
        """As `Device.allocate`."""
        address = self._allocate("cudaMalloc", nbytes)
        owner = _Owner(address, self._cudart.cudaFree)
        self._call("cudaMemsetAsync", address, 0, nbytes, self.stream)
        return Buffer(address, nbytes, owner)

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """As `Device.pinned`."""
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape)) * kind.itemsize
        address = self._allocate("cudaHostAlloc", nbytes, self._cudart.cudaHostAllocDefault)
        memory = (ctypes.c_byte * nbytes).from_address(address)
        weakref.finalize(memory, _release, self._cudart.cudaFreeHost, address)  # numpy's views keep `memory` alive
        array: Array = np.ndarray(shape, kind, memoryview(memory))
        array[...] = 0
        return array

    def copy(self, target: Region, source: Region) -> None:
        """As `Device.copy`."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDefault
        if target.height == 1:
            self._call("cudaMemcpyAsync", target.address, source.address, target.width, kind, self.stream)
        else:
            pitches = target.address, target.pitch, source.address, source.pitch
            self._call("cudaMemcpy2DAsync", *pitches, target.width, target.height, kind, self.stream)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """As `Device.beside`; the first time not while recording. A recording has a branch for it."""
        side, main = self._side.stream, self.stream
        self._let_wait(side, main)
        self.stream, self._is_forked = side, True
        try:
            yield
        finally:
            self.stream = main

    def join(self) -> None:
        """As `Device.join`."""
        if self._is_forked:
            self._is_forked = False
            self._let_wait(self.stream, self._side.stream)

    def _let_wait(self, stream: int, other: int) -> None:
        """Let what is queued on a stream from now on wait for all that the other has been given.

        Both calls mean the event as it is when they are made, so that one serves all. The first of them to name a stream that
        is recorded has the other recorded too.
        """
        self._call("cudaEventRecord", self._side.event, other)
        self._call("cudaStreamWaitEvent", stream, self._side.event, self._cudart.cudaEventWaitDefault)

    def synchronize(self) -> None:
        """As `Device.synchronize`."""
        self._call("cudaStreamSynchronize", self.stream)

    def capture(self, work: Work) -> Work:
        """As `Device.capture`: a CUDA graph."""
        with _no_collection():
            mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            self._call("cudaStreamBeginCapture", self.stream, mode)
            try:
                work()
            except BaseException:
                self._abandon_capture()
                raise
            finally:
                self._is_forked = False  # what was not joined is no part of anything
            graph = self._call("cudaStreamEndCapture", self.stream)
        try:
            launchable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._cudart.cudaGraphDestroy(graph)
        return _Graph(self, launchable)

    def _abandon_capture(self) -> None:
        """End a capture whose work failed, or the stream stays unusable; the error to tell is the work's."""
        status, graph = self._cudart.cudaStreamEndCapture(self.stream)
        if status == self._cudart.cudaError_t.cudaSuccess:
            self._cudart.cudaGraphDestroy(graph)

    def launch(self, graph: Any) -> None:
        """Queue a graph that was instantiated."""
        self._call("cudaGraphLaunch", graph, self.stream)

    def _allocate(self, function: str, nbytes: int, *arguments: Any) -> int:
        try:
            return int(self._call(function, max(nbytes, 1), *arguments))
        except DeviceError as error:
            raise DeviceError(
                f"no memory for {nbytes:,} bytes: {error}; ask for fewer sequences or less capacity, or free memory"
            ) from error

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call the CUDA runtime; its error becomes ours, and its single result is returned."""
        status, *results = getattr(self._cudart, function)(*arguments)
        if status != self._cudart.cudaError_t.cudaSuccess:
            _, text = self._cudart.cudaGetErrorString(status)
            words = text.decode() if isinstance(text, bytes) else str(text)
            raise DeviceError(f"{function} failed: {status.name} ({words})")
        return results[0] if results else None


class _Owner:
    """Frees device memory once nothing refers to it."""

    def __init__(self, address: int, free: Callable[[int], object]) -> None:
        weakref.finalize(self, _release, free, address)


class _Graph:
    """A recorded step; calling it queues the whole."""

    def __init__(self, device: CudaDevice, launchable: Any) -> None:
        self._device, self._launchable = device, launchable
        weakref.finalize(self, _release, device._cudart.cudaGraphExecDestroy, launchable)

    def __call__(self) -> None:
        self._device.launch(self._launchable)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from freeing device memory inside the block: CUDA forbids that while a stream is captured."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _release(free: Callable[[Any], object], handle: Any) -> None:
    """Give something back; at the process's end the driver may be gone, which is no error."""
    free(handle)
