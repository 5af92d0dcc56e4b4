"""Parts done in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..runtime.model import Model
from .inputs import Part
from .job import Execute
from .runner import SLOTS, Done, Runner
from .tasks import Task


def here(model: Model, task: Task, slots: int = SLOTS, capacity: int | None = None) -> Execute:
    """Does them with one batch.

    Args and raises: as `Runner`.
    """

    def execute(parts: Sequence[Part], on_line: Callable[[], None]) -> Iterator[Done]:
        runner = Runner(model, task, slots, capacity)
        try:
            yield from runner.run(parts, on_line)
        finally:
            runner.close()

    return execute
