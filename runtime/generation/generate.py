"""Token by token in a session: prefill the prompt, then sample and feed back."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from ...errors import CapacityError, InputError
from ..async_pieces import AsyncPieces
from ..drawing import can_draw
from ..logprobs import TokenLogprobs
from ..one_at_a_time import one_at_a_time
from ..sampling import Sampler, SamplingParams
from ..scoring import append_scored
from ..session import Session
from ..speculation.drafting import Drafting, Drafts, Speculation
from ..speculation.speculate import speculate
from .continuation import Continuation, FinishReason
from .one_by_one import one_by_one
from .request import Request

if TYPE_CHECKING:
    from .observer import GenerationObserver

_BLOCK = 16
"""Tokens that a device draws before they are looked at: the host waits for it once in so many steps."""

Piece = TypeVar("Piece", int, str)


class Generated(AsyncPieces[Piece], Generic[Piece]):
    """New tokens or pieces of text, one by one, with `for` or `async for`.

    Two threads at once in one of them: SessionBusyError, as in a session.

    Attributes:
        finish_reason: None until there are no more.
        prompt_logprobs: of the prompt's tokens but the first, if the settings ask for them.
    """

    def __init__(
        self,
        tokens: Generator[int, None, object],
        continuation: Continuation,
        prompt_logprobs: Sequence[TokenLogprobs] = (),
    ) -> None:
        super().__init__()
        self.turn = threading.Lock()
        self.finish_reason: FinishReason | None = None
        self.prompt_logprobs = list(prompt_logprobs)
        self._tokens, self._continuation, self._is_closed = tokens, continuation, False

    @property
    def ids(self) -> list[int]:
        """Those drawn so far."""
        return self._continuation.ids

    @property
    def count(self) -> int:
        """How many were drawn so far."""
        return len(self._continuation.ids)

    @property
    def end_rule(self) -> str | None:
        """The name of the end rule that ended it."""
        return None if self.finish_reason is None else self._continuation.end_rule

    @property
    def logprobs(self) -> list[TokenLogprobs]:
        """Of those drawn so far, if the settings ask for them."""
        return self._continuation.logprobs

    @property
    def speculation(self) -> Speculation | None:
        """What drafts came to so far; None without drafts."""
        return self._continuation.speculation

    def _advance(self) -> str:
        """Draw the next token, if there is one; the text that is certain by then."""
        going = self._continuation
        token = next(self._tokens, None)
        if token is None:
            return going.finish("complete" if going.is_complete else "capacity")
        text = going.take(token)
        if going.finish_reason is not None:
            self._tokens.close()
        return text

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._continuation.finish_reason is not None

    def _end(self) -> None:
        self.finish_reason = None if self._is_closed else self._continuation.finish_reason

    def close(self) -> None:
        """Draw no more; the session is left at the last id that was taken, and `finish_reason` as it is.

        If a thread computes a piece for `async for`, then behind that; `aclose` waits for it.
        """
        super().close()

    @one_at_a_time
    def _close(self) -> None:
        if self.finish_reason is None:
            self._is_closed = True
        self._tokens.close()
        self._continuation.close()


class GeneratedIds(Generated[int]):
    """New ids, one by one."""

    _given = 0

    @one_at_a_time
    def _next(self) -> int:
        ids = self._continuation.ids
        while len(ids) == self._given and not self._is_over:
            self._advance()
        if len(ids) > self._given and not self._is_closed:
            self._given += 1
            return ids[self._given - 1]
        self._end()
        raise StopIteration


class GeneratedText(Generated[str]):
    """Pieces of new text; `ids` are those drawn so far."""

    @one_at_a_time
    def _next(self) -> str:
        while not self._is_over:
            piece = self._advance()
            if self._continuation.finish_reason is not None:
                self._end()
            if piece:
                return piece
        self._end()
        raise StopIteration


def generate_ids(
    session: Session, prompt: Sequence[int], params: SamplingParams, end_ids: Collection[int] = ()
) -> GeneratedIds:
    """Continue `prompt` in a session of batch 1; gives new ids until `max_new_tokens`, an end id or a full session.

    The end id itself is not given out.

    Raises (at the call, not at the first id):
        InputError: an empty prompt, ids outside the vocabulary, or a session of another batch.
        CapacityError: the prompt does not fit.
    """
    return GeneratedIds(*begin(session, Request(prompt, params, frozenset(end_ids))))


def begin(
    session: Session, request: Request, observer: GenerationObserver | None = None
) -> tuple[Generator[int, None, object], Continuation, list[TokenLogprobs]]:
    """Append the prompt; returns the tokens that come, what is to take them, and the prompt's log probabilities if asked for.

    An `observer` is told of what is drawn and drafted; of calls an `ObservedSession` tells it.

    Raises: as `generate_ids`.
    """
    prompt, params = request.ids, request.params
    if session.batch != 1:
        raise InputError(f"generation continues one sequence, got a session of batch {session.batch}; open one with batch=1")
    if not len(prompt):
        raise InputError("the prompt is empty, expected at least one token; these models have no start token")
    if session.position + len(prompt) > session.capacity:
        raise CapacityError(
            f"the prompt has {len(prompt)} tokens, the session room for {session.capacity - session.position} "
            f"of {session.capacity}; shorten the prompt or open a session with more capacity"
        )
    continuation, scored = _continuation(request, observer), list[TokenLogprobs]()
    if params.prompt_logprobs is None:
        logits = session.advance(np.asarray([prompt]), last_only=True)[0, 0]
    else:
        scored, logits = append_scored(session, prompt, params.prompt_logprobs)
    if request.drafting is not None:
        marks = max((len(rule.ids) for rule in request.end_rules), default=0)  # may be taken back, too
        most = None if session.rewinds is None else session.rewinds - marks
        drafts = _drafts(request.drafting, continuation.sampler, most, observer)
        continuation.speculation = drafts.outcome
        return speculate(session, logits, continuation, drafts), continuation, scored
    if session.draws and can_draw(params):
        drawn = continuation.choose(logits, session.tokens[0])
        assert drawn is not None, "a device draws under no constraint"
        return _continue_on_device(session, drawn, continuation), continuation, scored
    return one_by_one(session, logits, continuation), continuation, scored


def _continuation(request: Request, observer: GenerationObserver | None) -> Continuation:
    if observer is None:
        return Continuation(request)
    from .observed import ObservedContinuation

    return ObservedContinuation(request, observer)


def _drafts(drafting: Drafting, sampler: Sampler, most: int | None, observer: GenerationObserver | None) -> Drafts:
    if observer is None:
        return Drafts(drafting, sampler, most)
    from .observed import ObservedDrafts

    return ObservedDrafts(drafting, sampler, most, observer)


def _continue_on_device(session: Session, token: int, continuation: Continuation) -> Generator[int, None, None]:
    """As `one_by_one`, a block of tokens at a time; the session stays where it would be without blocks."""
    try:
        yield token
    except GeneratorExit:
        session.rewind(continuation.withheld)
        raise
    sampler = continuation.sampler
    left = sampler.params.max_new_tokens - 1
    while left > 0 and session.position < session.capacity:
        count = min(_BLOCK, left, session.capacity - session.position)
        drawn = session.draw([[token]], count, sampler.params, sampler.uniform(count)[:, None])[0].tolist()
        for index, token in enumerate(drawn):
            try:
                yield token
            except GeneratorExit:
                session.rewind(count - 1 - index + continuation.withheld)
                raise
        left -= count
