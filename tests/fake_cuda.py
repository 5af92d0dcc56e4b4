"""A GPU that is not there: CUDA's runtime on the host's memory, as strict as CUDA about what it is asked and when.

    gpu = FakeGpu()
    device = CudaDevice(cudart=gpu.cudart)

Device memory is the host's, filled with garbage (bytes of 0xFF, which are NaN as floats and -1 as integers) and with guards
around it. Work that is queued is done when its stream is waited for. What is captured is not done until the graph is launched.
So what forgets to zero, to wait or to keep an address gets wrong numbers or an error, as on a GPU.

Work is done after what its stream was given before, and after what events told the stream to wait for; otherwise in any order:
`schedule` decides. `late` does work of other streams, or of a graph's branches, when there is nothing else to do, `early` as
soon as it may, and `at_random` either, also between the parts of other work.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from tensorrt_surface import real, strict, surface

Work = Callable[[], Iterator[None] | None]
"""Something to do; in parts, if it gives an iterator."""

GARBAGE = 0xFF
ALIGNMENT = 256
QUEUEING = ("cudaMemcpyAsync", "cudaMemcpy2DAsync", "cudaMemsetAsync", "cudaGraphLaunch", "execute_async_v3")
"""Calls that give a stream something to do; the last is TensorRT's."""

_GUARD = 4096
_NAME = "cuda.bindings.runtime"


class CudaFailure(Exception):
    """A call that CUDA answers with an error; its argument is the error's name."""


class Call(NamedTuple):
    """A call of the driver, or of TensorRT."""

    name: str
    arguments: tuple[Any, ...]


@dataclass
class Allocation:
    """A piece of memory with guards before and behind, on the device or pinned on the host."""

    kind: str
    nbytes: int
    backing: np.ndarray
    address: int
    is_free: bool = False

    @classmethod
    def of(cls, kind: str, nbytes: int) -> Allocation:
        """Full of garbage."""
        backing = np.full(nbytes + 2 * _GUARD + ALIGNMENT, GARBAGE, np.uint8)
        first = backing.ctypes.data + _GUARD
        return cls(kind, nbytes, backing, first + -first % ALIGNMENT)

    def touches(self, address: int, nbytes: int) -> bool:
        """Whether some bytes lie in it or its guards."""
        start = self.backing.ctypes.data
        return address < start + self.backing.nbytes and address + nbytes > start

    def holds(self, address: int, nbytes: int) -> bool:
        """Whether all bytes lie in it, and it was not freed."""
        return not self.is_free and self.address <= address and address + nbytes <= self.address + self.nbytes


@dataclass(eq=False)
class Task:
    """Work on a stream, and what it comes after."""

    work: Work
    stream: int
    after: list[Task]
    parts: Iterator[None] | None = None
    is_done: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether it may be done now."""
        return all(task.is_done for task in self.after)

    def do_a_part(self) -> None:
        """And note whether it was the last."""
        if self.parts is None:
            self.parts = iter(self.work() or ())
        self.is_done = next(self.parts, self) is self
        if self.is_done:
            self.after.clear()  # or every task would keep all before it


Schedule = Callable[[Sequence[Task], int], Task]
"""Which of the tasks that may be done now is done next, while a stream is waited for."""


def late(ready: Sequence[Task], stream: int) -> Task:
    """What the stream itself was given, if there is any."""
    return min(ready, key=lambda task: task.stream != stream)


def early(ready: Sequence[Task], stream: int) -> Task:
    """What other streams were given, if there is any."""
    return min(ready, key=lambda task: task.stream == stream)


def at_random(seed: int) -> Schedule:
    """Any."""
    numbers = random.Random(seed)
    return lambda ready, stream: numbers.choice(ready)


@dataclass(eq=False)
class Capture:
    """Work that is being recorded, on the stream where that began and on those that were forked from it."""

    origin: int
    tasks: list[Task] = field(default_factory=list)
    is_invalid: bool = False

    def spoil(self) -> None:
        """There will be no graph."""
        self.is_invalid = True


@dataclass(eq=False)
class Stream:
    """What is queued and not done yet; what it is captured in, if it is; and what is given next comes after `last`."""

    queue: list[Task] = field(default_factory=list)
    captured: Capture | None = None
    last: list[Task] = field(default_factory=list)
    before_capture: list[Task] = field(default_factory=list)

    def begin(self, capture: Capture, last: list[Task]) -> None:
        """Be part of a capture."""
        self.captured, self.before_capture, self.last = capture, self.last, last

    def end(self) -> None:
        """Be as before the capture."""
        self.captured, self.last, self.before_capture = None, self.before_capture, []


@dataclass(eq=False)
class Event:
    """Some work, once it was recorded; that of a capture, if it was recorded in one."""

    tasks: list[Task] | None = None
    captured: Capture | None = None


def _with_all_before(tasks: Iterable[Task]) -> set[Task]:
    found: set[Task] = set()
    new = set(tasks)
    while new:
        found |= new
        new = {before for task in new for before in task.after} - found
    return found


def _copies(graph: Sequence[Task], after: Sequence[Task]) -> list[Task]:
    """Of what was captured, to come after something."""
    copies: dict[Task, Task] = {}
    for task in graph:
        copies[task] = Task(task.work, task.stream, [copies[before] for before in task.after] or list(after))
    return list(copies.values())


class FakeGpu:
    """The state behind a fake `cuda.bindings.runtime`, for tests to look at.

    Attributes:
        cudart: the strict fake.
        calls: all calls so far.
        failing: how to answer a call by name instead of doing it: the name of a `cudaError_t`.
        schedule: in which order work of several streams is done.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failing: dict[str, str] = {}
        self.allocations: dict[int, Allocation] = {}
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, Event] = {}
        self.graphs: dict[int, list[Task]] = {}
        self.launchables: dict[int, list[Task]] = {}
        self.schedule: Schedule = late
        self.handles = itertools.count(0x10, 0x10)
        self.cudart = strict(surface(real(_NAME)), _Cudart(self))

    @property
    def queueing_calls(self) -> list[str]:
        """Names of the calls so far that gave a stream something to do."""
        return [call.name for call in self.calls if call.name in QUEUEING]

    def count(self, name: str) -> int:
        """How often a function was called."""
        return sum(call.name == name for call in self.calls)

    def leaks(self) -> list[str]:
        """What was made and never given back."""
        memory = [f"{each.nbytes} bytes, {each.kind}" for each in self.allocations.values() if not each.is_free]
        kinds = {"stream": self.streams, "event": self.events, "graph": self.graphs, "launchable graph": self.launchables}
        return memory + [name for name, handles in kinds.items() for _ in handles]

    def is_on_device(self, address: int, nbytes: int) -> bool:
        """Whether so many bytes from an address are memory of the device."""
        try:
            return self.check(address, nbytes) == "device"
        except CudaFailure:
            return False

    def enqueue(self, stream: int, work: Work) -> None:
        """Give a stream something to do, or record it where it is captured."""
        found = self.usable(stream)
        task = Task(work, int(stream), list(found.last))
        (found.queue if found.captured is None else found.captured.tasks).append(task)
        found.last = [task]

    def enqueue_graph(self, stream: int, graph: Sequence[Task]) -> None:
        """Give a stream all of a graph, branches and all."""
        found = self.usable(stream)
        if found.captured is not None:
            raise NotImplementedError("a graph in a graph")
        tasks = _copies(graph, found.last)
        found.queue += tasks
        found.last = tasks or found.last

    def usable(self, stream: int) -> Stream:
        """The stream of a handle, unless its capture was spoilt."""
        found = self.stream(stream)
        if found.captured is not None and found.captured.is_invalid:
            raise CudaFailure("cudaErrorStreamCaptureInvalidated")
        return found

    def stream(self, handle: Any) -> Stream:
        """The stream of a handle."""
        if int(handle) not in self.streams:
            raise CudaFailure("cudaErrorInvalidResourceHandle")
        return self.streams[int(handle)]

    def event(self, handle: Any) -> Event:
        """The event of a handle."""
        if int(handle) not in self.events:
            raise CudaFailure("cudaErrorInvalidResourceHandle")
        return self.events[int(handle)]

    def wait(self, stream: int, event: Event) -> None:
        """Let what a stream is given next come after what was recorded; a capture spreads to the stream, but no further."""
        found = self.usable(stream)
        if event.captured is not None and not any(each.captured is event.captured for each in self.streams.values()):
            raise CudaFailure("cudaErrorCapturedEvent")  # in a capture that has ended
        if found.captured is None and event.captured is not None:
            found.begin(event.captured, list(event.tasks or ()))
            return
        if found.captured is not event.captured:
            for capture in filter(None, (found.captured, event.captured)):
                capture.spoil()
            raise CudaFailure("cudaErrorStreamCaptureIsolation" if event.captured is None else "cudaErrorStreamCaptureMerge")
        found.last = [*found.last, *(event.tasks or ())]

    def forbid_while_capturing(self) -> None:
        """What waits or allocates spoils a capture, and fails."""
        captures = [stream.captured for stream in self.streams.values() if stream.captured is not None]
        for capture in captures:
            capture.spoil()
        if captures:
            raise CudaFailure("cudaErrorStreamCaptureUnsupported")

    def finish(self, handle: Any) -> None:
        """Do what a stream was given, and of others at least what it was told to wait for."""
        waited_for = self.stream(handle)
        while waited_for.queue or not all(task.is_done for task in waited_for.last):
            self._do_a_part(int(handle))

    def _do_a_part(self, handle: int) -> None:
        ready = [task for stream in self.streams.values() for task in stream.queue if task.is_ready]
        task = self.schedule(ready, handle)
        try:
            task.do_a_part()
        except BaseException:
            for stream in self.streams.values():  # a GPU does nothing more after an error
                stream.queue, stream.last = [], []
            raise
        if task.is_done:
            for stream in self.streams.values():
                stream.queue = [each for each in stream.queue if each is not task]

    def check(self, address: int, width: int, height: int = 1, pitch: int = 0) -> str:
        """What kind of memory some rows of bytes are; fails unless they all lie in one piece of it."""
        nbytes = (height - 1) * pitch + width
        known = self.allocations.get(address)
        for each in self.allocations.values() if known is None else [known]:
            if each.touches(address, nbytes):
                if each.holds(address, nbytes):
                    return each.kind
                raise CudaFailure("cudaErrorIllegalAddress")
        return "pageable"


def _call(function: Callable[..., Any]) -> Any:
    """Note a call, and answer it as cuda-python does: a status and the results."""

    @functools.wraps(function)
    def call(self: _Cudart, *args: Any) -> tuple[Any, ...]:
        gpu, name = self._gpu, function.__name__
        gpu.calls.append(Call(name, args))
        status = real(_NAME).cudaError_t
        results = (surface(real(_NAME)).functions[name].results or 1) - 1
        try:
            if name in gpu.failing:
                raise CudaFailure(gpu.failing[name])
            result = function(self, *args)
        except CudaFailure as failure:
            return (getattr(status, str(failure)), *[None] * results)
        return (status.cudaSuccess, *[result] * results)

    return call


class _Cudart:
    """The functions that foveal calls, under their names and with their arguments."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu, self._runtime = gpu, real(_NAME)

    @_call
    def cudaSetDevice(self, device: int) -> None:
        if device != 0:
            raise CudaFailure("cudaErrorInvalidDevice")

    @_call
    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        handle = next(self._gpu.handles)
        self._gpu.streams[handle] = Stream()
        return self._runtime.cudaStream_t(handle)

    @_call
    def cudaStreamDestroy(self, stream: Any) -> None:
        self._gpu.finish(stream)
        del self._gpu.streams[int(stream)]

    @_call
    def cudaStreamSynchronize(self, stream: Any) -> None:
        self._gpu.forbid_while_capturing()
        self._gpu.finish(stream)

    @_call
    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        handle = next(self._gpu.handles)
        self._gpu.events[handle] = Event()
        return self._runtime.cudaEvent_t(handle)

    @_call
    def cudaEventDestroy(self, event: Any) -> None:
        self._gpu.event(event)
        del self._gpu.events[int(event)]

    @_call
    def cudaEventRecord(self, event: Any, stream: Any) -> None:
        found = self._gpu.usable(stream)
        recorded = self._gpu.event(event)
        recorded.tasks, recorded.captured = list(found.last), found.captured

    @_call
    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        self._gpu.wait(stream, self._gpu.event(event))

    @_call
    def cudaMalloc(self, size: int) -> int:
        return self._allocate("device", size)

    @_call
    def cudaFree(self, devPtr: int) -> None:
        self._free("device", devPtr)

    @_call
    def cudaHostAlloc(self, size: int, flags: int) -> int:
        return self._allocate("pinned", size)

    @_call
    def cudaFreeHost(self, ptr: int) -> None:
        self._free("pinned", ptr)

    @_call
    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: Any) -> None:
        def work() -> None:
            if self._gpu.check(devPtr, count) != "device":
                raise CudaFailure("cudaErrorIllegalAddress")
            ctypes.memset(devPtr, value, count)

        self._gpu.enqueue(stream, work)

    @_call
    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Any) -> None:
        self._copy((dst, count), (src, count), count, 1, stream)

    @_call
    def cudaMemcpy2DAsync(
        self, dst: int, dpitch: int, src: int, spitch: int, width: int, height: int, kind: Any, stream: Any
    ) -> None:
        if width > min(dpitch, spitch):
            raise CudaFailure("cudaErrorInvalidPitchValue")
        self._copy((dst, dpitch), (src, spitch), width, height, stream)

    @_call
    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> None:
        found = self._gpu.stream(stream)
        if found.captured is not None:
            raise CudaFailure("cudaErrorIllegalState")
        found.begin(Capture(int(stream)), [])

    @_call
    def cudaStreamEndCapture(self, stream: Any) -> Any:
        """A graph, if the streams that were forked were all joined: the last work comes after all the rest."""
        found = self._gpu.stream(stream)
        capture, joined = found.captured, _with_all_before(found.last)
        if capture is None:
            raise CudaFailure("cudaErrorIllegalState")
        if capture.origin != int(stream):
            capture.spoil()
            raise CudaFailure("cudaErrorStreamCaptureUnmatched")
        for each in self._gpu.streams.values():
            if each.captured is capture:
                each.end()
        if capture.is_invalid:
            raise CudaFailure("cudaErrorStreamCaptureInvalidated")
        if not joined.issuperset(capture.tasks):
            raise CudaFailure("cudaErrorStreamCaptureUnjoined")
        handle = next(self._gpu.handles)
        self._gpu.graphs[handle] = capture.tasks
        return self._runtime.cudaGraph_t(handle)

    @_call
    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        handle = next(self._gpu.handles)
        self._gpu.launchables[handle] = list(self._gpu.graphs[int(graph)])
        return self._runtime.cudaGraphExec_t(handle)

    @_call
    def cudaGraphDestroy(self, graph: Any) -> None:
        del self._gpu.graphs[int(graph)]

    @_call
    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> None:
        self._gpu.enqueue_graph(stream, self._gpu.launchables[int(graphExec)])

    @_call
    def cudaGraphExecDestroy(self, graphExec: Any) -> None:
        del self._gpu.launchables[int(graphExec)]

    def cudaGetErrorString(self, error: Any) -> tuple[Any, bytes]:
        status, text = self._runtime.cudaGetErrorString(error)  # the real one, which needs no driver
        return status, text

    def _allocate(self, kind: str, size: int) -> int:
        self._gpu.forbid_while_capturing()
        if size <= 0:
            raise CudaFailure("cudaErrorInvalidValue")
        allocation = Allocation.of(kind, size)
        self._gpu.allocations[allocation.address] = allocation
        return allocation.address

    def _free(self, kind: str, address: int) -> None:
        """Waits for all work, as CUDA does. What was freed is kept, so that its use is noticed."""
        self._gpu.forbid_while_capturing()
        for stream in self._gpu.streams:
            self._gpu.finish(stream)
        found = self._gpu.allocations.get(address)
        if found is None or found.is_free or found.kind != kind:
            raise CudaFailure("cudaErrorInvalidValue")
        found.is_free = True

    def _copy(self, target: Sequence[int], source: Sequence[int], width: int, height: int, stream: Any) -> None:
        gpu = self._gpu

        def kinds() -> set[str]:
            return {gpu.check(address, width, height, pitch) for address, pitch in (target, source)}

        def work() -> None:
            kinds()
            for row in range(height):
                ctypes.memmove(target[0] + row * target[1], source[0] + row * source[1], width)

        found = kinds()
        if "device" not in found:
            raise CudaFailure("cudaErrorInvalidValue")  # a wrong address, or a copy that the host had better do
        if "pageable" in found and gpu.stream(stream).captured is not None:
            gpu.forbid_while_capturing()
        gpu.enqueue(stream, work)
