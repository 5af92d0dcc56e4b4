"""Drafts of a sequence over a long text: what they take where they never pay, by a clock that calls and guesses move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from drafts import FreeCosts
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import TOKENS, stage

from foveal.runtime.generation.continuation import Continuation
from foveal.runtime.generation.one_by_one import one_by_one
from foveal.runtime.generation.request import Request
from foveal.runtime.sampling import SamplingParams
from foveal.runtime.session import Session
from foveal.runtime.speculation import drafting, speculate
from foveal.runtime.speculation.account import SHARE, TRIAL, Account
from foveal.runtime.speculation.costs import CallCosts
from foveal.runtime.speculation.drafter import Proposal
from foveal.runtime.speculation.drafting import Drafting, Drafts, Speculation
from foveal.runtime.speculation.ngrams import NgramDrafter

VOCABULARY, ROW = 32, 0.3
"""Ids, and what a further row adds to a call of one token, which takes 1 second."""


class Clock:
    """Moved by whatever takes time."""

    now = 0.0

    def perf_counter(self) -> float:
        """Seconds."""
        return self.now


class ScriptedSession:
    """Of a model that draws a known text; a call takes 1 second, and `ROW` for each further row."""

    def __init__(self, text: list[int], clock: Clock) -> None:
        self.text, self.clock, self.position, self.capacity = [*text, 0], clock, 0, len(text)
        self._seen = np.zeros((1, len(text)), np.int64)

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """As `Session.tokens`."""
        return self._seen[:, : self.position]

    def advance(self, ids: Any, last_only: bool = False) -> npt.NDArray[np.float32]:
        """As `Session.advance`."""
        given = np.asarray(ids)
        count = given.shape[1]
        self._seen[:, self.position : self.position + count] = given
        self.position += count
        self.clock.now += 1 + ROW * (count - 1)
        logits = np.zeros((1, count, VOCABULARY), np.float32)
        for row in range(count):
            logits[0, row, self.text[self.position - count + row + 1]] = 1
        return logits[:, -1:] if last_only else logits

    def rewind(self, tokens: int) -> None:
        """As `Session.rewind`."""
        self.position -= tokens


class Costs(FreeCosts):
    """What calls of a `ScriptedSession` take."""

    def seconds(self, position: int, tokens: int) -> float:
        """As there."""
        return 1 + ROW * (tokens - 1)


class Wrong:
    """Proposes what never comes, and is sure of it; each proposal takes some seconds, and to catch up some for each token."""

    is_silent = False

    def __init__(self, clock: Clock, seconds: float, per_token: float) -> None:
        self.account, self._clock, self.seconds, self._per_token = Account(), clock, seconds, per_token

    def catch_up(self, tokens: npt.NDArray[np.int64]) -> None:
        """Takes its time."""
        self._clock.now += self._per_token * len(tokens)

    def extend(self, token: int) -> None:
        """Nothing."""

    def propose(self) -> Iterator[Proposal]:
        """An id that no text here has."""
        while True:
            self._clock.now += self.seconds
            yield Proposal(VOCABULARY - 1, 0.95)

    def close(self) -> None:
        """Nothing."""


def drawn(text: list[int], open_drafter: Callable[[Clock], Any] | None) -> tuple[list[int], float, Speculation | None]:
    """What comes after the first token of a text, with drafts or without; the seconds; and what drafts came to."""
    clock = Clock()
    session = cast(Session, ScriptedSession(text, clock))
    continuation = Continuation(Request(text[:1], SamplingParams(temperature=0, max_new_tokens=len(text))))
    logits = session.advance([text[:1]])[0, 0]
    if open_drafter is None:
        return list(one_by_one(session, logits, continuation)), clock.now, None
    drafts = Drafts(Drafting(lambda sampler: open_drafter(clock), Costs()), continuation.sampler, None)
    with pytest.MonkeyPatch.context() as patch:
        for module in (drafting, speculate):
            patch.setattr(module, "time", SimpleNamespace(perf_counter=clock.perf_counter))
        return list(speculate.speculate(session, logits, continuation, drafts)), clock.now, drafts.outcome


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.4])
@pytest.mark.parametrize("per_token", [0.0, 0.02])
def test_drafts_that_never_pay_take_their_share_and_one_trial(seconds: float, per_token: float) -> None:
    """Of n-grams as of models; what it takes to catch up counts, too. They are tried time and again."""
    text = [token % 30 for token in range(20_000)]
    plain, alone, _ = drawn(text, None)
    found, took, outcome = drawn(text, lambda clock: Wrong(clock, seconds, per_token))
    assert found == plain
    assert outcome is not None
    assert outcome.accepted == 0
    assert outcome.drafted > 30
    longest = ROW * 15 + seconds * 16
    assert 0.002 * alone < took - alone <= SHARE * alone + 2 * (TRIAL + longest) + per_token * len(text)


def test_text_that_repeats_comes_sooner_and_text_that_does_not_no_later() -> None:
    """By n-grams, which guess in no time here."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 30, 3000).tolist()
    loops = rng.integers(0, 30, 40).tolist() * 75
    for text, least in ((noise, 0.99), (loops, 2.0), (noise + loops, 1.3), (loops + noise, 1.3)):
        plain, alone, _ = drawn(text, None)
        found, took, _ = drawn(text, lambda clock: NgramDrafter())
        assert found == plain
        assert alone / took > least


def test_what_a_token_takes_is_learnt_at_once() -> None:
    """By a model's first text, also where there is nothing to draft: how long a look has to be paid for depends on it."""
    text, clock = np.random.default_rng(0).integers(0, 30, 200).tolist(), Clock()
    costs = CallCosts([stage("fine", 1, [TOKENS])])
    session = cast(Session, ScriptedSession(text, clock))
    continuation = Continuation(Request(text[:1], SamplingParams(temperature=0, max_new_tokens=200)))
    logits = session.advance([text[:1]])[0, 0]
    drafts = Drafts(Drafting(lambda sampler: NgramDrafter(), costs), continuation.sampler, None)
    with pytest.MonkeyPatch.context() as patch:
        for module in (drafting, speculate):
            patch.setattr(module, "time", SimpleNamespace(perf_counter=clock.perf_counter))
        assert list(speculate.speculate(session, logits, continuation, drafts)) == [*text[1:], 0]
    assert costs.token == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_the_text_is_the_same_through_rests_and_trials(parts: list[tuple[int, int, int]]) -> None:
    """Of parts that repeat themselves, and others: each token is drawn once, and all are appended."""
    text = [0]
    for seed, length, times in parts:
        text += np.random.default_rng(seed).integers(0, 30, length).tolist() * times
    plain, _, _ = drawn(text, None)
    found, _, outcome = drawn(text, lambda clock: NgramDrafter())
    assert outcome is not None
    assert found == plain
    assert outcome.calls + outcome.accepted == len(text) - 1
