"""Token by token: prefill the prompt, then sample and feed back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import CapacityError, InputError
from .drawing import can_draw
from .sampling import Sampler, SamplingParams
from .session import Session

_BLOCK = 16
"""Tokens that a device draws before they are looked at: the host waits for it once in so many steps."""


def generate_ids(session: Session, prompt: Sequence[int], params: SamplingParams) -> Iterator[int]:
    """Continue `prompt` in a session of batch 1; yields new ids until `max_new_tokens` or the session is full.

    Raises (at the call, not at the first id):
        InputError: an empty prompt, ids outside the vocabulary, or a session of another batch.
        CapacityError: the prompt does not fit.
    """
    if session.batch != 1:
        raise InputError(f"generation continues one sequence, got a session of batch {session.batch}; open one with batch=1")
    if not prompt:
        raise InputError("the prompt is empty, expected at least one token; these models have no start token")
    if session.position + len(prompt) > session.capacity:
        raise CapacityError(
            f"the prompt has {len(prompt)} tokens, the session room for {session.capacity - session.position} "
            f"of {session.capacity}; shorten the prompt or open a session with more capacity"
        )
    logits = session.advance(np.asarray([prompt]), last_only=True)
    sampler = Sampler(params)
    if session.draws and can_draw(params):
        return _continue_on_device(session, sampler.sample(logits[0, 0], session.tokens[0]), sampler, params.max_new_tokens)
    return _continue(session, logits[0, 0], sampler, params.max_new_tokens)


def _continue_on_device(session: Session, token: int, sampler: Sampler, max_new_tokens: int) -> Iterator[int]:
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


def _continue(session: Session, logits: npt.NDArray[np.float32], sampler: Sampler, max_new_tokens: int) -> Iterator[int]:
    for left in range(max_new_tokens - 1, -1, -1):
        token = sampler.sample(logits, session.tokens[0])
        yield token
        if left == 0 or session.position == session.capacity:
            return
        logits = session.advance([[token]], last_only=True)[0, 0]
