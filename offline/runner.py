"""Lines of parts through the slots of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from ..errors import FovealError
from ..runtime.batches.choice import Choice, Drawn
from ..runtime.batches.continuations import Continuations
from ..runtime.batches.waiting import Prompt
from ..runtime.generation.request import Request
from ..runtime.model import Model
from .inputs import Part
from .line import Line, read_line
from .tasks import Record, Task, failed

SLOTS = 16
PREFILL_SECONDS = 0.1
"""As `generate_many`: nobody waits for single tokens."""


class Done(NamedTuple):
    """A part, and what is written of it: a JSON object a line, in the order of its lines."""

    part: Part
    output: bytes


@dataclass(eq=False)
class _Progress:
    """A part that is worked on."""

    part: Part
    records: list[bytes | None]
    is_given: bool = False

    def keep(self, line: Line, record: Record) -> None:
        """What came of a line."""
        self.records[line.number - self.part.first_line] = msgspec.json.encode(record) + b"\n"

    @property
    def is_done(self) -> bool:
        """Whether something came of every line."""
        return None not in self.records

    @property
    def done(self) -> Done:
        """What is written of it."""
        return Done(self.part, b"".join(record for record in self.records if record is not None))


@dataclass(eq=False)
class _Going:
    """A line whose texts are being drawn."""

    line: Line
    progress: _Progress
    request: Request
    choices: list[Choice] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    live: set[int] = field(default_factory=set)


class Runner:
    """Works through parts, `slots` texts at a time; a line begins as soon as there is a slot, whichever part it is of.

    Args:
        model: that does it.
        task: what to do with each line.
        slots: texts at once.
        capacity: the most tokens of a sequence; None: as many as the engines hold of the model's context.

    Raises:
        InputError, ConfigError: settings that no line can be continued with.
        ConfigError, CapacityError, EngineMismatchError: as `Model.batch`.
    """

    def __init__(self, model: Model, task: Task, slots: int = SLOTS, capacity: int | None = None) -> None:
        task.check(model)
        self._model, self._task = model, task
        self._batch = model.batch(slots, capacity, "aligned", PREFILL_SECONDS)
        self._going = Continuations(self._batch)

    def run(self, parts: Iterable[Part], on_line: Callable[[], None] = lambda: None) -> Iterator[Done]:
        """What is written of each part, as they become done, which need not be their order.

        A line that can't be taken, or can't go on, has its error written, and the others go on.

        Args:
            parts: taken one by one as slots become free.
            on_line: called whenever a line is done.

        Raises:
            StorageError, ConfigError: as `Part.read`.
            FovealError: the engines fail in step after step.
        """
        lines, has_more = _lines_of(parts), True
        while has_more or not self._going.is_idle:
            over = list[_Progress]()
            while has_more and not over and self._batch.free_slots > self._going.waiting:
                following = next(lines, None)
                if following is None:
                    has_more = False
                elif not self._begin(*following):
                    over.append(following[1])
            over += self._step()
            for progress in over:
                on_line()
                if progress.is_done and not progress.is_given:
                    progress.is_given = True
                    yield progress.done

    def close(self) -> None:
        """Give the batch's memory back."""
        self._going.close()

    def _begin(self, line: Line, progress: _Progress) -> bool:
        """Let a line begin; False: it can't be taken, and that is what came of it."""
        try:
            request, count = self._task.request(self._model, line)
            going = _Going(line, progress, request, texts=[""] * count, live=set(range(count)))
            prompt = Prompt(request, going, count)
        except FovealError as error:
            progress.keep(line, failed(line, error))
            return False
        going.choices = list(prompt.choices)
        self._going.add(prompt)
        return True

    def _step(self) -> list[_Progress]:
        """Of the batch; the part of every line that ended with it."""
        over = list[_Progress]()
        drawn = self._going.step()
        if self._going.failure is not None:
            raise self._going.failure
        for one in drawn:
            if one.choice is not None and one.choice.index in one.choice.owner.live and self._take(one, one.choice):
                over.append(one.choice.owner.progress)
        return over

    def _take(self, drawn: Drawn, choice: Choice) -> bool:
        """Go on by what was drawn; whether its line is over."""
        going: _Going = choice.owner
        if drawn.error is not None:
            going.live.clear()
            self._going.end(going.choices)
            going.progress.keep(going.line, failed(going.line, drawn.error))
            return True
        going.texts[choice.index] += drawn.text
        if not drawn.is_last:
            return False
        going.live.discard(choice.index)
        if going.live:
            return False
        going.progress.keep(going.line, self._task.record(going.line, going.request, going.choices, going.texts))
        return True


def _lines_of(parts: Iterable[Part]) -> Iterator[tuple[Line, _Progress]]:
    for part in parts:
        progress = _Progress(part, [None] * part.lines)
        for number, data in enumerate(part.read(), part.first_line):
            yield read_line(part.path, number, data), progress
