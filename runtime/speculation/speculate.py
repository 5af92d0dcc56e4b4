"""Decoding with drafts: each call appends a token that was drawn and some that may come; what does not come is taken back."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..generation.one_by_one import one_by_one
from ..session import Session
from .drafting import Drafts
from .terms import Terms, alone

if TYPE_CHECKING:
    from ..generation.continuation import Continuation

Logits = npt.NDArray[np.float32]
Tokens = Generator[int, None, Logits | None]


def speculate(session: Session, logits: Logits, continuation: Continuation, drafts: Drafts) -> Generator[int, None, None]:
    """Tokens as they are drawn without drafts, one by one; the session ends where it would without them.

    Args:
        session: with the prompt.
        logits: after it, float32 `[V]`.
        continuation: chooses the tokens.
        drafts: of this sequence.
    """
    after: Logits | None = logits
    try:
        while after is not None:
            if not drafts.account.rest and drafts.wake(session.tokens[0], drafts.costs.token):
                after = yield from _try(session, after, continuation, drafts)
            else:
                begun = session.position
                try:
                    after = yield from one_by_one(session, after, continuation, drafts.account.rest)
                finally:
                    drafts.rested(session.position - begun)
    finally:
        drafts.drafter.close()


def _try(session: Session, logits: Logits, continuation: Continuation, drafts: Drafts) -> Tokens:
    """With drafts, until they rest."""
    costs, one, length, rows, ahead = drafts.costs, np.empty((1, 1), np.int64), session.position, logits[None], list[int]()
    """The length is that of the text; what the session holds behind it are drafts."""

    def terms() -> Terms:
        return alone(costs, length)

    while ahead or not drafts.account.rest:
        token = continuation.choose(rows[0], session.tokens[0, :length])
        if token is None:
            _take_back(session, length)
            return None
        try:
            yield token
        except GeneratorExit:
            _take_back(session, length - continuation.withheld)
            raise
        if ahead and ahead[0] == token:
            drafts.came(token, costs.seconds(length, 1) / costs.token)
            length, ahead, rows = length + 1, ahead[1:], rows[1:]
            continue
        _take_back(session, length)
        if length == session.capacity:
            return None
        draft = drafts.draft(token, _room(session, continuation), costs.token, terms)
        ahead, one[0, 0] = draft.tokens, token
        began = time.perf_counter()
        rows = session.advance([[token, *ahead]])[0] if ahead else session.advance(one, last_only=True)[0]
        costs.learn(length, 1 + len(ahead), time.perf_counter() - began)
        if ahead:
            drafts.checks(draft.cost / costs.token)
        drafts.appended(len(ahead))
        length += 1
    last: Logits = rows[0]
    return last


def _take_back(session: Session, length: int) -> None:
    """What stands behind so many tokens."""
    if session.position > length:
        session.rewind(session.position - length)


def _room(session: Session, continuation: Continuation) -> int:
    """Tokens that may be appended behind the one that is drawn: the last one asked for is not, and no more fit."""
    return min(session.capacity - session.position, continuation.left) - 1
