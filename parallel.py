"""Several calls at once, of work that lets go of the interpreter: hashing, and what native libraries do."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def together(calls: Sequence[Callable[[], Result]], costs: Sequence[float]) -> list[Result]:
    """What calls return, in their order; as many run at once as there are CPUs, those of the greatest cost first.

    All have ended when it returns or raises. Of several that raise, the error of the first in order is raised.
    """
    if len(calls) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(len(calls), usable_cpus()), "foveal") as pool:
        costliest_first = sorted(range(len(calls)), key=lambda index: -costs[index])
        running = {index: pool.submit(calls[index]) for index in costliest_first}
    return [running[index].result() for index in range(len(calls))]
