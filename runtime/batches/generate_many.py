"""Text of many prompts through the slots of a batch, piece by piece as it becomes certain."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import FovealError, InputError
from ..generate import FinishReason
from ..one_at_a_time import one_at_a_time
from ..sampling import Sampler, SamplingParams
from ..text import TextStream
from .batch import Batch
from .sequence import Sequence as Joined

_END = object()


@dataclass(frozen=True)
class Request:
    """A prompt's ids, how to continue it, and what its text is cut by."""

    ids: Sequence[int]
    params: SamplingParams
    end_ids: frozenset[int]
    stream: TextStream


@dataclass
class _Running:
    """A request in a slot."""

    index: int
    request: Request
    sampler: Sampler
    drawn: list[int] = field(default_factory=list)


class GeneratedMany(Iterator[tuple[int, str]]):
    """Pieces of new text, each with the index of its prompt. `finish_reasons` has those that are done, `ids` what was drawn.

    A prompt that can't be taken, or can't go on, raises an error which names its index, when its turn comes; the others go on:
    ask for the next. What the iterable of prompts raises comes as it is, and is no prompt.

    Two threads at once in one of them: SessionBusyError, as in a session.

    Args:
        batch: that they share; it is closed at the end.
        prompts: taken while slots are free.
        request: how to continue one, by its index.
    """

    def __init__(self, batch: Batch, prompts: Iterator[Any], request: Callable[[int, Any], Request]) -> None:
        self.turn = threading.Lock()
        self.finish_reasons: dict[int, FinishReason] = {}
        self.ids: dict[int, list[int]] = {}
        self._batch, self._prompts, self._request, self._taken, self._has_more = batch, prompts, request, 0, True
        self._running: dict[Joined, _Running] = {}
        self._next: dict[Joined, int] = {}
        self._found: deque[tuple[int, str] | FovealError] = deque()
        """Pieces, and errors among them, to be given out."""

    @one_at_a_time
    def __next__(self) -> tuple[int, str]:
        while not self._found:
            self._fill()
            if not self._running:
                self._batch.close()
                raise StopIteration
            self._step()
        found = self._found.popleft()
        if isinstance(found, FovealError):
            raise found
        return found

    def _fill(self) -> None:
        """Let prompts join while slots are free."""
        while self._has_more and self._batch.free_slots:
            prompt = next(self._prompts, _END)
            if prompt is _END:
                self._has_more = False
                return
            index, self._taken = self._taken, self._taken + 1
            try:
                request = self._request(index, prompt)
                sequence = self._batch.join(request.ids)
            except FovealError as error:
                raise _of_prompt(index, error) from error
            self._running[sequence] = _Running(index, request, Sampler(request.params))
            self.ids[index] = self._running[sequence].drawn

    def _step(self) -> None:
        """Append what was drawn, and draw the next.

        If a step fails, the tokens that it did not append are there for the next one; a prompt that found no room is given up.
        """
        before = [(sequence, sequence.position) for sequence in self._next]
        failure: BaseException | None = None
        try:
            found = self._batch.step(self._next)
        except BaseException as error:  # an interrupt, too: no token may be appended twice by who goes on after it
            found = {one: one.logits for one, position in before if one.position > position and one.logits is not None}
            failure = error
        for sequence in found:
            self._next.pop(sequence, None)
        for sequence, logits in found.items():
            self._draw(sequence, logits)
        if isinstance(failure, FovealError):
            self._note(failure)
        elif failure is not None:
            raise failure

    def _note(self, failure: FovealError) -> None:
        """Of a step: of the prompt that found no room, if it was one."""
        paused = [sequence for sequence in self._running if sequence.state == "paused"]
        for sequence in paused:
            self._fail(sequence, failure)
        if not paused:
            self._found.append(failure)

    def _draw(self, sequence: Joined, logits: npt.NDArray[np.float32]) -> None:
        running = self._running[sequence]
        request, stream = running.request, running.request.stream
        try:
            token = running.sampler.sample(logits, self._batch.tokens(sequence))
        except FovealError as error:
            self._fail(sequence, error)
            return
        if token in request.end_ids:
            self._give(running.index, stream.finish())
            self._end(sequence, "stop" if stream.stopped else "end")
            return
        running.drawn.append(token)
        self._give(running.index, stream.push(token))
        reason = self._reason(sequence, running)
        if reason is None:
            self._next[sequence] = token
        else:
            self._give(running.index, stream.finish())
            self._end(sequence, "stop" if stream.stopped else reason)

    def _reason(self, sequence: Joined, running: _Running) -> FinishReason | None:
        """Why no token comes after this one."""
        if running.request.stream.stopped:
            return "stop"
        if len(running.drawn) >= running.request.params.max_new_tokens:
            return "length"
        return "capacity" if sequence.position >= self._batch.capacity else None

    def _give(self, index: int, piece: str) -> None:
        if piece:
            self._found.append((index, piece))

    def _fail(self, sequence: Joined, error: FovealError) -> None:
        """Give up one, and say so; no reason is noted for its end."""
        failed = _of_prompt(self._running[sequence].index, error)
        failed.__cause__ = error
        self._end(sequence, None)
        self._found.append(failed)

    def _end(self, sequence: Joined, reason: FinishReason | None) -> None:
        running = self._running.pop(sequence)
        if reason is not None:
            self.finish_reasons[running.index] = reason
        self._batch.leave(sequence)

    @one_at_a_time
    def close(self) -> None:
        """Draw no more, and give the batch's memory back."""
        self._running, self._next, self._has_more = {}, {}, False
        self._found.clear()
        self._batch.close()


def _of_prompt(index: int, error: FovealError) -> FovealError:
    """The same error, and which prompt it is of."""
    return type(error)(f"prompt {index}: {error}")


def settings_of_all(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that hold for every prompt."""
    return {name: value for name, value in settings.items() if not _is_by_prompt(name, value)}


def settings_of_each(settings: Mapping[str, Any], index: int, count: int | None) -> dict[str, Any]:
    """The settings of one prompt: a list gives each prompt its own, anything else holds for all.

    `stop` and `end` may be sequences by themselves: of these, a list of lists or tuples gives each its own.

    Raises:
        InputError: a list of another length than there are prompts.
    """
    found = {}
    for name, value in settings.items():
        if not _is_by_prompt(name, value):
            found[name] = value
            continue
        if (count is not None and len(value) != count) or index >= len(value):
            prompts = f"more than {index}" if count is None else count
            raise InputError(f"{name} has {len(value)} values for {prompts} prompts; give one for each, or one for all")
        found[name] = value[index]
    return found


def _is_by_prompt(name: str, value: object) -> bool:
    if not isinstance(value, list):
        return False
    return name not in ("stop", "end") or any(isinstance(one, list | tuple) for one in value)


def counted(prompts: Iterable[Any]) -> tuple[Iterator[Any], int | None]:
    """Prompts one by one, and how many there are, if that is known.

    Raises:
        InputError: one text, or no sequence of prompts.
    """
    is_number = isinstance(prompts, np.ndarray) and not prompts.ndim  # an array that can't be gone through
    if isinstance(prompts, str | bytes) or is_number or not isinstance(prompts, Iterable):
        raise InputError("generate_many takes several prompts, got one; put it in a list, or call generate")
    return iter(prompts), len(prompts) if isinstance(prompts, Sequence | np.ndarray) else None
