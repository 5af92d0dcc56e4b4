"""Many sequences at once, each at a position of its own: they join, decode and leave at any step (docs/adr/0022)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, NoReturn, cast

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
from ..speculation.step_costs import StepCosts
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
Logits = npt.NDArray[np.float32]


class Batch:
    """Decodes up to `slots` sequences together, a token of each in a step, or several of some; `model.batch` opens one.

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
        self.costs: StepCosts | None = None
        """Learns what the calls of decode steps take, as long as somebody wants to know."""

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
        sequence.state, sequence.logits, sequence.rows, sequence.watch = "prefilling", None, None, watch

    @one_at_a_time
    def step(self, tokens: Mapping[Sequence, int | SequenceOf[int]] | None = None) -> dict[Sequence, Logits]:
        """Append a token, or several, to each of some sequences, and a part of the prompts that are waiting.

        Several are those that may come, of which `rewind` takes back what does not: it costs nothing, and leaves the sequence
        as if they had never been appended. They are a call of the engines for that sequence alone, and it falls out of its
        phase unless their number is one more than a multiple of the period (`realign`).

        Args:
            tokens: the next id of sequences that are `ready`, or the next ids `[n]`; the others stay where they are.

        Returns:
            Logits float32 `[V]` of all that take a token in the next step: of those given one, and of those whose prompt is
            appended and whose phase has come; `[n, V]`, read-only, after each of `n` ids that were given in a sequence.

        Raises:
            InputError: a sequence of another batch, one that takes no token now, no ids, or one that is none of the
                vocabulary's; nothing is changed.
            CapacityError: a sequence is full, or a call finds no room in memory, and no token was appended; or a part of a
                prompt finds none, whose sequence is paused then: the others have their logits (`Sequence.logits`), and go on.
        """
        given = self._checked_tokens({} if tokens is None else tokens)
        self._check_open()
        found = self._decode(given) if given else {}
        self._admission.steps += 1
        self._append_prompts()
        return {**found, **self._released()}

    def _decode(self, given: Mapping[Sequence, _Given]) -> dict[Sequence, Logits]:
        in_order = sorted(given, key=lambda sequence: sequence.slot)
        try:
            for sequence in in_order:
                self._begin(sequence)
                sequence.reach(len(given[sequence].ids))
            rows = self._decode_together({one: given[one].ids[0] for one in in_order if len(given[one].ids) == 1})
            rows |= {one: self._decode_alone(one, given[one].ids) for one in in_order if len(given[one].ids) > 1}
        except (MemoryError, CapacityError) as error:
            raise CapacityError(
                f"a step of {len(given)} sequences finds no room in memory ({error}); let some leave"
            ) from error
        for sequence in in_order:
            sequence.go_on(len(given[sequence].ids), rows[sequence])
        return {one: _given_out(rows[one], given[one].are_several) for one in in_order}

    def _decode_together(self, tokens: Mapping[Sequence, int]) -> dict[Sequence, Logits]:
        """A token of each, by slot, in a step of all of them; logits `[1, V]` of each."""
        if not tokens:
            return {}
        slots = np.array([sequence.slot for sequence in tokens])
        positions = np.array([sequence.position for sequence in tokens])
        began = time.perf_counter()
        self._tokens.array[slots, positions + self._tokens.lead] = list(tokens.values())
        logits = self.decoder.step(slots, positions)
        if self.costs is not None:
            self.costs.together(positions, time.perf_counter() - began)
        return dict(zip(tokens, logits[:, None], strict=True))

    def _decode_alone(self, sequence: Sequence, ids: list[int]) -> Logits:
        """Several tokens of one; logits `[n, V]`, which the sequence shares with whoever asked."""
        count, began = len(ids), time.perf_counter()
        self._tokens.of(sequence.slot).write(sequence.position, np.array([ids]))
        logits = self.decoder.prefill(sequence.slot, sequence.position, count, np.arange(count))
        if self.costs is not None:
            self.costs.alone(sequence.position, count, time.perf_counter() - began)
        return logits

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
    def realign(self, sequence: Sequence) -> None:
        """Let a sequence that fell out of the phase of its slot wait until that comes; `step` gives its logits again then.

        One that stands in its phase, or that was rewound and has no logits, takes a token at once, as before.

        Raises:
            InputError: a sequence that takes no token now.
        """
        self._check_ready(sequence)
        if sequence.logits is not None and not self._admission.is_in_phase(sequence):
            sequence.state = "waiting"

    @property
    def rewinds(self) -> int | None:
        """The most tokens that a sequence can take back of those that it has seen; None: all."""
        return self._rewinds

    def is_in_phase(self, sequence: Sequence) -> bool:
        """Whether a sequence with a slot stands where that slot's phase is.

        Raises:
            InputError: it waits for a slot, or has left.
        """
        self._check_live(sequence)
        return self._admission.is_in_phase(sequence)

    @property
    def modulus(self) -> int:
        """Phases are told apart modulo this: a sequence waits for its own for less than so many steps."""
        return self._admission.modulus

    @one_at_a_time
    def rewind(self, sequence: Sequence, tokens: int) -> None:
        """Forget the last `tokens` tokens of a sequence, exactly; costs nothing, at any phase. It then takes a token at once.

        Of the tokens that the newest step appended some may be left: then there are the logits after the last of them.

        Raises:
            InputError: fewer tokens were seen, rows that they need have been compacted since, or its prompt is being appended.
        """
        self._check_live(sequence)
        tokens = whole("tokens", tokens, InputError)
        if len(sequence.pending):
            raise InputError(f"can't rewind {sequence}: its prompt is still being appended; let it leave, or wait")
        check_rewind(tokens, sequence.position, sequence.reached, self._rewinds, "the sequence")
        if tokens:
            sequence.go_back(tokens)
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

    def fired(self, sequence: Sequence, position: int | None = None) -> tuple[str, ...]:
        """The stages that the token at a position of a sequence fired, in dataflow order; none before its first.

        Args:
            sequence: with a slot.
            position: of one of its tokens; None: the newest.

        Raises:
            InputError: it waits for a slot, or has left; or it has no token there.
        """
        self._check_live(sequence)
        if position is None:
            position = sequence.position - 1
        elif not 0 <= position < sequence.position:
            raise InputError(f"{sequence} has no token at position {position}; give one of its own, from 0")
        if position < 0:
            return ()
        found = self._fired.at(position)
        if not self._decides:
            return found
        decided = self.decoder.decided(sequence.slot, position)
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

    def _checked_tokens(self, tokens: Mapping[Sequence, int | SequenceOf[int]]) -> dict[Sequence, _Given]:
        if not isinstance(tokens, Mapping):
            raise InputError(f"step takes the next id by sequence, {{sequence: id}}, got {type(tokens).__name__}")
        found = {}
        for sequence, given in tokens.items():
            self._check_ready(sequence)
            found[sequence] = self._checked_given(given)
            room, count = self.capacity - sequence.position, len(found[sequence].ids)
            if count > room:
                wanted = "" if count == 1 else f", and {count} tokens were given"
                what = "is full: it holds" if room <= 0 else f"has room for {room}: it holds {sequence.position} of"
                raise CapacityError(
                    f"{sequence} {what} {self.capacity} tokens{wanted}; let it leave or rewind it, or open a batch with "
                    "more capacity"
                )
        return found

    def _checked_given(self, given: int | SequenceOf[int]) -> _Given:
        if isinstance(given, list | tuple | np.ndarray) and np.ndim(given):
            ids = checked_ids(given, self.model.vocab_size, "the tokens").tolist()
            if not ids:
                raise InputError("got no tokens for a sequence, expected at least one; leave it out, and it stays where it is")
            return _Given(ids, True)
        token = whole("a token", given, InputError)
        if not 0 <= token < self.model.vocab_size:
            raise InputError(f"id {given} is outside the vocabulary; expected 0 <= id < {self.model.vocab_size}")
        return _Given([token], False)

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


def _given_out(rows: Logits, are_several: bool) -> Logits:
    """What is kept with the sequence is not to be changed by who asked: a copy of one row, or rows that can't be written."""
    if are_several:
        rows.setflags(write=False)
        return rows
    row: Logits = rows[0].copy()
    return row


class _Given(NamedTuple):
    """Tokens of one sequence for a step, and whether they came as several."""

    ids: list[int]
    are_several: bool


class _Closed:
    """In the place of a decoder whose memory was given back."""

    def close(self) -> None:
        """Nothing is left to do."""

    def refuse(self) -> NoReturn:
        """Say so."""
        raise InputError("the batch is closed: its buffers were given back; open another")

    def __getattr__(self, name: str) -> NoReturn:
        self.refuse()
