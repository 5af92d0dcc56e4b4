"""One sequence (or batch) being decoded: a position, and a decoder that fires the stages."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn, cast

import numpy as np
import numpy.typing as npt

from ..bundle import ModelInfo
from ..contract import BEGINNING, StageSpec, begins_ahead, leads_of, rewinds_of
from ..errors import CapacityError, ConfigError, InputError
from .capacity import capacity_for, room_for_state, whole
from .decoder import Decoder, Observer
from .decoder_factory import Engines
from .drawing import check_drawn, check_draws
from .host import HostDecoder
from .one_at_a_time import one_at_a_time
from .rewinding import check_rewind
from .rows import Array, TokenLog
from .sampling import SamplingParams
from .schedules import Schedule
from .snapshots import Snapshot, check_restorable, room_for_copy
from .state_copies import COPIES_BYTES, checked_copies_bytes


class Session:
    """Decodes `batch` sequences in step, from any position, with every buffer allocated once.

    All state is append-only and addressed by absolute index: the position is the only thing that changes when the session is
    rewound. One call at a time: a second one, from another thread, raises SessionBusyError and changes nothing. As a context
    manager it drops its buffers at the end; a call after that raises InputError.

    Args:
        engines: of a model, in the host's memory or on a device.
        model: what they compute.
        batch: sequences.
        capacity: the most tokens of each; None: as many as the engines hold of the model's context.
        overlap: run stages that a decode step does not wait for in a thread beside the others; in the host's memory only, and
            of use only with a CPU to spare. On a device the engines say whether they run beside.
        bundle: what the engines are of, by which snapshots are told apart; empty: of no bundle.
        copies_bytes: for copies of recurrent state, where the model has any: with more of them a rewind costs less.

    Raises:
        ConfigError: a batch below 1.
        CapacityError: a capacity below 1 or beyond the model's positions, or state that finds no room in memory.
    """

    def __init__(
        self,
        engines: Engines,
        model: ModelInfo,
        batch: int = 1,
        capacity: int | None = None,
        overlap: bool = False,
        bundle: str = "",
        copies_bytes: int = COPIES_BYTES,
    ) -> None:
        batch = whole("batch", batch, ConfigError)
        if batch < 1:
            raise ConfigError(f"batch must be at least 1, got {batch}")
        self.turn = threading.Lock()
        self.copies_bytes = checked_copies_bytes(copies_bytes)
        self.engines, self.model, self.batch, self.overlap, self.bundle = engines, model, batch, overlap, bundle
        self.capacity = capacity_for(engines, model, capacity)
        self.position, self._reached, self._last = 0, 0, np.zeros(1, np.int64)
        self.specs = [engine.spec for engine in engines] if isinstance(engines, Sequence) else engines.specs
        self._begins_ahead, self._rewinds = begins_ahead(self.specs), rewinds_of(self.specs)
        with room_for_state(batch, self.capacity):
            self._tokens = token_log(self.specs, batch, self.capacity)
            self.decoder = self._open(engines)

    def _open(self, engines: Engines) -> Decoder:
        if isinstance(engines, Sequence):
            return HostDecoder.open(engines, self._tokens, self.batch, self.capacity, self.overlap, self.copies_bytes)
        return engines.decoder(self._tokens, self.batch, self.capacity, self.copies_bytes)

    @one_at_a_time
    def advance(self, ids: npt.ArrayLike, last_only: bool = False) -> npt.NDArray[np.float32]:
        """Append tokens to every sequence and return their logits; prefill and decode are this one call.

        Args:
            ids: integers `[B, L]`, L at least 1.
            last_only: compute the head for the last row only.

        Returns:
            float32 `[B, L, V]`, or `[B, 1, V]` with `last_only`; row t predicts the token after `ids[:, t]`. The caller's own.

        Raises:
            InputError: ids of another shape or dtype, or outside the vocabulary; the session is unchanged.
            CapacityError: more tokens than the session can hold, or logits that find no room in memory; the session is
                unchanged.
        """
        tokens = self._checked_ids(ids)
        length = tokens.shape[1]
        self._last[0] = length - 1
        wanted = self._last if last_only else np.arange(length)
        try:
            self._begin()
            self._tokens.write(self.position, tokens)
            logits = self.decoder.run(self.position, length, wanted)
        except MemoryError as error:
            raise CapacityError(
                f"a call of {self.batch} x {length:,} tokens, of which {len(wanted):,} give logits, finds no room ({error}); "
                "append fewer tokens in a call, or ask for the last logits alone: last_only=True"
            ) from error
        self._go_on(length)
        return logits

    def _begin(self) -> None:
        """Before the first token: fire what fires ahead of it."""
        if self.position == 0 and self._begins_ahead:
            self.decoder.run(BEGINNING, 1, np.empty(0, np.int64))

    def _go_on(self, tokens: int) -> None:
        self.position += tokens
        self._reached = max(self._reached, self.position)

    @property
    def rewinds(self) -> int | None:
        """The most tokens that can be taken back of those that it has seen; None: all."""
        return self._rewinds

    @property
    def draws(self) -> bool:
        """Whether `draw` can be used: on a device, with engines that have a sampler."""
        return self.decoder.draws

    @one_at_a_time
    def draw(
        self, ids: npt.ArrayLike, count: int, params: SamplingParams, uniform: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """Append a token to every sequence, draw the next, append that, and so on, without the host in between.

        Args:
            ids: integers `[B, 1]`.
            count: how many to append, and to draw.
            params: temperature, top_p, min_p, and a top_k between 1 and `CANDIDATES` unless greedy (`drawing.can_draw`).
            uniform: a number of [0, 1) for each draw, `[count, B]`.

        Returns:
            The tokens drawn, int64 `[B, count]`; the last of them is not appended.

        Raises:
            ConfigError: these engines draw no tokens.
            InputError, CapacityError: as `advance`, and settings or numbers that it can't draw by, or logits that are not
                finite; the session is unchanged.
        """
        tokens, count = self._checked_ids(ids), whole("count", count, InputError)
        if count < 1:
            raise InputError(f"count must be at least 1, got {count}")
        if tokens.shape[1] != 1:
            raise InputError(f"draw begins with one id of each sequence, got {tokens.shape[1]}; append the others by advance")
        self._check_room(count)
        uniform = check_draws(params, uniform, (count, self.batch))
        self._begin()
        self._tokens.write(self.position, tokens)
        drawn = self.decoder.draw(self.position, count, params, uniform)
        check_drawn(drawn)
        self._tokens.write(self.position + 1, drawn[:, :-1])
        self._go_on(count)
        return drawn

    @one_at_a_time
    def reset(self) -> None:
        """Start again at position 0."""
        self.position = self._reached = 0

    @one_at_a_time
    def rewind(self, tokens: int) -> None:
        """Forget the last `tokens` tokens, exactly; costs nothing, at any phase.

        But for recurrent state, where the model has any: the next call takes it from a copy, and runs the rows since again.

        Raises:
            InputError: fewer tokens were seen, or rows that they need have been compacted since.
        """
        tokens = whole("tokens", tokens, InputError)
        check_rewind(tokens, self.position, self._reached, self._rewinds, "the session")
        position = self.position - tokens
        self.position = position
        if position == 0:
            self._reached = 0

    @one_at_a_time
    def snapshot(self) -> Snapshot:
        """Copy everything written so far.

        Raises:
            CapacityError: the copy finds no room in memory; the session is unchanged.
        """
        with room_for_copy(self.position):
            written = self.decoder.read(self.position)
            return Snapshot(self.position, self._reached, self.batch, self.bundle, self.tokens.copy(), written)

    @one_at_a_time
    def restore(self, snapshot: Snapshot) -> None:
        """Go back (or forward) to a snapshot of a session of the same model and batch.

        Raises:
            InputError: another batch, or a snapshot of another bundle or other engines; the session is unchanged.
            CapacityError: the snapshot holds more tokens than this session can.
        """
        check_restorable(snapshot, self.bundle, self.batch, self.capacity, "this session")
        self.decoder.write(snapshot.written, snapshot.position)
        self._tokens.write(0, snapshot.tokens)
        self.position, self._reached = snapshot.position, snapshot.reached

    def fork(self) -> Session:
        """A new session with the same past, which then goes its own way."""
        moment = self.snapshot()
        forked = Session(self.engines, self.model, self.batch, self.capacity, self.overlap, self.bundle, self.copies_bytes)
        forked.restore(moment)
        return forked

    @property
    def observer(self) -> Observer | None:
        """Called after every engine call; setting it lets each stage be waited for, which takes time."""
        return self.decoder.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self.decoder.observer = observer

    @property
    def fires(self) -> dict[str, int]:
        """Firings of every stage since the session began."""
        return self.decoder.fires

    @property
    def copied_bytes(self) -> int:
        """Bytes of state copied since the session began: 0 as long as every engine works in place."""
        return self.decoder.copied_bytes

    @property
    def state_bytes(self) -> dict[str, int]:
        """Bytes reserved for each stage's caches and rows."""
        return self.decoder.state_bytes

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """A view of the ids `[B, position]` seen so far."""
        return self._tokens.seen(self.position)

    @property
    def schedule(self) -> Schedule:
        """What the data decided so far, by clock; of several sequences, that of the first: they fire in step.

        Empty of a model whose stages all fire by a fixed stride.
        """
        return self.decoder.schedule(self.position)

    def follow(self, schedule: Schedule | None) -> None:
        """Fire by another sequence's schedule from now on, whatever the data says; None: by the data again.

        For comparing precisions: under one schedule, they differ by what they compute alone. Boundaries that were made stay;
        tokens after those of the schedule fire by the data.

        Raises:
            InputError: a schedule of another model.
        """
        if schedule is not None and any(spec.clock is not None and spec.clock not in schedule for spec in self.specs):
            raise InputError("the schedule is of another model: it says nothing of some of this one's clocks")
        self.decoder.follow(schedule)

    def output_rows(self, stage: str) -> Array:
        """The rows `[rows, B, D]` a stage has given so far; the stage that gives logits keeps none.

        Raises:
            ConfigError: no such stage, or the one that gives logits.
        """
        for index, spec in enumerate(self.specs):
            rows = self.decoder.rows(index, self.position) if spec.name == stage else None
            if rows is not None:
                return rows[leads_of(self.specs)[stage] :]
        raise ConfigError(
            f'no rows are kept for stage "{stage}"; stages with rows: {[s.name for s in self.specs if s.output == "hidden"]}'
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    @one_at_a_time
    def _close(self) -> None:
        closed = _Closed(self.decoder)
        self.decoder.close()
        self.decoder = cast(Decoder, closed)

    def _checked_ids(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        given = _as_array(ids)
        if given.ndim != 2 or given.shape[0] != self.batch or given.shape[1] == 0:
            raise InputError(
                f"ids have shape {list(given.shape)}, expected [{self.batch}, L] with L >= 1: "
                "a row of ids for each sequence of the batch, such as [[17, 4, 99]] for one"
            )
        if given.dtype.kind not in "iu":
            raise InputError(
                f"ids have dtype {given.dtype}, expected integers below {self.model.vocab_size}; "
                "convert them, for instance with ids.astype(int)"
            )
        length = given.shape[1]
        self._check_room(length)
        lowest, highest = (given.item(),) * 2 if given.size == 1 else (int(given.min()), int(given.max()))
        if lowest < 0 or highest >= self.model.vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise InputError(f"id {wrong} is outside the vocabulary; expected 0 <= id < {self.model.vocab_size}")
        return np.ascontiguousarray(given, np.int64)

    def _check_room(self, tokens: int) -> None:
        if self.position + tokens > self.capacity:
            raise CapacityError(
                f"the session holds {self.position} of at most {self.capacity} tokens, got {tokens} more; "
                "rewind or reset it, or open one with more capacity"
            )


class _Closed:
    """In the place of a decoder whose memory was given back: it has counted, but what it would compute now is not there."""

    def __init__(self, decoder: Decoder) -> None:
        self.fires, self.copied_bytes, self.observer = decoder.fires, decoder.copied_bytes, decoder.observer
        self.state_bytes: dict[str, int] = {}

    def close(self) -> None:
        """Nothing is left to do."""

    def __getattr__(self, name: str) -> NoReturn:
        raise InputError("the session is closed: its buffers were given back at the end of its `with` block; open another")


def _as_array(ids: npt.ArrayLike) -> Array:
    """What was given as an array; numpy refuses rows of several lengths, and says so of `inhomogeneous parts`."""
    try:
        return np.asarray(ids)
    except (ValueError, TypeError) as error:
        lengths = sorted({len(row) for row in ids if hasattr(row, "__len__")}) if isinstance(ids, Sequence) else []
        found = f"rows of {' and '.join(map(str, lengths))} ids" if len(lengths) > 1 else f"no array ({error})"
        raise InputError(
            f"the sequences of a batch are appended in step, so every row has as many ids; got {found}: "
            "append as many of each, or use a session for each sequence"
        ) from None


def token_log(specs: Sequence[StageSpec], batch: int, capacity: int) -> TokenLog:
    """With as many ids before the first as a stage's window may reach back."""
    reaches = [given.reach for spec in specs for given in spec.inputs if given.source is None]
    return TokenLog.allocate(max(reaches, default=0), capacity, batch)
