"""Token by token: prefill the prompt, then sample and feed back."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import CapacityError, InputError
from .drawing import can_draw
from .one_at_a_time import one_at_a_time
from .sampling import Sampler, SamplingParams
from .session import Session
from .text import TextStream

_BLOCK = 16
"""Tokens that a device draws before they are looked at: the host waits for it once in so many steps."""


FinishReason = Literal["length", "stop", "end", "capacity"]
"""Why a generation ended: `max_new_tokens`, a stop string, an end token, or a full context."""


class GeneratedIds(Iterator[int]):
    """New ids, one by one. `finish_reason` is None until there are no more; `count` is how many there were.

    Two threads at once in one of them: SessionBusyError, as in a session.
    """

    def __init__(self, ids: Generator[int, None, None], most: int, end_ids: Collection[int]) -> None:
        self.turn = threading.Lock()
        self.finish_reason: FinishReason | None = None
        self.count = 0
        self._ids, self._most, self._end_ids, self._is_closed = ids, most, end_ids, False

    @one_at_a_time
    def __next__(self) -> int:
        if self.finish_reason is not None or self._is_closed:
            raise StopIteration
        token = next(self._ids, None)
        if token is None:
            self.finish_reason = "length" if self.count >= self._most else "capacity"
            raise StopIteration
        if token in self._end_ids:
            self._ids.close()
            self.finish_reason = "end"
            raise StopIteration
        self.count += 1
        return token

    @one_at_a_time
    def close(self) -> None:
        """Draw no more; the session is left at the last id that was taken, and `finish_reason` as it is."""
        self._is_closed = True
        self._ids.close()


class GeneratedText(Iterator[str]):
    """Pieces of new text. `finish_reason` is None until there are no more; `ids` are those drawn so far.

    Two threads at once in one of them: SessionBusyError, as in a session.
    """

    def __init__(self, ids: GeneratedIds, stream: TextStream) -> None:
        self.turn = threading.Lock()
        self.finish_reason: FinishReason | None = None
        self.ids: list[int] = []
        self._ids, self._stream, self._is_closed = ids, stream, False

    @one_at_a_time
    def __next__(self) -> str:
        while self.finish_reason is None and not self._is_closed:
            token = next(self._ids, None)
            if token is None:
                piece = self._stream.finish()
            else:
                self.ids.append(token)
                piece = self._stream.push(token)
            if self._stream.stopped:
                self._ids.close()
                self.finish_reason = "stop"
            elif token is None:
                self.finish_reason = self._ids.finish_reason
            if piece:
                return piece
        raise StopIteration

    @one_at_a_time
    def close(self) -> None:
        """Draw no more; `finish_reason` stays as it is."""
        self._is_closed = True
        self._ids.close()


def generate_ids(
    session: Session, prompt: Sequence[int], params: SamplingParams, end_ids: Collection[int] = ()
) -> GeneratedIds:
    """Continue `prompt` in a session of batch 1; gives new ids until `max_new_tokens`, an end id or a full session.

    The end id itself is not given out.

    Raises (at the call, not at the first id):
        InputError: an empty prompt, ids outside the vocabulary, or a session of another batch.
        CapacityError: the prompt does not fit.
    """
    if session.batch != 1:
        raise InputError(f"generation continues one sequence, got a session of batch {session.batch}; open one with batch=1")
    if not len(prompt):
        raise InputError("the prompt is empty, expected at least one token; these models have no start token")
    if session.position + len(prompt) > session.capacity:
        raise CapacityError(
            f"the prompt has {len(prompt)} tokens, the session room for {session.capacity - session.position} "
            f"of {session.capacity}; shorten the prompt or open a session with more capacity"
        )
    logits = session.advance(np.asarray([prompt]), last_only=True)
    sampler = Sampler(params)
    if session.draws and can_draw(params):
        drawn = sampler.sample(logits[0, 0], session.tokens[0])
        ids = _continue_on_device(session, drawn, sampler, params.max_new_tokens)
    else:
        ids = _continue(session, logits[0, 0], sampler, params.max_new_tokens)
    return GeneratedIds(ids, params.max_new_tokens, frozenset(end_ids))


def _continue_on_device(session: Session, token: int, sampler: Sampler, max_new_tokens: int) -> Generator[int, None, None]:
    """As `_continue`, a block of tokens at a time; the session stays where it would be without blocks."""
    yield token
    left = max_new_tokens - 1
    while left > 0 and session.position < session.capacity:
        count = min(_BLOCK, left, session.capacity - session.position)
        drawn = session.draw([[token]], count, sampler.params, sampler.uniform(count)[:, None])[0].tolist()
        for index, token in enumerate(drawn):
            try:
                yield token
            except GeneratorExit:
                session.rewind(count - 1 - index)
                raise
        left -= count


def _continue(
    session: Session, logits: npt.NDArray[np.float32], sampler: Sampler, max_new_tokens: int
) -> Generator[int, None, None]:
    for left in range(max_new_tokens - 1, -1, -1):
        token = sampler.sample(logits, session.tokens[0])
        yield token
        if left == 0 or session.position == session.capacity:
            return
        logits = session.advance([[token]], last_only=True)[0, 0]
