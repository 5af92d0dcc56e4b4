"""Decoding with drafts: each call appends a token that was drawn and some that may come; what does not come is taken back."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..session import Session
from .drafting import Drafts

if TYPE_CHECKING:
    from ..generation.continuation import Continuation


def speculate(
    session: Session, logits: npt.NDArray[np.float32], continuation: Continuation, drafts: Drafts
) -> Generator[int, None, None]:
    """Tokens as they are drawn without drafts, one by one; the session ends where it would without them.

    Args:
        session: with the prompt.
        logits: after it, float32 `[V]`.
        continuation: chooses the tokens.
        drafts: of this sequence.
    """
    length = session.position
    """Of the text; what the session holds behind it are drafts."""
    ahead: list[int] = []
    rows, one = logits[None], np.empty((1, 1), np.int64)
    drafts.begin(session.tokens[0].tolist())
    try:
        while True:
            token = continuation.choose(rows[0], session.tokens[0, :length])
            if token is None:
                _take_back(session, length)
                return
            try:
                yield token
            except GeneratorExit:
                _take_back(session, length - continuation.withheld)
                raise
            if ahead and ahead[0] == token:
                drafts.came(token, length)
                length, ahead, rows = length + 1, ahead[1:], rows[1:]
                continue
            _take_back(session, length)
            if length == session.capacity:
                return
            if drafts.rest(token):  # as quickly as it is done without drafts
                ahead, one[0, 0] = [], token
                rows = session.advance(one, last_only=True)[0]
            else:
                ahead = drafts.after(token, length, _room(session, length, continuation))
                began = time.perf_counter()
                rows = session.advance([[token, *ahead]])[0]
                drafts.checked(length, len(ahead), time.perf_counter() - began)
            length += 1
    finally:
        drafts.drafter.close()


def _take_back(session: Session, length: int) -> None:
    """What stands behind so many tokens."""
    if session.position > length:
        session.rewind(session.position - length)


def _room(session: Session, length: int, continuation: Continuation) -> int:
    """Tokens that may be appended behind the one that is drawn: the last one asked for is not, and no more fit."""
    return min(session.capacity - length, continuation.left) - 1
