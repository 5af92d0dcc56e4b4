"""Decoding with one call for each token."""

from __future__ import annotations

import itertools
from collections.abc import Generator

import numpy as np
import numpy.typing as npt

from ..session import Session
from .continuation import Continuation

Logits = npt.NDArray[np.float32]


def one_by_one(
    session: Session, logits: Logits, continuation: Continuation, count: int | None = None
) -> Generator[int, None, Logits | None]:
    """Tokens as they are drawn and appended; the last one only if another is to come.

    Args:
        session: with all tokens so far.
        logits: after them, float32 `[V]`.
        continuation: chooses the tokens.
        count: to draw; None: as many as may come.

    Returns:
        The logits after so many tokens; None where no more may come, or fit.
    """
    ids = np.empty((1, 1), np.int64)
    for _ in itertools.repeat(None) if count is None else itertools.repeat(None, count):
        token = continuation.choose(logits, session.tokens[0])
        if token is None:
            return None
        try:
            yield token
        except GeneratorExit:
            session.rewind(continuation.withheld)
            raise
        if session.position == session.capacity:
            return None
        ids[0, 0] = token
        logits = session.advance(ids, last_only=True)[0, 0]
    return logits
