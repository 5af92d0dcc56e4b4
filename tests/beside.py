"""What runs beside what: a checker for stages in a second thread, which needs no unlucky moment to find a fault.

`Watched` engines tell a `Watch` which memory every call reads and writes. `CheckedBeside` stands in for the second thread: jobs
are done when they are started or when they are waited for, the two extremes of when a thread may get to them, and by then
no call of the decoder since the start may have touched what the job writes, nor written what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

from foveal.contract import StageSpec
from foveal.runtime import host
from foveal.runtime.engines.base import BoundStage, Engine
from foveal.runtime.rows import Array, Block


class Access(NamedTuple):
    """Bytes `[begin, end)` that a call of a stage reads or writes."""

    stage: str
    what: str
    begin: int
    end: int
    writes: bool

    @classmethod
    def of(cls, stage: str, what: str, block: Block, writes: bool = False) -> Access:
        """All of a block."""
        return cls(stage, what, block.address, block.address + block.array.nbytes, writes)

    def clashes(self, other: Access) -> bool:
        """Whether the two must not be made at once."""
        return (self.writes or other.writes) and self.begin < other.end and other.begin < self.end


@dataclass
class Job:
    """What was started, the accesses that it made, and those that others have made since."""

    run: Callable[[], None]
    accesses: list[Access] = field(default_factory=list)
    meanwhile: list[Access] = field(default_factory=list)

    def check(self) -> None:
        """Raise AssertionError where the two clash."""
        for own in self.accesses:
            for other in self.meanwhile:
                verb = "writes" if other.writes else "reads"
                assert not own.clashes(other), f"{other.stage} {verb} {other.what} while {own.stage} may use its {own.what}"


class Watch:
    """The accesses of all calls, told apart by who runs."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.started = 0
        self._running: Job | None = None

    def see(self, access: Access) -> None:
        """Note an access of the call that is being made."""
        if self._running is not None:
            self._running.accesses.append(access)
        else:
            for job in self.jobs:
                job.meanwhile.append(access)

    def run(self, job: Job) -> None:
        """Do a job."""
        self._running = job
        try:
            job.run()
        finally:
            self._running = None


class CheckedBeside:
    """As `Beside`, in the caller's thread: jobs are done at once, or not before they are waited for."""

    def __init__(self, watch: Watch, at_once: bool) -> None:
        self.watch, self.at_once = watch, at_once

    def start(self, run: Callable[[], None]) -> None:
        """As `Beside.start`."""
        job = Job(run)
        self.watch.started += 1
        self.watch.jobs.append(job)
        if self.at_once:
            self.watch.run(job)

    def join(self) -> None:
        """As `Beside.join`."""
        for job in self.watch.jobs:
            if not self.at_once:
                self.watch.run(job)
            job.check()
        self.watch.jobs.clear()

    def close(self) -> None:
        """As `Beside.close`."""


class Watched:
    """An engine whose calls are watched."""

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self.engine, self.watch = engine, watch

    @property
    def spec(self) -> StageSpec:
        """As `Engine.spec`."""
        return self.engine.spec

    def bind(self, batch: int, firings: int) -> WatchedStage:
        """As `Engine.bind`."""
        return WatchedStage(self.engine.bind(batch, firings), self.spec, self.watch)


class WatchedStage:
    """One of them, bound. A call reads its inputs and what it borrows, and writes its output and its caches."""

    def __init__(self, bound: BoundStage, spec: StageSpec, watch: Watch) -> None:
        self.bound, self.spec, self.watch = bound, spec, watch
        self.lent: Sequence[Array] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bound, name)

    def borrow(self, caches: Sequence[Array]) -> None:
        """As `BoundStage.borrow`."""
        self.lent = caches
        self.bound.borrow(caches)

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        for name, block in zip(self.spec.names(), inputs, strict=True):
            self.watch.see(Access.of(self.spec.name, name, block))
        for cache in self.lent:
            self.watch.see(Access.of(self.spec.name, "borrowed cache", Block.of(cache)))
        for cache in self.bound.caches:
            self.watch.see(Access.of(self.spec.name, "cache", Block.of(cache), writes=True))
        self.watch.see(Access.of(self.spec.name, "rows", output, writes=True))
        self.bound.run(first, firings, inputs, output, logit_rows)


def watched(engines: Sequence[Engine], monkeypatch: pytest.MonkeyPatch, at_once: bool) -> tuple[list[Watched], Watch]:
    """Engines whose sessions, with overlap, are checked as they go."""
    watch = Watch()
    monkeypatch.setattr(host, "Beside", lambda: CheckedBeside(watch, at_once))
    return [Watched(engine, watch) for engine in engines], watch


def block(start: int, count: int, array: Array = np.zeros(100, np.float32)) -> Block:  # noqa: B008
    """Some of the elements of an array."""
    return Block(array.ctypes.data + start * array.itemsize, array[start : start + count])
