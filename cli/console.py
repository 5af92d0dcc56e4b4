"""What the verbs share: where output goes, and progress on anything that takes a while.

What is printed is printed as it is: paths, names and text of a model hold brackets and colons that are no markup.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..files import write_atomically
from ..progress import Progress as Report

for stream in ("stdout", "stderr"):
    if getattr(sys, stream) is None:  # it was closed: what would go there goes nowhere
        setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115

# Where nobody looks at it, or has a wider terminal, tables need not fold at 80 columns.
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

LINE_EVERY_S = 10.0
"""Where stderr is no terminal: so often a line says how far it is."""


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Progress on stderr; the value is called with what is being done, the steps done and the steps in all.

    On a terminal it is a bar; elsewhere lines, at the beginning of each part, every `LINE_EVERY_S` seconds and at the end.
    """
    if not err.is_terminal:
        lines = _Lines(title)
        yield lines.report
        lines.finish()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def report(doing: str, done: int, steps: int) -> None:
            bar.update(task, description=f"{title}: {doing}", completed=done, total=steps)

        yield report


class _Lines:
    """Progress for logs."""

    def __init__(self, title: str) -> None:
        self._title, self._began, self._next, self._last = title, time.monotonic(), 0.0, ""
        self._done = -1

    def report(self, doing: str, done: int, steps: int) -> None:
        """Print it, unless the last line is too recent; the beginning of a part of the work always."""
        now = time.monotonic()
        self._last = f"{self._title}: {doing}, {done:,} of {steps:,}"
        is_beginning, self._done = done == 0 and self._done != 0, done
        if is_beginning or now >= self._next:
            self._print(now)

    def finish(self) -> None:
        """Print how it ended, if it was not said."""
        if self._last:
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        print(f"{self._last}, {now - self._began:.0f} s", file=err.file, flush=True)
        self._last, self._next = "", now + LINE_EVERY_S


def print_json(data: bytes) -> None:
    """Write JSON to stdout as it is."""
    out.file.write(data.decode() + "\n")


def give(data: bytes, save: Path | None, json: bool, show: Callable[[], None]) -> None:
    """A result, as JSON: to a file, if one was named, and to standard output, or else what shows it there."""
    if save is not None:
        write_atomically(save, data + b"\n")
        err.print(f"wrote {save}")
    if json:
        print_json(data)
    else:
        show()


def write(text: str) -> None:
    """Write what a model wrote to stdout as it is, at once."""
    out.file.write(text)
    out.file.flush()
