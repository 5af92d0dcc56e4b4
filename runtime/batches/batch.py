"""Many sequences at once, each at a position of its own: they join, decode and leave at any step (docs/adr/0022)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, cast

import numpy as np
import numpy.typing as npt

from ...bundle import ModelInfo
from ...contract import BEGINNING, begins_ahead, rewinds_of
from ...errors import CapacityError, ConfigError, InputError
from ..capacity import whole
from ..decoder import Observer
from ..decoder_factory import Engines
from ..given import seconds
from ..ids import checked_ids
from ..one_at_a_time import one_at_a_time
from ..rewinding import check_rewind
from ..rows import Ids
from ..scoring import SCORED_ROWS
from ..snapshots import Snapshot, check_restorable, room_for_copy
from .admission import Admission
from .batch_decoder import BatchDecoder
from .fired import FiredStages
from .pace import Pace
from .phases import Policy, check_policy
from .sequence import Sequence, State, Watch
from .slots import open_slots

PREFILL_SECONDS = 0.02
"""Between two steps: more makes a prompt's neighbours slower, less leaves slots empty (docs/batches.md)."""
_LAST = np.zeros(1, np.int64)


class Batch:
    """Decodes up to `slots` sequences together, a token of each in a step; `model.batch` opens one.

        with model.batch(slots=16) as batch:
            sequences = [batch.join(prompt) for prompt in prompts]
            logits = batch.step()                          # appends prompts; gives the logits of those that are done
            while not all(map(is_done, sequences)):
                logits = batch.step({sequence: choose(row) for sequence, row in logits.items()})

    A sequence takes a token once `step` has given its logits: a prompt is appended first, in chunks between decode steps, and
    then the sequence waits until it is in the phase of its slot (`phases.py`), for less than a period of steps. One that is
    given no token in the next step falls out of that phase: it stays exact, and costs calls of its own. So pause it if it is to
    rest, and do not wait for all prompts before the first token.

    The logits of every sequence are those that a session of its own gives, up to how the engine's kernels round for several
    rows. One call at a time, as in a session.

    Args:
        engines: of a model, that can work on slots.
        model: what they compute.
        slots: sequences that there is room for at once.
        capacity: the most tokens of each; None: as many as the engines hold of the model's context.
        policy: `staggered`: coarse stages fire for other sequences in every step; `aligned`: for all in the same.
        prefill_seconds: that appending prompts may take between two decode steps. A step takes longer by what one chunk was
            misjudged by. Without a sequence to decode, a prompt is appended in one call.
        bundle: what the engines are of, by which snapshots are told apart; empty: of no bundle.

    Raises:
        ConfigError: no whole number of slots, a policy that there is not, a time below 0, or more slots than engines take.
        CapacityError: a capacity beyond the model's positions or the engines', or state that finds no room in memory.
        EngineMismatchError: the engines were built when all sequences of a batch stood at the same position.
    """

    def __init__(
        self,
        engines: Engines,
        model: ModelInfo,
        slots: int,
        capacity: int | None = None,
        policy: Policy = "staggered",
        prefill_seconds: float = PREFILL_SECONDS,
        bundle: str = "",
    ) -> None:
        check_policy(policy)
        self.turn = threading.Lock()
        self.model, self.bundle, self.policy = model, bundle, policy
        self.slots = slots = whole("slots", slots, ConfigError)
        self.decoder, self._tokens, self.specs, self.capacity = open_slots(engines, model, slots, capacity)
        self._pace = Pace(seconds("prefill_seconds", prefill_seconds))
        self._admission = Admission(self.specs, slots, policy)
        self._begins_ahead, self._rewinds = begins_ahead(self.specs), rewinds_of(self.specs)
        self._fired, self._decides = FiredStages(self.specs), any(spec.clock is not None for spec in self.specs)

    @property
    def sequences(self) -> list[Sequence]:
        """All that have not left: those with a slot, by slot, and then those that wait for one."""
        return self._admission.sequences

    @property
    def free_slots(self) -> int:
        """How many sequences could join now without waiting."""
        return self._admission.free_slots

    @one_at_a_time
    def join(self, prompt: npt.ArrayLike, queue: bool = False, watch: Watch | None = None) -> Sequence:
        """Begin a sequence; the steps that follow append its prompt.

        Args:
            prompt: integers `[T]`, T at least 1.
            queue: whether to wait for a slot if none is free; slots are given in the order of joining.
            watch: called with the logits of all rows of the prompt as they are computed, in order, float32 `[N, V]` each time.

        Returns:
            The sequence, which takes no token until `step` gives its logits.

        Raises:
            InputError: an empty prompt, or ids that are no integers or outside the vocabulary.
            CapacityError: a prompt longer than the capacity, or no slot is free and it may not wait.
        """
        self._check_open()
        ids = self._checked_prompt(prompt, 0)
        return self._admission.admit(Sequence(ids, watch), queue)

    @one_at_a_time
    def extend(self, sequence: Sequence, ids: npt.ArrayLike, watch: Watch | None = None) -> None:
        """Append ids to a sequence as a prompt is appended; a step that follows gives the logits after the last.

        Args:
            sequence: one that is `ready`, such as one just restored.
            ids: integers `[T]`, T at least 1.
            watch: as of `join`.

        Raises:
            InputError: a sequence that takes no token now, or ids as in `join`; the sequence is unchanged.
            CapacityError: more than the sequence has room for; it is unchanged.
        """
        self._check_ready(sequence)
        sequence.pending = self._checked_prompt(ids, sequence.position)
        sequence.state, sequence.logits, sequence.watch = "prefilling", None, watch

    @one_at_a_time
    def step(self, tokens: Mapping[Sequence, int] | None = None) -> dict[Sequence, npt.NDArray[np.float32]]:
        """Append a token to each of some sequences, and a part of the prompts that are waiting.

        Args:
            tokens: the next id of sequences that are `ready`; the others stay where they are.

        Returns:
            Logits float32 `[V]` of all that take a token in the next step: of those given one, and of those whose prompt is
            appended and whose phase has come.

        Raises:
            InputError: a sequence of another batch, one that takes no token now, or an id that is none of the vocabulary's;
                nothing is changed.
            CapacityError: a sequence is full, or a call finds no room in memory, and no token was appended; or a part of a
                prompt finds none, whose sequence is paused then: the others have their logits (`Sequence.logits`), and go on.
        """
        given = self._checked_tokens({} if tokens is None else tokens)
        self._check_open()
        found = self._decode(given) if given else {}
        self._admission.steps += 1
        self._append_prompts()
        return {**found, **self._released()}

    def _decode(self, given: Mapping[Sequence, int]) -> dict[Sequence, npt.NDArray[np.float32]]:
        in_order = sorted(given, key=lambda sequence: sequence.slot)
        slots = np.array([sequence.slot for sequence in in_order])
        positions = np.array([sequence.position for sequence in in_order])
        try:
            for sequence in in_order:
                self._begin(sequence)
            self._tokens.array[slots, positions + self._tokens.lead] = [given[sequence] for sequence in in_order]
            logits = self.decoder.step(slots, positions)
        except MemoryError as error:
            raise CapacityError(
                f"a step of {len(given)} sequences finds no room in memory ({error}); let some leave"
            ) from error
        for sequence, of_one in zip(in_order, logits, strict=True):
            sequence.go_on(1)
            sequence.logits = of_one.copy()  # the caller may change what it is given
        return dict(zip(in_order, logits, strict=True))

    def _begin(self, sequence: Sequence) -> None:
        """Before the first token: fire what fires ahead of it."""
        if sequence.position == 0 and self._begins_ahead:
            self.decoder.prefill(sequence.slot, BEGINNING, 1, np.empty(0, np.int64))

    def _append_prompts(self) -> None:
        """For as long as decoding may wait; in the order in which they came."""
        self._admission.admit_queued()
        began, spent = time.perf_counter(), 0.0
        for sequence in sorted((one for one in self.sequences if one.state == "prefilling"), key=lambda one: one.number):
            while len(sequence.pending):
                is_awaited = any(one.state in ("ready", "waiting") for one in self.sequences)
                chunk = self._pace.chunk(spent) if is_awaited else len(sequence.pending)
                if sequence.watch:
                    chunk = min(chunk, SCORED_ROWS)
                if not chunk:
                    return
                self._append(sequence, min(chunk, len(sequence.pending)))
                spent = time.perf_counter() - began
            sequence.state = "waiting"

    def _append(self, sequence: Sequence, count: int) -> None:
        ids, rest = sequence.pending[:count], sequence.pending[count:]
        wanted = np.arange(count) if sequence.watch else _LAST[:0] if len(rest) else _LAST + count - 1
        began = time.perf_counter()
        try:
            self._begin(sequence)
            self._tokens.of(sequence.slot).write(sequence.position, ids[None])
            logits = self.decoder.prefill(sequence.slot, sequence.position, count, wanted)
        except (MemoryError, CapacityError) as error:
            sequence.state = "paused"
            raise CapacityError(
                f"{count:,} tokens of the prompt of {sequence} find no room ({error}); it was paused, and the others go on: "
                "let some leave and resume it, or let it leave"
            ) from error
        self._pace.took(count, time.perf_counter() - began)
        sequence.pending = rest
        sequence.go_on(count)
        if sequence.watch:
            sequence.watch(logits)
        sequence.logits = None if len(rest) else logits[-1].copy()

    def _released(self) -> dict[Sequence, npt.NDArray[np.float32]]:
        """Those whose phase the next step is of."""
        found = {}
        for sequence in self.sequences:
            if sequence.state == "waiting" and self._admission.is_in_phase(sequence):
                sequence.state = "ready"
                if sequence.logits is not None:
                    found[sequence] = sequence.logits.copy()
        return found

    @one_at_a_time
    def leave(self, sequence: Sequence) -> None:
        """End a sequence in any state, and free its slot or its place in the queue.

        Raises:
            InputError: it is of another batch, or has left.
        """
        self._admission.require(sequence)
        self._admission.release(sequence)

    @one_at_a_time
    def pause(self, sequence: Sequence) -> None:
        """Let a sequence rest; it keeps its slot.

        Raises:
            InputError: it is of another batch, has left, or waits for a slot.
        """
        self._check_live(sequence)
        sequence.state = "paused"

    @one_at_a_time
    def resume(self, sequence: Sequence) -> None:
        """Go on with a sequence that was paused: it takes a token once `step` gives its logits again, when its phase has come.

        One that was rewound, and so has none, takes a token at once.

        Raises:
            InputError: it was not paused.
        """
        self._check_live(sequence)
        if sequence.state != "paused":
            raise InputError(f"{sequence} was not paused; resume only what is")
        sequence.state = self._state_of(sequence)

    def _state_of(self, sequence: Sequence) -> State:
        """Of one that has a slot and is not paused."""
        if len(sequence.pending):
            return "prefilling"
        return "ready" if sequence.logits is None else "waiting"

    @one_at_a_time
    def rewind(self, sequence: Sequence, tokens: int) -> None:
        """Forget the last `tokens` tokens of a sequence, exactly; costs nothing, at any phase. It then takes a token at once.

        Raises:
            InputError: fewer tokens were seen, rows that they need have been compacted since, or its prompt is being appended.
        """
        self._check_live(sequence)
        tokens = whole("tokens", tokens, InputError)
        if len(sequence.pending):
            raise InputError(f"can't rewind {sequence}: its prompt is still being appended; let it leave, or wait")
        check_rewind(tokens, sequence.position, sequence.reached, self._rewinds, "the sequence")
        if tokens:
            sequence.position, sequence.logits = sequence.position - tokens, None
            sequence.reached = sequence.reached if sequence.position else 0
            sequence.state = sequence.state if sequence.state == "paused" else "ready"

    @one_at_a_time
    def fork(self, sequence: Sequence) -> Sequence:
        """A new sequence with the same past, which then goes its own way; it costs a copy of the rows written so far.

        It takes a token when `step` gives it the logits of the first, unless that was rewound: then at once.

        Raises:
            InputError: its prompt is still being appended, or it waits for a slot.
            CapacityError: no slot is free, or the copy finds no room in memory; the batch is unchanged.
        """
        self._check_live(sequence)
        if len(sequence.pending):
            raise InputError(f"can't fork {sequence}: its prompt is still being appended; wait until step gives its logits")
        with self._admitted(sequence.position) as forked:
            self._tokens.of(forked.slot).write(0, self._ids(sequence))
            self.decoder.fork(sequence.slot, forked.slot, sequence.position)
        forked.position, forked.reached = sequence.position, sequence.reached
        forked.logits = None if sequence.logits is None else sequence.logits.copy()
        forked.state = self._state_of(forked)
        return forked

    @one_at_a_time
    def snapshot(self, sequence: Sequence) -> Snapshot:
        """Copy everything a sequence has written so far, for a batch or a session of the same bundle.

        Raises:
            InputError: it waits for a slot, or has left.
            CapacityError: the copy finds no room in memory; the sequence is unchanged.
        """
        self._check_live(sequence)
        with room_for_copy(sequence.position):
            written = self.decoder.read(sequence.slot, sequence.position)
            return Snapshot(sequence.position, sequence.reached, 1, self.bundle, self._ids(sequence).copy(), written)

    @one_at_a_time
    def restore(self, snapshot: Snapshot) -> Sequence:
        """A new sequence at a snapshot, of a batch or of a session of one sequence; it takes a token at once.

        Raises:
            InputError: a snapshot of several sequences, of another bundle or of other engines; the batch is unchanged.
            CapacityError: the snapshot holds more tokens than this batch can, no slot is free, or the copy finds no room in
                memory; the batch is unchanged.
        """
        check_restorable(snapshot, self.bundle, 1, self.capacity, "this batch")
        with self._admitted(snapshot.position) as restored:
            self._tokens.of(restored.slot).write(0, snapshot.tokens)
            self.decoder.write(restored.slot, snapshot.written, snapshot.position)
        restored.position, restored.reached, restored.state = snapshot.position, snapshot.reached, "ready"
        return restored

    @contextmanager
    def _admitted(self, position: int) -> Iterator[Sequence]:
        """A new sequence whose past, of so many tokens, is copied in this block; if that fails, its slot is free again."""
        admitted = self._admission.admit(Sequence(np.empty(0, np.int64)), position=position)
        try:
            yield admitted
        except BaseException as error:
            self._admission.release(admitted)
            if isinstance(error, MemoryError):
                raise CapacityError(
                    f"a copy of {position:,} tokens' state finds no room ({error}); let some sequences leave"
                ) from error
            raise

    def tokens(self, sequence: Sequence) -> Ids:
        """The ids `[position]` of a sequence that were appended so far: a copy.

        Raises:
            InputError: it waits for a slot, or has left.
        """
        self._check_live(sequence)
        ids: Ids = self._ids(sequence)[0].copy()
        return ids

    def fired(self, sequence: Sequence) -> tuple[str, ...]:
        """The stages that the newest token of a sequence fired, in dataflow order; none before its first.

        Raises:
            InputError: it waits for a slot, or has left.
        """
        self._check_live(sequence)
        if not sequence.position:
            return ()
        found = self._fired.at(sequence.position - 1)
        if not self._decides:
            return found
        decided = self.decoder.decided(sequence.slot, sequence.position - 1)
        return tuple(spec.name for spec in self.specs if spec.name in found or spec.name in decided)

    def _ids(self, sequence: Sequence) -> Ids:
        return self._tokens.of(sequence.slot).seen(sequence.position)

    def _checked_prompt(self, prompt: npt.ArrayLike, position: int) -> Ids:
        ids = checked_ids(prompt, self.model.vocab_size, "the prompt's ids")
        if not len(ids):
            raise InputError("the prompt is empty, expected at least one token; these models have no start token")
        if position + len(ids) > self.capacity:
            raise CapacityError(
                f"the prompt has {len(ids)} tokens, a sequence of this batch room for {self.capacity - position} of "
                f"{self.capacity}; shorten the prompt, or open a batch with more capacity"
            )
        return ids

    def _checked_tokens(self, tokens: Mapping[Sequence, int]) -> dict[Sequence, int]:
        if not isinstance(tokens, Mapping):
            raise InputError(f"step takes the next id by sequence, {{sequence: id}}, got {type(tokens).__name__}")
        found = {}
        for sequence, token in tokens.items():
            self._check_ready(sequence)
            found[sequence] = whole("a token", token, InputError)
            if not 0 <= found[sequence] < self.model.vocab_size:
                raise InputError(f"id {token} is outside the vocabulary; expected 0 <= id < {self.model.vocab_size}")
            if sequence.position >= self.capacity:
                raise CapacityError(
                    f"{sequence} is full: it holds {self.capacity} tokens; let it leave or rewind it, or open a batch with "
                    "more capacity"
                )
        return found

    def _check_open(self) -> None:
        if isinstance(self.decoder, _Closed):
            self.decoder.refuse()

    def _check_ready(self, sequence: Sequence) -> None:
        self._admission.require(sequence)
        if sequence.state != "ready":
            raise InputError(f"{sequence} takes no token now: {sequence.advice}")

    def _check_live(self, sequence: Sequence) -> None:
        self._admission.require(sequence)
        if not sequence.is_live:
            raise InputError(f"{sequence} has no state yet: {sequence.advice}")

    @property
    def observer(self) -> Observer | None:
        """Called after every engine call with the stage, the slots it ran for, and the nanoseconds it took."""
        return self.decoder.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self.decoder.observer = observer

    @property
    def fires(self) -> dict[str, int]:
        """Firings of every stage so far, of all sequences; those that a range was filled up with do not count."""
        return self.decoder.fires

    @property
    def copied_bytes(self) -> int:
        """Bytes of rows copied so far, to bring together what stages read of several slots."""
        return self.decoder.copied_bytes

    @property
    def state_bytes(self) -> dict[str, int]:
        """Bytes reserved for each stage's caches and rows, of all slots."""
        return self.decoder.state_bytes

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @one_at_a_time
    def close(self) -> None:
        """Give all memory back; a call after that raises InputError."""
        self.decoder.close()
        for sequence in self.sequences:
            self._admission.release(sequence)
        self.decoder = cast(BatchDecoder, _Closed())


class _Closed:
    """In the place of a decoder whose memory was given back."""

    def close(self) -> None:
        """Nothing is left to do."""

    def refuse(self) -> NoReturn:
        """Say so."""
        raise InputError("the batch is closed: its buffers were given back; open another")

    def __getattr__(self, name: str) -> NoReturn:
        self.refuse()
