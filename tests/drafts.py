"""Drafts that a test chooses: as long as it likes, right as often as it likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any

from foveal.runtime.generation.generate import GeneratedIds, begin
from foveal.runtime.generation.request import Request
from foveal.runtime.model import Model
from foveal.runtime.sampling import SamplingParams
from foveal.runtime.session import Session
from foveal.runtime.speculation.account import Account
from foveal.runtime.speculation.costs import CallCosts
from foveal.runtime.speculation.drafter import Proposal
from foveal.runtime.speculation.drafting import Drafting


class FreeCosts(CallCosts):
    """Calls cost the same, whatever they append: drafts are as long as they are proposed."""

    def __init__(self) -> None:
        super().__init__([])
        self.token = 1.0

    def seconds(self, position: int, tokens: int) -> float:
        """One."""
        return 1.0

    def learn(self, position: int, tokens: int, seconds: float) -> None:
        """Nothing."""


class FreeCalls(FreeCosts):
    """Calls cost next to nothing: drafts pay beside any number of other sequences."""

    def seconds(self, position: int, tokens: int) -> float:
        """Less than any step."""
        return 1e-12


class KnowingDrafter:
    """Knows what will be drawn, and proposes it, but for tokens that it makes wrong at random.

    Args:
        whole: all ids of the sequence, the prompt's too.
        choose: how long drafts are, and which tokens are wrong.
        vocab_size: of the ids.
    """

    seconds, is_silent = 0.0, False

    def __init__(self, whole: Sequence[int], choose: Random, vocab_size: int) -> None:
        self._whole, self._choose, self._vocab_size, self._seen = list(whole), choose, vocab_size, 0
        self.is_closed, self.account = False, Account()

    def catch_up(self, tokens: Iterable[int]) -> None:
        """They have to be those that are known to come."""
        for token in tokens:
            self.extend(token)

    def extend(self, token: int) -> None:
        """As well."""
        assert token == self._whole[self._seen]
        self._seen += 1

    def propose(self) -> Iterator[Proposal]:
        """Up to 20 tokens; behind what is known, any."""
        for place in range(self._seen, self._seen + self._choose.randrange(21)):
            is_wrong = place >= len(self._whole) or self._choose.random() < 0.15
            token = self._choose.randrange(self._vocab_size) if is_wrong else self._whole[place]
            yield Proposal(token, 0.9)

    def close(self) -> None:
        """Once."""
        assert not self.is_closed
        self.is_closed = True


class LenientDrafter(KnowingDrafter):
    """Does not mind what comes."""

    def extend(self, token: int) -> None:
        """Whatever it is."""
        self._seen += 1


def continued(
    session: Session, prompt: Sequence[int], params: SamplingParams, whole: Sequence[int] = (), seed: int = 0, **of_request: Any
) -> GeneratedIds:
    """What is drawn after a prompt; with `whole`, by drafts of what is known to come."""
    size = session.model.vocab_size
    drafting = Drafting(lambda sampler: KnowingDrafter(whole, Random(seed), size), FreeCosts()) if len(whole) else None
    return GeneratedIds(*begin(session, Request(prompt, params, drafting=drafting, **of_request)))


def check_drafts(model: Model, prompt: Sequence[int], params: SamplingParams, capacity: int, seed: int = 0) -> None:
    """Drafts change nothing: neither what is drawn, nor where the session stands, nor what it gives from there."""
    check_drafts_of(lambda: model.session(capacity=capacity), prompt, params, seed)


def check_drafts_of(opened: Callable[[], Session], prompt: Sequence[int], params: SamplingParams, seed: int = 0) -> None:
    """As `check_drafts`, of sessions that are opened so."""
    plain, drafted = opened(), opened()
    expected = continued(plain, prompt, params)
    ids = list(expected)
    found = continued(drafted, prompt, params, [*prompt, *ids], seed)
    assert list(found) == ids
    assert found.finish_reason == expected.finish_reason
    assert drafted.tokens.tolist() == plain.tokens.tolist()
    outcome = found.speculation
    assert outcome is not None
    assert outcome.calls + outcome.accepted == drafted.position - len(prompt)
    if drafted.position + 6 <= drafted.capacity:
        after = [list(continued(one, ids[-1:], SamplingParams(temperature=0, max_new_tokens=5))) for one in (plain, drafted)]
        assert after[0] == after[1]
