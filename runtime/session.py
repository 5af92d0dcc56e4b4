"""One sequence (or batch) being decoded: buffers, a position, and the interpreter that fires the stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ..bundle import ModelInfo
from ..contract import StageSpec
from ..errors import CapacityError, ConfigError, InputError
from .engines.base import BoundStage, Engine
from .rows import Array, Block, RowLog, TokenLog

Observer = Callable[[StageSpec, int, int], None]
"""Called after every engine call with the stage, the number of firings and the nanoseconds it took."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of everything a session had written up to `position`; opaque, restorable into any session of the same shape."""

    position: int
    batch: int
    tokens: Array
    rows: tuple[Array, ...]
    caches: tuple[tuple[Array, ...], ...]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(array.nbytes for array in (self.tokens, *self.rows, *(cache for caches in self.caches for cache in caches)))


@dataclass(frozen=True)
class _Step:
    """A stage, its engine's caches, and the logs it reads and writes."""

    spec: StageSpec
    bound: BoundStage
    sources: tuple[RowLog | TokenLog, ...]
    output: RowLog | None


class Session:
    """Decodes `batch` sequences in step, from any position, with every buffer allocated once.

    All state is append-only and addressed by absolute index: the position is the only thing that changes when the session is
    rewound. Use it from one thread. As a context manager it drops its buffers at the end.

    Raises:
        ConfigError: a batch below 1.
        CapacityError: a capacity below 1 or beyond the model's positions.
    """

    def __init__(self, engines: Sequence[Engine], model: ModelInfo, batch: int = 1, capacity: int | None = None) -> None:
        if batch < 1:
            raise ConfigError(f"batch must be at least 1, got {batch}")
        self.engines, self.model, self.batch = engines, model, batch
        self.capacity = _checked_capacity(model, capacity)
        self.position = 0
        self.fires = {engine.spec.name: 0 for engine in engines}
        self.observer: Observer | None = None
        self._tokens = _token_log(engines, batch, self.capacity)
        self._steps = _allocate(engines, self._tokens, model.dim, batch, self.capacity)
        self._last = Block.of(np.zeros(1, np.int64))

    def advance(self, ids: npt.ArrayLike, last_only: bool = False) -> npt.NDArray[np.float32]:
        """Append tokens to every sequence and return their logits; prefill and decode are this one call.

        Args:
            ids: integers `[B, L]`, L at least 1.
            last_only: compute the head for the last row only.

        Returns:
            float32 `[B, L, V]`, or `[B, 1, V]` with `last_only`; row t predicts the token after `ids[:, t]`. The caller's own.

        Raises:
            InputError: ids of another shape or dtype, or outside the vocabulary; the session is unchanged.
            CapacityError: more tokens than the session can hold; the session is unchanged.
        """
        tokens = self._checked_ids(ids)
        length = tokens.shape[1]
        wanted = self._last if last_only else Block.of(np.arange(length))
        if last_only:
            self._last.array[0] = length - 1
        self._tokens.write(self.position, tokens)
        logits = np.empty((self.batch, wanted.array.shape[0], self.model.vocab_size), np.float32)
        self._fire(length, wanted, Block.of(logits))
        self.position += length
        return logits

    def _fire(self, length: int, wanted: Block, logits: Block) -> None:
        for step in self._steps:
            spec = step.spec
            firings = spec.firings(self.position, length)
            count = len(firings)
            if count == 0:
                continue
            first = firings.start
            inputs = [
                log.rows(first * given.count - given.shift, count * given.count)
                for given, log in zip(spec.inputs, step.sources, strict=True)
            ]
            is_head = step.output is None
            output = logits if step.output is None else step.output.rows(first * spec.output_rows, count * spec.output_rows)
            if self.observer is None:
                step.bound.run(first, count, inputs, output, wanted if is_head else None)
            else:
                began = time.perf_counter_ns()
                step.bound.run(first, count, inputs, output, wanted if is_head else None)
                self.observer(spec, count, time.perf_counter_ns() - began)
            self.fires[spec.name] += count

    def reset(self) -> None:
        """Start again at position 0."""
        self.rewind(self.position)

    def rewind(self, tokens: int) -> None:
        """Forget the last `tokens` tokens, exactly; costs nothing, at any phase.

        Raises:
            InputError: fewer tokens were seen.
        """
        if not 0 <= tokens <= self.position:
            raise InputError(f"can't rewind {tokens} tokens: the session holds {self.position}; give a number between the two")
        self.position -= tokens

    def snapshot(self) -> Snapshot:
        """Copy everything written so far."""
        rows = tuple(step.output.array[: self._used_rows(step)].copy() for step in self._steps if step.output is not None)
        caches = tuple(
            tuple(cache[:, :, : step.spec.capacity_rows(self.position)].copy() for cache in step.bound.caches)
            for step in self._steps
        )
        return Snapshot(self.position, self.batch, self.tokens.copy(), rows, caches)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back (or forward) to a snapshot of a session of the same model and batch.

        Raises:
            InputError: another batch.
            CapacityError: the snapshot holds more tokens than this session can.
        """
        if snapshot.batch != self.batch:
            raise InputError(
                f"the snapshot has batch {snapshot.batch}, this session {self.batch}; use a session of the same batch"
            )
        if snapshot.position > self.capacity:
            raise CapacityError(
                f"the snapshot holds {snapshot.position} tokens, this session at most {self.capacity}; give it more capacity"
            )
        self.position = snapshot.position
        self._tokens.write(0, snapshot.tokens)
        logs = [step.output for step in self._steps if step.output is not None]
        for log, rows in zip(logs, snapshot.rows, strict=True):
            log.array[: rows.shape[0]] = rows
        for step, caches in zip(self._steps, snapshot.caches, strict=True):
            for cache, saved in zip(step.bound.caches, caches, strict=True):
                cache[:, :, : saved.shape[2]] = saved

    def fork(self) -> Session:
        """A new session with the same past, which then goes its own way."""
        forked = Session(self.engines, self.model, self.batch, self.capacity)
        forked.restore(self.snapshot())
        return forked

    @property
    def copied_bytes(self) -> int:
        """Bytes of state copied by the host since the session began: 0 as long as every engine works in place."""
        return sum(step.bound.copied_bytes for step in self._steps)

    @property
    def state_bytes(self) -> dict[str, int]:
        """Bytes reserved for each stage's caches and rows (memory that was never written is not committed)."""
        return {
            step.spec.name: sum(cache.nbytes for cache in step.bound.caches) + (step.output.array.nbytes if step.output else 0)
            for step in self._steps
        }

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """A view of the ids `[B, position]` seen so far."""
        return self._tokens.array[:, self._tokens.lead : self._tokens.lead + self.position]

    def output_rows(self, stage: str) -> Array:
        """A view of the rows `[rows, B, D]` a stage has given so far; the stage that gives logits keeps none.

        Raises:
            ConfigError: no such stage, or the one that gives logits.
        """
        for step in self._steps:
            if step.spec.name == stage and step.output is not None:
                return step.output.array[step.output.lead : self._used_rows(step)]
        raise ConfigError(
            f'no rows are kept for stage "{stage}"; stages with rows: {[s.spec.name for s in self._steps if s.output]}'
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._steps = ()

    def _used_rows(self, step: _Step) -> int:
        fired = len(step.spec.firings(0, self.position))
        return (step.output.lead if step.output else 0) + fired * step.spec.output_rows

    def _checked_ids(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        given = np.asarray(ids)
        if given.dtype.kind not in "iu":
            raise InputError(
                f"ids have dtype {given.dtype}, expected integers; convert them, for instance with ids.astype(int)"
            )
        if given.ndim != 2 or given.shape[0] != self.batch or given.shape[1] == 0:
            raise InputError(f"ids have shape {list(given.shape)}, expected [{self.batch}, L] with L >= 1")
        length = given.shape[1]
        if self.position + length > self.capacity:
            raise CapacityError(
                f"the session holds {self.position} of at most {self.capacity} tokens, got {length} more; "
                "rewind or reset it, or open one with more capacity"
            )
        lowest, highest = (given.item(),) * 2 if given.size == 1 else (int(given.min()), int(given.max()))
        if lowest < 0 or highest >= self.model.vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise InputError(f"id {wrong} is outside the vocabulary; expected 0 <= id < {self.model.vocab_size}")
        return np.ascontiguousarray(given, np.int64)


def _checked_capacity(model: ModelInfo, capacity: int | None) -> int:
    if capacity is None:
        return model.context
    if capacity < 1:
        raise CapacityError(f"capacity must be at least 1 token, got {capacity}")
    if model.max_positions is not None and capacity > model.max_positions:
        raise CapacityError(
            f"the model has {model.max_positions} positions, got a capacity of {capacity}; ask for no more than it has"
        )
    return capacity


def _token_log(engines: Sequence[Engine], batch: int, capacity: int) -> TokenLog:
    shifts = [given.shift for engine in engines for given in engine.spec.inputs if given.source is None]
    return TokenLog(max(shifts, default=0), capacity, batch)


def _allocate(engines: Sequence[Engine], tokens: TokenLog, dim: int, batch: int, capacity: int) -> tuple[_Step, ...]:
    specs = [engine.spec for engine in engines]
    logs: dict[str, RowLog] = {}
    for spec in specs:
        if spec.output == "hidden":
            lead = max((given.shift for other in specs for given in other.inputs if given.source == spec.name), default=0)
            logs[spec.name] = RowLog(lead, spec.capacity_rows(capacity) * spec.output_rows, batch, dim)
    return tuple(
        _Step(
            spec=engine.spec,
            bound=engine.bind(batch, engine.spec.capacity_rows(capacity)),
            sources=tuple(tokens if given.source is None else logs[given.source] for given in engine.spec.inputs),
            output=logs.get(engine.spec.name),
        )
        for engine, spec in zip(engines, specs, strict=True)
    )
