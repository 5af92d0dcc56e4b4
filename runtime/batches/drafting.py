"""Drafts for the texts of a batch: who is asked for one, who leaves the common step with it, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping

from ..speculation.drafting import Drafts, Speculation
from ..speculation.lengths import NONE, Draft
from ..speculation.step_costs import StepCosts, Terms
from .batch import Batch
from .choice import Choice
from .sequence import Sequence

_STRAYED = 16
"""After so many steps without a draft, and as often again, it is seen to that a sequence stands in its phase."""


class BatchDrafting:
    """Of the texts in the slots of a batch. Texts whose requests say nothing of drafts cost nothing here.

    Args:
        batch: whose steps they are.

    Attributes:
        outcome: what drafts came to so far, of all texts.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch, self._costs = batch, batch.costs
        self.outcome = Speculation()

    def begin(self, choice: Choice) -> None:
        """Let a text have drafts, if its request says so: it is about to draw its first token.

        Raises: what the drafter raises where it is opened.
        """
        going = choice.continuation
        drafting = going.request.drafting
        if drafting is None or choice.drafts is not None:
            return
        if self._costs is None:
            self._costs = self._batch.costs = StepCosts(drafting.costs, self._batch.modulus)
        marks = max((len(rule.ids) for rule in going.request.end_rules), default=0)  # may be taken back, too
        rewinds = self._batch.rewinds
        choice.drafts = Drafts(drafting, going.sampler, None if rewinds is None else rewinds - marks, going.speculation)

    def stands_aside(self, sequence: Sequence, choice: Choice, count: int) -> bool:
        """Whether a text waits for its phase, in which it shares the calls of others: if it had no draft for a while."""
        drafts = choice.drafts
        if sequence.state != "ready":
            return True
        if drafts is None or count == 1 or not drafts.undrafted or drafts.undrafted % _STRAYED:
            return False
        self._batch.realign(sequence)
        return sequence.state != "ready"

    def asks(self, choice: Choice) -> bool:
        """Whether a text is asked for a draft: its drafts don't rest, it goes on, and it is known what a step takes."""
        drafts, costs = choice.drafts, self._costs
        return drafts is not None and not drafts.account.rest and choice.last is None and costs is not None and costs.is_timed

    def draft(self, sequence: Sequence, choice: Choice, token: int, count: int) -> Draft:
        """What to check behind the next token of a text that is asked, in a step of so many sequences.

        Raises: what its drafter raises.
        """
        costs, batch, position = self._costs, self._batch, sequence.position
        assert choice.drafts is not None
        assert costs is not None

        def terms() -> Terms:
            return costs.terms(count, position, batch.is_in_phase(sequence))

        drafts, unit = choice.drafts, costs.token(count)
        if drafts.known < position and not drafts.wake(batch.tokens(sequence), unit):
            return NONE
        room = min(batch.capacity - position, choice.continuation.left) - 1
        return drafts.draft(token, room, unit, terms)

    def leaving(
        self, drafts: Mapping[Sequence, Draft], running: Mapping[Sequence, Choice], count: int
    ) -> dict[Sequence, Draft]:
        """The drafts of those that had better leave a step of so many, which pay for it."""
        each, costs = [(one, draft) for one, draft in drafts.items() if draft.tokens], self._costs
        if not each or costs is None:
            return {}
        found = dict(each[place] for place in costs.leaving(count, [draft.gain for _, draft in each]))
        for one, draft in found.items():
            going = running[one].drafts
            assert going is not None
            going.checks(draft.cost / costs.token(count))
        return found

    def appended(self, choice: Choice, drafted: int) -> None:
        """A step appended a text's next token, and so many drafted ones behind it."""
        if choice.drafts is None or choice.last is not None:
            return
        choice.drafts.undrafted = 0 if drafted else choice.drafts.undrafted + 1
        choice.drafts.appended(drafted)
        self.outcome.calls += 1
        self.outcome.drafted += drafted

    def came(self, choice: Choice, token: int) -> None:
        """A drafted token of a text was drawn."""
        if choice.drafts is not None:
            choice.drafts.came(token, 1.0)
            self.outcome.accepted += 1
