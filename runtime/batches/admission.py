"""Who has which slot of a batch, who waits for one, and whose phase has come."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import numpy as np

from ...contract import StageSpec
from ...errors import CapacityError, InputError
from .phases import Policy, best_slot, modulus_of, phases_of
from .sequence import Sequence


class Admission:
    """Slots of a batch, each with a phase, and a queue before them.

    Args:
        specs: of the stages.
        slots: how many.
        policy: how phases are given to slots.
    """

    def __init__(self, specs: SequenceOf[StageSpec], slots: int, policy: Policy) -> None:
        self._specs = specs
        self._phases, self.modulus = phases_of(specs, slots, policy), modulus_of(specs, policy)
        self._in_slot: list[Sequence | None] = [None] * slots
        self._queue: list[Sequence] = []
        self._joined = self.steps = 0

    @property
    def sequences(self) -> list[Sequence]:
        """All that have not left: those with a slot, by slot, and then those that wait for one."""
        return [*(sequence for sequence in self._in_slot if sequence is not None), *self._queue]

    @property
    def free_slots(self) -> int:
        """How many sequences could join now without waiting."""
        return self._in_slot.count(None)

    def admit(self, sequence: Sequence, queue: bool = False, position: int | None = None) -> Sequence:
        """Give it a slot: one whose phase it is in already, if it stands at a position; or let it wait for one.

        Raises:
            CapacityError: no slot is free, and it may not wait.
        """
        self.admit_queued()  # who waits for a slot that was left since the last step comes first
        if self.free_slots:
            self._take_slot(sequence, position)
        elif queue:
            self._queue.append(sequence)
        else:
            raise CapacityError(
                f"the batch is full: all {len(self._in_slot)} slots are taken; let a sequence leave, open a batch with more "
                "slots, or have it wait (queue=True)"
            )
        sequence.number = self._joined
        self._joined += 1
        return sequence

    def admit_queued(self) -> None:
        """Give free slots to those that wait, in the order in which they came."""
        while self._queue and self.free_slots:
            self._take_slot(self._queue.pop(0))

    def _take_slot(self, sequence: Sequence, position: int | None = None) -> None:
        taken = np.array([one is not None for one in self._in_slot])
        free = np.flatnonzero(~taken).tolist() if position is not None else []
        fitting = [slot for slot in free if self._is_in_phase(slot, position or 0)]
        sequence.slot = fitting[0] if fitting else best_slot(self._specs, self._phases, taken)
        self._in_slot[sequence.slot] = sequence
        sequence.state = "prefilling"

    def release(self, sequence: Sequence) -> None:
        """Take it out of its slot, or out of the queue."""
        if sequence.is_live:
            self._in_slot[sequence.slot] = None
        else:
            self._queue.remove(sequence)
        sequence.state, sequence.slot, sequence.pending = "left", -1, sequence.pending[:0]

    def is_in_phase(self, sequence: Sequence) -> bool:
        """Whether the next step is one in which its slot's phase comes."""
        return self._is_in_phase(sequence.slot, sequence.position)

    def _is_in_phase(self, slot: int, position: int) -> bool:
        return (position - self.steps - self._phases[slot]) % self.modulus == 0

    def require(self, sequence: Sequence) -> None:
        """Raise InputError for what is no sequence of this batch, or has left it."""
        if not isinstance(sequence, Sequence):
            raise InputError(f"expected a sequence that join gave, got {type(sequence).__name__}")
        if sequence.state == "left":
            raise InputError(f"{sequence} takes no token any more: {sequence.advice}")
        at = self._in_slot[sequence.slot : sequence.slot + 1]
        is_here = at == [sequence] if sequence.is_live else sequence in self._queue
        if not is_here:
            raise InputError(f"{sequence} is of another batch; hand it to the one that it joined")
