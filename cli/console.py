"""What the verbs share: where output goes, and progress on anything that takes a while."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..progress import Progress as Report

# Where nobody looks at it, or has a wider terminal, tables need not fold at 80 columns.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False)


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """A progress bar on stderr; the value is called with what is being done, the steps done and the steps in all.

    Where stderr is no terminal, one line is written at the end.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=err.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def report(doing: str, done: int, steps: int) -> None:
            bar.update(task, description=f"{title}: {doing}", completed=done, total=steps)

        yield report


def print_json(data: bytes) -> None:
    """Write JSON to stdout as it is."""
    out.file.write(data.decode() + "\n")
