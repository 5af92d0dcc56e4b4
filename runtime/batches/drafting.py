"""Drafts for the texts of a batch: who is asked for one, who leaves the common step with it, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping

from ..speculation.drafting import Drafts, Speculation
from ..speculation.lengths import Draft
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

    def may_pay(self, tokens: Mapping[Sequence, int], running: Mapping[Sequence, Choice]) -> bool:
        """Whether to ask for drafts in a step of these sequences."""
        most = max((drafts.most for one in tokens if (drafts := running[one].drafts) is not None), default=0)
        return most > 0 and self._costs is not None and self._costs.may_pay(len(tokens), next(iter(tokens)).position, most)

    def asks(self, choice: Choice, count: int) -> bool:
        """Whether a text is asked for a draft in a step of so many sequences."""
        return choice.drafts is not None and choice.last is None and not choice.drafts.is_resting(count)

    def draft(self, sequence: Sequence, choice: Choice, token: int, count: int) -> Draft:
        """What to check behind the next token of a text that is asked.

        Raises: what its drafter raises.
        """
        assert choice.drafts is not None
        assert self._costs is not None
        position = sequence.position
        room = min(self._batch.capacity - position - 1, choice.continuation.left)
        costs, batch = self._costs, self._batch

        def terms() -> Terms:
            return costs.terms(count, position, batch.is_in_phase(sequence))

        return choice.drafts.among(batch.tokens(sequence), token, room, terms)

    def leaving(self, drafts: Mapping[Sequence, Draft], count: int) -> dict[Sequence, list[int]]:
        """The drafts of those that had better leave a step of so many."""
        each = [(one, draft) for one, draft in drafts.items() if draft.tokens]
        if not each or self._costs is None:
            return {}
        chosen = self._costs.leaving(count, [draft.gain for _, draft in each])
        return {each[place][0]: each[place][1].tokens for place in chosen}

    def appended(self, choice: Choice, drafted: int) -> None:
        """A step appended a text's next token, and so many drafted ones behind it."""
        if choice.drafts is None or choice.last is not None:
            return
        choice.drafts.undrafted = 0 if drafted else choice.drafts.undrafted + 1
        for outcome in (choice.drafts.outcome, self.outcome):
            outcome.calls += 1
            outcome.drafted += drafted

    def came(self, choice: Choice) -> None:
        """A drafted token of a text was drawn."""
        if choice.drafts is not None:
            choice.drafts.outcome.accepted += 1
            self.outcome.accepted += 1
