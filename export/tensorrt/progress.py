"""How far a build is, and how to stop it: TensorRT's progress monitor as foveal's `Progress`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ...progress import Progress
from ...runtime.engines.tensorrt_library import Library


class BuildProgress:
    """Phases that lie in each other, each of so many steps, as one share of the whole.

    A callback that raises, or that asks to stop, ends the build; what it raised is kept, as it can't pass through TensorRT.

    Attributes:
        error: what a callback raised.
    """

    def __init__(self, on_progress: Progress) -> None:
        self.error: BaseException | None = None
        self._report = on_progress
        self._phases: dict[str, list[int]] = {}  # steps done and steps in all, outermost first
        self._stopped = False
        self._said = -1

    def start(self, phase: str, steps: int) -> None:
        """A phase begins, within those that have begun."""
        self._phases[phase] = [0, max(steps, 1)]

    def step(self, phase: str, step: int) -> bool:
        """A step of a phase is done; returns whether to go on."""
        if phase in self._phases:
            self._phases[phase][0] = step + 1
        percent = int(100 * self._share())
        if percent != self._said and not self._stopped:
            self._said = percent
            try:
                self._report(phase.lower(), percent, 100)
            except BaseException as error:
                self.error, self._stopped = error, True
        return not self._stopped

    def finish(self, phase: str) -> None:
        """A phase ends."""
        self._phases.pop(phase, None)

    def stop(self) -> None:
        """Let the build end at its next step."""
        self._stopped = True

    def _share(self) -> float:
        share, width = 0.0, 1.0
        for done, steps in self._phases.values():
            share += width * min(done, steps) / steps
            width /= steps
        return min(share, 1.0)


def monitor(library: Library, progress: BuildProgress) -> Any:
    """An `IProgressMonitor` that passes everything on; it must outlive the build."""
    base = library.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, name: str, _parent: str | None, steps: int) -> None:
            progress.start(name, steps)

        def step_complete(self, name: str, step: int) -> bool:
            return progress.step(name, step)

        def phase_finish(self, name: str) -> None:
            progress.finish(name)

    return Monitor()


@contextmanager
def interruptible(progress: BuildProgress) -> Iterator[None]:
    """Let Ctrl-C stop the build at its next step, as KeyboardInterrupt; pressed twice, it does what it did before.

    Python's own handler would raise inside whatever callback runs, and so through TensorRT.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may have handlers, and gets signals
        yield
        return
    before = signal.getsignal(signal.SIGINT) or signal.SIG_DFL  # None: one that was not set from Python

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        progress.error = KeyboardInterrupt()
        progress.stop()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
