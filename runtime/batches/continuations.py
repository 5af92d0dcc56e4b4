"""Continuations of many requests in the slots of one batch: who waits, who decodes, and what every step draws."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ...errors import FovealError
from ..generation.continuation import FinishReason
from ..snapshots import Snapshot
from ..speculation.drafting import Speculation
from ..speculation.lengths import Draft
from .batch import Batch
from .choice import Choice, Drawn
from .drafting import BatchDrafting
from .sequence import Sequence
from .waiting import Branch, Prompt

Logits = npt.NDArray[np.float32]
_MOST_FAILURES = 3
"""Steps in a row that may fail for all before it is of no use to go on."""


class Continuations:
    """Continues requests in the slots of a batch. All calls come from one thread at a time.

    Every choice is told of once with `Drawn.is_last`, and not after that. What an exception that is no FovealError ends, such
    as an interrupt, loses nothing: the next step goes on where it was.

    Args:
        batch: that has nothing else to do.
        of_choice: what ends only the choice whose own settings raised it, and nothing else. In a thread where no interrupt
            comes that may be anything.

    Attributes:
        failure: why steps failed for all, once some in a row did and what is here had better be given up; None after any other.
    """

    def __init__(self, batch: Batch, of_choice: type[BaseException] = Exception) -> None:
        self.batch, self._of_choice = batch, of_choice
        self._waiting: deque[Prompt | Branch] = deque()
        self._reading: dict[Sequence, Prompt] = {}
        self._running: dict[Sequence, Choice] = {}
        self._logits: dict[Sequence, Logits] = {}
        """To draw from, `[n, V]`; some are left here only if drawing was interrupted."""
        self._ahead: dict[Sequence, list[int]] = {}
        """Drafted, and appended behind what was drawn."""
        self._next: dict[Sequence, int] = {}
        """Drawn, to be appended."""
        self._drafting = BatchDrafting(batch)
        self._found: list[Drawn] = []
        self._failures = 0
        self.failure: FovealError | None = None

    @property
    def speculation(self) -> Speculation:
        """What drafts came to so far, of all texts that have some."""
        return self._drafting.outcome

    @property
    def waiting(self) -> int:
        """Prompts and texts that wait for a slot."""
        return len(self._waiting)

    @property
    def reading(self) -> int:
        """Prompts that are being read."""
        return len(self._reading)

    @property
    def running(self) -> int:
        """Texts that tokens are drawn for."""
        return len(self._running)

    @property
    def is_idle(self) -> bool:
        """Whether a step would do nothing."""
        return not (self._waiting or self._reading or self._running or self._found)

    def add(self, prompt: Prompt) -> None:
        """Let the texts of a prompt begin when there is room; it is read once. First come, first served."""
        self._waiting.append(prompt)

    def step(self) -> list[Drawn]:
        """Let those that wait have free slots, append what was drawn, and draw the next.

        What can't be taken, or can't go on, ends with its error; the others go on.
        """
        self._expire()
        self._draw_all()
        self._admit()
        if self._reading or self._running:
            self._decode()
        found = self._taken()
        self._count_failures(next((one.error for one in found if one.choice is None), None))
        return found

    def _count_failures(self, error: FovealError | None) -> None:
        """Of a step that failed for all: it is made again, but not for ever."""
        self._failures = 0 if error is None else self._failures + 1
        self.failure = error if self._failures >= _MOST_FAILURES else None
        if self.failure is not None:
            self._failures = 0

    def _taken(self) -> list[Drawn]:
        """What was found, also by a step that an interrupt ended."""
        found, self._found = self._found, []
        return found

    def end(self, choices: Iterable[Choice], reason: FinishReason = "cancelled", keep: bool = False) -> list[Drawn]:
        """End choices before they are done; their slots are free at once, but for state that is kept: after the next step.

        Args:
            choices: of them, those that have ended already are left alone.
            reason: why.
            keep: whether state that was wanted at the end is still wanted.
        """
        self._end(choices, reason, keep)
        return self._taken()

    def _end(self, choices: Iterable[Choice], reason: FinishReason, keep: bool) -> None:
        for choice in choices:
            if choice.last is not None:
                self._drop(choice, choice.last, keep)
            elif not choice.is_over:
                count = len(choice.continuation.ids)
                *found, last = choice.given_out(count, choice.continuation.finish(reason))
                self._found += found
                self._drop(choice, last, keep)
        self._drop_dead()

    def fail(self, choices: Iterable[Choice], error: FovealError) -> list[Drawn]:
        """End choices with an error, but for those whose text is whole; slots are free at once, and no state is kept."""
        for choice in choices:
            if choice.last is not None:
                self._drop(choice, choice.last, keep=False)
            elif not choice.is_over:
                choice.continuation.finish("cancelled")
                self._drop(choice, Drawn(choice, error=error), keep=False)
        self._drop_dead()
        return self._taken()

    def close(self) -> None:
        """Drop all, and give the batch's memory back."""
        for waiting in (*self._waiting, *self._reading.values()):
            for choice in waiting.live:
                choice.continuation.close()
        for choice in self._running.values():
            choice.close()
        self._waiting.clear()
        self._reading, self._running, self._logits, self._ahead, self._next, self._found = {}, {}, {}, {}, {}, []
        self.batch.close()

    def _drop(self, choice: Choice, last: Drawn, keep: bool) -> None:
        """Out of its slot, if it has one; with its state once what was drawn is appended, if that is to be kept."""
        sequence = next((sequence for sequence, one in self._running.items() if one is choice), None)
        if sequence is not None and keep and choice.keeps_state:
            choice.last = last
            return
        choice.last = None
        if sequence is not None:
            self._leave(sequence)
        self._found.append(last)

    def _drop_dead(self) -> None:
        """Prompts that nobody waits for any more."""
        self._waiting = deque(one for one in self._waiting if one.live)
        for sequence, prompt in list(self._reading.items()):
            if not prompt.live:
                self._leave(sequence)

    def _expire(self) -> None:
        """End what has had no token when its time is over; what has any is looked at after each."""
        late = [
            choice
            for waiting in (*self._waiting, *self._reading.values())
            for choice in waiting.live
            if choice.continuation.request.is_late
        ]
        if late:
            self._end(late, "deadline", keep=False)

    def _admit(self) -> None:
        """In the order in which they came; each leaves the queue once it has a slot, so that an interrupt loses none."""
        while self._waiting and self.batch.free_slots:
            waiting = self._waiting[0]
            try:
                if isinstance(waiting, Prompt):
                    self._reading[waiting.begin(self.batch)] = waiting
                else:
                    sequence = self.batch.restore(waiting.snapshot)
                    self._running[sequence], self._logits[sequence] = waiting.choice, waiting.logits[None]
            except FovealError as error:
                for choice in waiting.live:
                    self._fail(choice, error)
            self._waiting.popleft()
            self._draw_all()

    def _decode(self) -> None:
        """If a step fails, the tokens that it did not append are there for the next one; who found no room is given up."""
        given = self._given()
        before = [(sequence, sequence.position) for sequence in given]
        failure: BaseException | None = None
        try:
            found = self.batch.step(given)
        except BaseException as error:  # an interrupt, too: no token may be appended twice by who goes on after it
            found = {one: one.rows for one, position in before if one.position > position and one.rows is not None}
            failure = error
        for sequence, logits in found.items():
            self._keep(sequence, np.atleast_2d(logits), given.get(sequence))
        if isinstance(failure, FovealError):
            self._note(failure)
        elif failure is not None:
            raise failure
        self._draw_all()

    def _keep(self, sequence: Sequence, logits: Logits, tokens: int | list[int] | None) -> None:
        """Logits that a step gave, after the tokens that it was given, if any."""
        if tokens is None and sequence in self._next:
            return  # it stood aside until its phase came: its next token is drawn already
        self._logits[sequence] = logits
        if tokens is not None:
            ahead = tokens[1:] if isinstance(tokens, list) else []
            if ahead:
                self._ahead[sequence] = ahead
            del self._next[sequence]
            self._drafting.appended(self._running[sequence], len(ahead))

    def _given(self) -> dict[Sequence, int | list[int]]:
        """What was drawn, and the drafts that are to be checked behind it: none after a step that failed, so that they are no
        reason for another."""
        drafting, running = self._drafting, self._running
        if len(self._next) > 1:
            drafting.realign(self._next)
        tokens = {one: token for one, token in self._next.items() if one.state == "ready"}
        awake = [] if self._failures else drafting.awake(tokens, running)
        if not awake:
            return {**tokens}
        drafts, count = dict[Sequence, Draft](), len(tokens)
        for sequence in awake:
            try:
                drafts[sequence] = drafting.draft(sequence, running[sequence], tokens[sequence], count)
            except self._of_choice as error:
                del tokens[sequence]
                self._give_up(sequence, running[sequence], error)
        leaving = drafting.leaving(drafts, running, count)
        return {**tokens, **{one: [tokens[one], *draft.tokens] for one, draft in leaving.items()}}

    def _note(self, failure: FovealError) -> None:
        """Of a step: of those that found no room, if there are any."""
        paused = [sequence for sequence in (*self._reading, *self._running) if sequence.state == "paused"]
        for sequence in paused:
            prompt = self._reading.get(sequence)
            choices = [self._running[sequence]] if prompt is None else prompt.live
            self._leave(sequence)
            for choice in choices:
                self._fail(choice, failure)
        if not paused:
            self._found.append(Drawn(None, error=failure))

    def _draw_all(self) -> None:
        """From the logits that there are, one after the other, so that an interrupt leaves those that come after it."""
        while self._logits:
            sequence, logits = next(iter(self._logits.items()))
            self._take(sequence, logits)
            if self._logits.get(sequence) is logits:
                del self._logits[sequence]

    def _take(self, sequence: Sequence, logits: Logits) -> None:
        """Logits of a sequence: those after a prompt, or after the tokens that it was given."""
        prompt = self._reading.get(sequence)
        if prompt is not None:
            self._part(sequence, prompt, logits[0])
            self._running[sequence] = prompt.live[0]
            del self._reading[sequence]
        choice = self._running[sequence]
        if choice.last is None:
            self._draw(sequence, choice, logits)
        else:
            self._give_last(sequence, choice, choice.last)

    def _part(self, sequence: Sequence, prompt: Prompt, logits: Logits) -> None:
        """Let all texts of a prompt but the first begin: in a free slot, or from a snapshot once there is one."""
        snapshot: Snapshot | None = None
        waiting = 0
        for choice in prompt.live[1:]:
            try:
                if self.batch.free_slots:  # it came before all that wait
                    self._running[self.batch.fork(sequence)] = choice
                else:
                    snapshot = snapshot or self.batch.snapshot(sequence)
                    self._waiting.insert(waiting, Branch(choice, snapshot, logits))
                    waiting += 1
            except FovealError as error:
                self._fail(choice, error)
            prompt.choices.remove(choice)

    def _draw(self, sequence: Sequence, choice: Choice, logits: Logits) -> None:
        """A token from the first of the logits; if it was drafted, it is there, and the next logits are those after it."""
        going, count, ahead = choice.continuation, len(choice.continuation.ids), self._ahead.get(sequence, [])
        seen = self.batch.tokens(sequence)[: sequence.position - len(ahead)]
        if choice.start is None:
            choice.start = len(seen)
        try:
            self._drafting.begin(choice)
            token, text = going.draw(logits[0], seen)
        except self._of_choice as error:  # whatever its own settings make of it is no matter of the others
            self._give_up(sequence, choice, error)
            return
        if token is not None:
            choice.fired.append(self.batch.fired(sequence, len(seen) - 1))
        if ahead and token == ahead[0]:
            self._logits[sequence], self._ahead[sequence] = logits[1:], ahead[1:]
            self._drafting.came(choice, token)
        else:
            self._take_back(sequence)
            if token is not None and len(seen) < self.batch.capacity:
                self._next[sequence] = token
            elif token is not None:
                text += going.finish("capacity")
        *found, last = choice.given_out(count, text)
        self._found += found
        if last.finish_reason is None:
            if last.token is not None or last.text:
                self._found.append(last)
            return
        choice.last = last
        if not choice.keeps_state or sequence not in self._next:
            self._give_last(sequence, choice, last)

    def _take_back(self, sequence: Sequence) -> None:
        """Drafts that did not come."""
        ahead = self._ahead.pop(sequence, None)
        if ahead:
            self.batch.rewind(sequence, len(ahead))

    def _give_last(self, sequence: Sequence, choice: Choice, last: Drawn) -> None:
        if choice.keeps_state:
            try:
                given_out = (choice.start or 0) + len(choice.continuation.ids)
                self.batch.rewind(sequence, max(sequence.position - given_out, 0))
                choice.snapshot = self.batch.snapshot(sequence)
            except FovealError:  # no memory, or rows that were compacted: its text is whole all the same
                choice.snapshot = None
        self._drop(choice, last, keep=False)

    def _give_up(self, sequence: Sequence, choice: Choice, error: BaseException) -> None:
        """A text, for what its own settings, or its drafts, raised."""
        self._leave(sequence)
        self._fail(choice, _as_foveals(error))

    def _fail(self, choice: Choice, error: FovealError) -> None:
        choice.continuation.finish("cancelled")
        self._found.append(Drawn(choice, error=error))

    def _leave(self, sequence: Sequence) -> None:
        choice = self._running.get(sequence)
        if choice is not None:
            choice.close()
        for of_sequence in (self._reading, self._running, self._logits, self._ahead, self._next):
            of_sequence.pop(sequence, None)
        self._drafting.left(sequence)
        self.batch.leave(sequence)


def _as_foveals(error: BaseException) -> FovealError:
    """What is no error of foveal's, as one."""
    if isinstance(error, FovealError):
        return error
    found = FovealError(f"choosing a token failed: {type(error).__name__}: {error}")
    found.__cause__ = error
    return found
