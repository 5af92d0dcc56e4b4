"""Drafts by another, smaller model of the same tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..sampling import Sampler
from ..session import Session
from .account import Account
from .chances import Chances
from .drafter import Proposal

_KINDS = 8
"""By how sure the drafting model is."""
_MEMORY = 0.05
"""Weight of the newest time in the mean of all."""


class Guesses:
    """What is known of a model's guesses, from all texts it drafted for: so that a text need not try what did not pay before.

    Attributes:
        seconds: of one; 0: none was made yet.
        chances: that they are right, by how sure the model is.
        account: of what they win.
    """

    def __init__(self) -> None:
        self.seconds, self.account = 0.0, Account()
        self.chances = Chances([(kind + 0.5) / _KINDS for kind in range(_KINDS)])


class ModelDrafter:
    """Proposes what another model would draw by the same random numbers, so that two models that agree draw the same.

    Args:
        session: of the drafting model, at its beginning; batch 1.
        sampler: of the sequence that drafts are for; nothing is drawn from it.
        guesses: what is known of the model's, and is learnt here.
    """

    def __init__(self, session: Session, sampler: Sampler, guesses: Guesses) -> None:
        self._session, self._sampler, self._guesses = session, sampler, guesses
        self._ids: list[int] = []
        self._agreed = 0
        """Of the drafting model's tokens, those that are the sequence's."""
        self._proposed: list[tuple[int, int]] = []
        """Tokens and their kinds, of those not compared yet with what came."""

    @property
    def seconds(self) -> float:
        """As `Drafter.seconds`."""
        return self._guesses.seconds

    @property
    def account(self) -> Account:
        """As `Drafter.account`."""
        return self._guesses.account

    @property
    def is_silent(self) -> bool:
        """As `Drafter.is_silent`: beyond the drafting model's context."""
        return len(self._ids) > self._session.capacity

    def catch_up(self, tokens: npt.NDArray[np.int64]) -> None:
        """As `Drafter.catch_up`: all but the last are appended, which the first proposal comes after."""
        self._proposed.clear()
        self._ids += tokens.tolist()
        if not self.is_silent:
            self._append()

    def extend(self, token: int) -> None:
        """As `Drafter.extend`."""
        if self._proposed:
            proposed, kind = self._proposed.pop(0)
            self._guesses.chances.learn(kind, proposed == token)
            if proposed != token:
                self._proposed.clear()
        self._ids.append(token)

    def propose(self) -> Iterator[Proposal]:
        """As `Drafter.propose`."""
        uniform = self._sampler.upcoming()
        session = self._session
        self._proposed = []
        began = time.perf_counter()
        logits = self._append()
        while True:
            token, sure = self._sampler.guess(logits, next(uniform))
            kind = min(int(sure * _KINDS), _KINDS - 1)
            self._proposed.append((token, kind))
            self._took(time.perf_counter() - began)
            yield Proposal(token, self._guesses.chances[kind])
            if session.position == session.capacity:
                return
            began = time.perf_counter()
            logits = session.advance([[token]], last_only=True)[0, 0]

    def _append(self) -> npt.NDArray[np.float32]:
        """Go back to where the models agree, and append what came since; the logits after the last."""
        session, ids = self._session, np.asarray(self._ids)
        kept = min(session.position, len(ids) - 1)
        own = session.tokens[0, self._agreed : kept]
        differs = np.flatnonzero(own != ids[self._agreed : kept])
        kept = self._agreed + int(differs[0]) if differs.size else kept
        session.rewind(session.position - kept)
        self._agreed = len(ids)
        logits: npt.NDArray[np.float32] = session.advance(ids[None, kept:], last_only=True)[0, 0]
        return logits

    def _took(self, seconds: float) -> None:
        known = self._guesses
        known.seconds += (seconds - known.seconds) * (_MEMORY if known.seconds else 1)

    def close(self) -> None:
        """As `Drafter.close`."""
        with self._session:
            pass
