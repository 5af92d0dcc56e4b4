"""Drafts for the texts of a batch: who is asked for one, who leaves the common step with it, and what became of it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from ..speculation.drafting import Drafts, Speculation
from ..speculation.lengths import NONE, Draft
from ..speculation.step_costs import StepCosts
from ..speculation.terms import Terms
from .batch import Batch
from .choice import Choice
from .sequence import Sequence

_STRAYED = 16
"""Steps without a draft, after which it is seen to that a sequence stands in its phase."""


class BatchDrafting:
    """Of the texts in the slots of a batch. Texts whose requests say nothing of drafts cost nothing here.

    Args:
        batch: whose steps they are.

    Attributes:
        outcome: what drafts came to so far, of all texts.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch, self.outcome = batch, Speculation()
        self._costs: StepCosts | None = None
        self._strayed = dict[Sequence, int]()
        """Steps since their last draft, of those that may have fallen out of their phase by it."""

    def begin(self, choice: Choice) -> None:
        """Let a text have drafts, if its request says so: it is about to draw its first token.

        Raises: what the drafter raises where it is opened.
        """
        going = choice.continuation
        drafting = going.request.drafting
        if drafting is None or choice.drafts is not None:
            return
        if self._costs is None:
            self._costs = StepCosts(drafting.costs, self._batch.modulus)
        marks = max((len(rule.ids) for rule in going.request.end_rules), default=0)  # may be taken back, too
        rewinds = self._batch.rewinds
        choice.drafts = Drafts(drafting, going.sampler, None if rewinds is None else rewinds - marks, going.speculation)

    def realign(self, sequences: Container[Sequence]) -> None:
        """Let those of a step wait for their phase, in which they share the calls of others, that had no draft for a while."""
        for one in [one for one in self._strayed if one in sequences and one.state == "ready"]:
            self._strayed[one] += 1
            if self._strayed[one] > _STRAYED:
                del self._strayed[one]
                self._batch.realign(one)

    def awake(self, tokens: Iterable[Sequence], running: Mapping[Sequence, Choice]) -> list[Sequence]:
        """The texts of a step that are asked for drafts. Where all rest, nobody wants to know what the step takes."""
        if self._costs is None:
            return []
        found = []
        for one in tokens:
            choice = running[one]
            if choice.drafts is not None and not choice.drafts.account.rest and choice.last is None:
                found.append(one)
        self._batch.costs = self._costs if found else None
        return found if self._costs.is_timed else []

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
        """The drafts of those that had better leave a step of so many, which pay for it; where several share the step, those of
        the others rest."""
        costs, each = self._costs, [(one, draft) for one, draft in drafts.items() if draft.tokens]
        assert costs is not None
        found = dict(each[place] for place in costs.leaving(count, [draft.gain for _, draft in each]))
        for one in drafts:
            of_text = running[one].drafts
            assert of_text is not None
            if one in found:
                of_text.checks(found[one].cost / costs.token(count))
                self._strayed[one] = 0
            elif count > 1:
                of_text.pause()
        return found

    def appended(self, choice: Choice, drafted: int) -> None:
        """A step appended a text's next token, and so many drafted ones behind it."""
        if choice.drafts is not None and choice.last is None:
            choice.drafts.appended(drafted)
            self.outcome.calls += 1
            self.outcome.drafted += drafted

    def came(self, choice: Choice, token: int) -> None:
        """A drafted token of a text was drawn."""
        if choice.drafts is not None:
            choice.drafts.came(token, 1.0)
            self.outcome.accepted += 1

    def left(self, sequence: Sequence) -> None:
        """A sequence has left the batch."""
        self._strayed.pop(sequence, None)
