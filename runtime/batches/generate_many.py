"""Text of many prompts through the slots of a batch, piece by piece as it becomes certain."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import FovealError, InputError
from ..async_pieces import AsyncPieces
from ..generation.continuation import FinishReason
from ..generation.request import Request
from ..logprobs import TokenLogprobs
from ..one_at_a_time import one_at_a_time
from ..speculation.drafting import Speculation
from .batch import Batch
from .choice import Choice, Drawn
from .continuations import Continuations
from .waiting import Prompt

_END = object()


class GeneratedMany(AsyncPieces[tuple[int, str]]):
    """Pieces of new text, each with the index of its text, with `for` or `async for`.

    Text k of prompt i has index `i * n + k`. A prompt that can't be taken, or can't go on, raises an error which names its
    index, when its turn comes; the others go on: ask for the next. What the iterable of prompts raises comes as it is, and is
    no prompt.

    Two threads at once in one of them: SessionBusyError, as in a session.

    Args:
        batch: that they share; it is closed at the end.
        prompts: taken while slots are free.
        request: how to continue one, by its index.
        n: texts of each prompt, which is read once for all of them.

    Attributes:
        finish_reasons: of the texts that are done, by index.
        ids: what was drawn, by index.
        logprobs, prompt_logprobs: by index, if the settings ask for them.
        speculation: what drafts came to, by index; of texts that have none, nothing.
    """

    def __init__(self, batch: Batch, prompts: Iterator[Any], request: Callable[[int, Any], Request], n: int = 1) -> None:
        super().__init__()
        self.turn = threading.Lock()
        self.finish_reasons: dict[int, FinishReason] = {}
        self.ids: dict[int, list[int]] = {}
        self.logprobs: dict[int, list[TokenLogprobs]] = {}
        self.prompt_logprobs: dict[int, list[TokenLogprobs]] = {}
        self.speculation: dict[int, Speculation] = {}
        self._batch, self._prompts, self._request, self._taken, self._has_more = batch, prompts, request, 0, True
        self._going, self._n = Continuations(batch), n
        self._live: dict[int, Choice] = {}
        self._found: deque[tuple[int, str] | FovealError] = deque()
        """Pieces, and errors among them, to be given out."""

    @one_at_a_time
    def _next(self) -> tuple[int, str]:
        while not self._found:
            self._fill()
            if self._going.is_idle:
                self._batch.close()
                raise StopIteration
            for drawn in self._going.step():
                self._note(drawn)
        found = self._found.popleft()
        if isinstance(found, FovealError):
            raise found
        return found

    def _fill(self) -> None:
        """Let prompts join while slots are free."""
        free = self._batch.free_slots - self._going.waiting
        while self._has_more and free > 0:
            prompt = next(self._prompts, _END)
            if prompt is _END:
                self._has_more = False
                return
            index, self._taken = self._taken, self._taken + 1
            try:
                waiting = Prompt(self._request(index, prompt), index * self._n, self._n)
            except FovealError as error:
                raise _of_prompt(index, error) from error
            for choice in waiting.choices:
                self._keep(choice)
            self._going.add(waiting)
            free -= 1

    def _keep(self, choice: Choice) -> None:
        """What is there to be read of it from now on."""
        index = choice.owner + choice.index
        self._live[index] = choice
        self.ids[index] = choice.continuation.ids
        self.logprobs[index] = choice.continuation.sampler.logprobs
        self.prompt_logprobs[index] = [] if choice.scorer is None else choice.scorer.found
        if choice.continuation.speculation is not None:
            self.speculation[index] = choice.continuation.speculation

    def _note(self, drawn: Drawn) -> None:
        if drawn.choice is None:
            if drawn.error is not None:
                self._found.append(drawn.error)
            return
        index = drawn.choice.owner + drawn.choice.index
        if drawn.error is not None:
            failed = _of_prompt(index // self._n, drawn.error)
            failed.__cause__ = drawn.error
            self._found.append(failed)
        elif drawn.text:
            self._found.append((index, drawn.text))
        if drawn.is_last:
            del self._live[index]
        if drawn.finish_reason is not None:
            self.finish_reasons[index] = drawn.finish_reason

    @one_at_a_time
    def cancel(self, index: int) -> None:
        """Draw no more of one text; its slot goes to the next prompt. One that is done, or that never began, stays as it is."""
        if (choice := self._live.get(index)) is not None:
            for drawn in self._going.end([choice]):
                self._note(drawn)

    def close(self) -> None:
        """Draw no more, and give the batch's memory back.

        If a thread computes a piece for `async for`, then behind that; `aclose` waits for it.
        """
        super().close()

    @one_at_a_time
    def _close(self) -> None:
        self._has_more = False
        self._found.clear()
        self._going.close()


def _of_prompt(index: int, error: FovealError) -> FovealError:
    """The same error, and which prompt it is of."""
    return type(error)(f"prompt {index}: {error}")


def settings_of_all(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that hold for every prompt."""
    return {name: value for name, value in settings.items() if not _is_by_prompt(name, value)}


def settings_of_each(settings: Mapping[str, Any], index: int, count: int | None) -> dict[str, Any]:
    """The settings of one prompt: a list gives each prompt its own, anything else holds for all.

    `stop`, `end` and `end_rules` may be sequences by themselves: of these, a list of lists or tuples gives each its own.

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
    return name not in ("stop", "end", "end_rules") or any(isinstance(one, list | tuple) for one in value)


def counted(prompts: Iterable[Any]) -> tuple[Iterator[Any], int | None]:
    """Prompts one by one, and how many there are, if that is known.

    Raises:
        InputError: one text, or no sequence of prompts.
    """
    is_number = isinstance(prompts, np.ndarray) and not prompts.ndim  # an array that can't be gone through
    if isinstance(prompts, str | bytes) or is_number or not isinstance(prompts, Iterable):
        raise InputError("generate_many takes several prompts, got one; put it in a list, or call generate")
    return iter(prompts), len(prompts) if isinstance(prompts, Sequence | np.ndarray) else None
