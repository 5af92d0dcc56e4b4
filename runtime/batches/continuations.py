"""Continuations of many requests in the slots of one batch: who waits, who decodes, and what every step draws."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import FovealError
from ..generation.continuation import Continuation, FinishReason
from ..generation.request import Request
from ..logprobs import TokenLogprobs
from ..scoring import PromptScorer
from ..snapshots import Snapshot
from .batch import Batch
from .sequence import Sequence

Logits = npt.NDArray[np.float32]


class Choice:
    """One text of a request.

    Attributes:
        owner: whose it is, as told by who added it.
        index: which of the request's texts.
        continuation: its tokens.
        scorer: has the prompt's log probabilities, if the settings ask for them, once a token was drawn.
        restored: tokens of its prompt that were not computed, but taken from a snapshot.
        keeps_state: whether its state is wanted at the end; its last token is appended then.
        snapshot: of its state, after such an end; None if no memory was left for it.
        start: position of its first new token, once there is one.
    """

    def __init__(self, owner: Any, index: int, request: Request, keeps_state: bool, restored: int) -> None:
        self.owner, self.index, self.keeps_state, self.restored = owner, index, keeps_state, restored
        self.continuation = Continuation(request.choice(index))
        self.scorer: PromptScorer | None = None
        self.snapshot: Snapshot | None = None
        self.last: Drawn | None = None
        self.start: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether it draws no more; its state may still have to be taken."""
        return self.continuation.finish_reason is not None


@dataclass(frozen=True)
class Drawn:
    """What a step brought to a choice.

    Attributes:
        choice: whose; None: the step failed for all, and what it did not append is there for the next.
        text: that became certain.
        token: the id that was drawn, if it is given out.
        logprobs: of the token, if asked for.
        position: of the token in its sequence; -1 without one.
        finish_reason: why it ended; None: it goes on, or ended with an error.
        error: it ended with.
    """

    choice: Choice | None
    text: str = ""
    token: int | None = None
    logprobs: TokenLogprobs | None = None
    position: int = -1
    finish_reason: FinishReason | None = None
    error: FovealError | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.choice is not None and (self.finish_reason is not None or self.error is not None)


@dataclass(frozen=True, eq=False)
class _Prompt:
    """To be read, after a snapshot or by itself, for all texts of a request."""

    request: Request
    choices: list[Choice]
    snapshot: Snapshot | None

    @property
    def live(self) -> list[Choice]:
        return [choice for choice in self.choices if not choice.is_over]

    def begin(self, batch: Batch) -> Sequence:
        watch = None if self.choices[0].scorer is None else self.choices[0].scorer.take
        if self.snapshot is None:
            return batch.join(self.request.ids, watch=watch)
        sequence = batch.restore(self.snapshot)
        try:
            ids = self.request.ids
            if not len(ids):  # go on from what is there: its last token gives the logits again
                ids = batch.tokens(sequence)[-1:].tolist()
                batch.rewind(sequence, 1)
            batch.extend(sequence, ids, watch=watch)
        except BaseException:
            batch.leave(sequence)
            raise
        return sequence


@dataclass(frozen=True, eq=False)
class _Branch:
    """Another text after a prompt that was read when no slot was free for it."""

    choice: Choice
    snapshot: Snapshot
    logits: Logits

    @property
    def live(self) -> list[Choice]:
        return [] if self.choice.is_over else [self.choice]


class Continuations:
    """Continues requests in the slots of a batch. All calls come from one thread at a time.

    Args:
        batch: that has nothing else to do.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._waiting: deque[_Prompt | _Branch] = deque()
        self._reading: dict[Sequence, _Prompt] = {}
        self._running: dict[Sequence, Choice] = {}
        self._next: dict[Sequence, int] = {}
        self._found: list[Drawn] = []

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
        return not (self._waiting or self._reading or self._running)

    def add(
        self,
        request: Request,
        owner: Any = None,
        count: int = 1,
        snapshot: Snapshot | None = None,
        keeps_state: bool = False,
    ) -> list[Choice]:
        """Let `count` texts of a request begin when there is room; its prompt is read once.

        Args:
            request: what to continue.
            owner: handed back with what is drawn.
            count: how many texts; each has a seed of its own.
            snapshot: of a sequence that the prompt comes after; None: it begins one.
            keeps_state: whether the state of the first text is wanted at its end.
        """
        restored = 0 if snapshot is None else snapshot.position
        choices = [Choice(owner, index, request, keeps_state and not index, restored) for index in range(count)]
        if request.params.prompt_logprobs is not None:
            scorer = PromptScorer(request.ids, request.params.prompt_logprobs)
            for choice in choices:
                choice.scorer = scorer
        self._waiting.append(_Prompt(request, choices, snapshot))
        return choices

    def step(self) -> list[Drawn]:
        """Let those that wait have free slots, append what was drawn, and draw the next.

        What can't be taken, or can't go on, ends with its error; the others go on.
        """
        self._expire()
        self._admit()
        if self._reading or self._running:
            self._decode()
        return self._taken()

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
        for choice in choices:
            sequence = self._sequence_of(choice)
            if choice.is_over and sequence is None:
                continue
            drawn = choice.last or self._ended(choice, reason)
            if sequence is not None and keep and choice.keeps_state:
                choice.last = drawn
                continue
            if sequence is not None:
                self._leave(sequence)
            self._found.append(drawn)
        self._drop_dead()
        return self._taken()

    def _ended(self, choice: Choice, reason: FinishReason) -> Drawn:
        count = len(choice.continuation.ids)
        *found, last = self._given_out(choice, count, choice.continuation.finish(reason))
        self._found += found
        return last

    def close(self) -> None:
        """Drop all, and give the batch's memory back."""
        self._waiting.clear()
        self._reading, self._running, self._next = {}, {}, {}
        self.batch.close()

    def _sequence_of(self, choice: Choice) -> Sequence | None:
        return next((sequence for sequence, one in self._running.items() if one is choice), None)

    def _drop_dead(self) -> None:
        """Prompts that nobody waits for any more."""
        self._waiting = deque(one for one in self._waiting if one.live)
        for sequence, prompt in list(self._reading.items()):
            if not prompt.live:
                self._leave(sequence)

    def _expire(self) -> None:
        """End what has had no token when its time is over; what has any is looked at after each."""
        for waiting in [*self._waiting, *self._reading.values()]:
            for choice in waiting.live:
                if choice.continuation.request.is_late:
                    choice.continuation.finish("deadline")
                    self._found.append(Drawn(choice, finish_reason="deadline"))
        self._drop_dead()

    def _admit(self) -> None:
        """In the order in which they came."""
        while self._waiting and self.batch.free_slots:
            waiting = self._waiting.popleft()
            try:
                if isinstance(waiting, _Prompt):
                    self._reading[waiting.begin(self.batch)] = waiting
                else:
                    sequence = self.batch.restore(waiting.snapshot)
                    self._running[sequence] = waiting.choice
                    self._draw(sequence, waiting.logits)
            except FovealError as error:
                for choice in waiting.live:
                    self._fail(choice, error)

    def _decode(self) -> None:
        """If a step fails, the tokens that it did not append are there for the next one; who found no room is given up."""
        before = [(sequence, sequence.position) for sequence in self._next]
        failure: BaseException | None = None
        try:
            found = self.batch.step(self._next)
        except BaseException as error:  # an interrupt, too: no token may be appended twice by who goes on after it
            found = {one: one.logits for one, position in before if one.position > position and one.logits is not None}
            failure = error
        for sequence in found:
            self._next.pop(sequence, None)
        for sequence, logits in found.items():
            self._take(sequence, logits)
        if isinstance(failure, FovealError):
            self._note(failure)
        elif failure is not None:
            raise failure

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

    def _take(self, sequence: Sequence, logits: Logits) -> None:
        """Logits of a sequence: those after a prompt, or after the token that it was given."""
        prompt = self._reading.pop(sequence, None)
        if prompt is not None:
            first, *others = prompt.live
            self._running[sequence] = first
            self._branch(sequence, others, logits)
        choice = self._running[sequence]
        if choice.last is None:
            self._draw(sequence, logits)
        else:
            self._give_last(sequence, choice, choice.last)

    def _branch(self, sequence: Sequence, others: list[Choice], logits: Logits) -> None:
        """Let the other texts of a prompt begin: in a free slot, or from a snapshot once there is one."""
        snapshot: Snapshot | None = None
        later: list[_Prompt | _Branch] = []
        for choice in others:
            try:
                if self.batch.free_slots and not self._waiting:
                    self._running[self.batch.fork(sequence)] = choice
                    continue
                snapshot = snapshot or self.batch.snapshot(sequence)
                later.append(_Branch(choice, snapshot, logits.copy()))
            except FovealError as error:
                self._fail(choice, error)
        self._waiting.extendleft(reversed(later))

    def _draw(self, sequence: Sequence, logits: Logits) -> None:
        choice = self._running[sequence]
        going, count = choice.continuation, len(choice.continuation.ids)
        seen = self.batch.tokens(sequence)
        if choice.start is None:
            choice.start = len(seen)
        try:
            token, text = going.draw(logits, seen)
        except FovealError as error:
            self._leave(sequence)
            self._fail(choice, error)
            return
        has_room = sequence.position < self.batch.capacity
        if not has_room:
            text += going.finish("capacity")
        *found, last = self._given_out(choice, count, text)
        self._found += found
        if going.finish_reason is None:
            if last.token is not None or last.text:
                self._found.append(last)
        elif not choice.keeps_state or token is None or not has_room:
            self._give_last(sequence, choice, last)
            return
        else:
            choice.last = last  # once its token is appended, too
        if token is not None:
            self._next[sequence] = token

    def _given_out(self, choice: Choice, count: int, text: str) -> list[Drawn]:
        """What is new of a choice that had given out so many tokens: one for each, at least one; the last has the text."""
        going, start = choice.continuation, choice.start or 0
        new = [Drawn(choice, token=token, position=start + count + place) for place, token in enumerate(going.ids[count:])]
        if going.sampler.logprobs:
            new = [replace(one, logprobs=going.sampler.logprobs[one.position - start]) for one in new]
        *found, last = new or [Drawn(choice)]
        return [*found, replace(last, text=text, finish_reason=going.finish_reason)]

    def _give_last(self, sequence: Sequence, choice: Choice, last: Drawn) -> None:
        if choice.keeps_state:
            try:
                self.batch.rewind(sequence, choice.continuation.withheld)
                choice.snapshot = self.batch.snapshot(sequence)
            except FovealError:  # no memory: its text is whole all the same
                choice.snapshot = None
        self._leave(sequence)
        self._found.append(last)

    def _fail(self, choice: Choice, error: FovealError) -> None:
        choice.continuation.finish("cancelled")
        self._found.append(Drawn(choice, error=error))

    def _leave(self, sequence: Sequence) -> None:
        self._reading.pop(sequence, None)
        self._running.pop(sequence, None)
        self._next.pop(sequence, None)
        self.batch.leave(sequence)
