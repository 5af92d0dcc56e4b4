"""Decoding in the host's memory: rows stand in logs, and engines read and write them where they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contract import StageSpec, leads_of
from ..errors import ConfigError, InputError
from .decoder import Observer, Written
from .engines.base import BoundStage, Engine
from .rows import Array, Block, RowLog, TokenLog
from .sampling import SamplingParams


@dataclass(frozen=True)
class _Step:
    """A stage, its engine's caches, and the logs it reads and writes."""

    spec: StageSpec
    bound: BoundStage
    sources: tuple[RowLog | TokenLog, ...]
    output: RowLog | None


class HostDecoder:
    """The interpreter of the manifest's dataflow program, as `Decoder`."""

    def __init__(
        self, engines: Sequence[Engine], tokens: TokenLog, dim: int, vocab_size: int, batch: int, capacity: int
    ) -> None:
        self.observer: Observer | None = None
        self.fires = {engine.spec.name: 0 for engine in engines}
        self._batch, self._vocab_size, self._one = batch, vocab_size, Block.of(np.zeros(1, np.int64))
        self._steps = _allocate(engines, tokens, dim, batch, capacity)

    def run(self, position: int, tokens: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """As `Decoder.run`."""
        logits = np.empty((self._batch, len(wanted), self._vocab_size), np.float32)
        wanted_block, logits_block = self._block_of(wanted), Block.of(logits)
        for step in self._steps:
            firings = step.spec.firings(position, tokens)
            if firings:
                self._fire(step, firings, wanted_block, logits_block)
        return logits

    def _block_of(self, wanted: npt.NDArray[np.int64]) -> Block:
        """Its address takes a microsecond to learn, so that of a single row is learnt once."""
        if len(wanted) > 1:
            return Block.of(wanted)
        self._one.array[0] = wanted[0]
        return self._one

    def _fire(self, step: _Step, firings: range, wanted: Block, logits: Block) -> None:
        spec, first, count = step.spec, firings.start, len(firings)
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

    draws = False

    def draw(
        self, position: int, count: int, params: SamplingParams, uniform: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """As `Decoder.draw`: there is no way to the next token but the host's own."""
        raise ConfigError("these engines draw no tokens; draw them from the logits")

    def rows(self, stage: int, position: int) -> Array | None:
        """As `Decoder.rows`; a view."""
        step = self._steps[stage]
        if step.output is None:
            return None
        fired = len(step.spec.firings(0, position))
        return step.output.array[: step.output.lead + fired * step.spec.output_rows]

    def write_rows(self, stage: int, rows: Array) -> None:
        """As `Decoder.write_rows`."""
        output = self._steps[stage].output
        if output is not None:
            output.array[: rows.shape[0]] = rows

    def read(self, position: int) -> Written:
        """As `Decoder.read`."""
        rows = [self.rows(stage, position) for stage in range(len(self._steps))]
        caches = tuple(
            tuple(cache[:, :, : step.spec.capacity_rows(position)].copy() for cache in step.bound.caches)
            for step in self._steps
        )
        return Written(tuple(None if array is None else array.copy() for array in rows), caches)

    def write(self, written: Written) -> None:
        """As `Decoder.write`."""
        check_same_shapes(written, self.read(0))
        for stage, rows in enumerate(written.rows):
            if rows is not None:
                self.write_rows(stage, rows)
        for step, caches in zip(self._steps, written.caches, strict=True):
            for cache, saved in zip(step.bound.caches, caches, strict=True):
                cache[:, :, : saved.shape[2]] = saved

    def close(self) -> None:
        """As `Decoder.close`."""
        self._steps = ()

    @property
    def copied_bytes(self) -> int:
        """As `Decoder.copied_bytes`."""
        return sum(step.bound.copied_bytes for step in self._steps)

    @property
    def state_bytes(self) -> dict[str, int]:
        """As `Decoder.state_bytes`; memory that was never written is not committed."""
        return {
            step.spec.name: sum(cache.nbytes for cache in step.bound.caches) + (step.output.array.nbytes if step.output else 0)
            for step in self._steps
        }


def check_same_shapes(written: Written, own: Written) -> None:
    """Raise InputError unless what was written elsewhere fits: all but the number of rows must be as here."""

    def kinds(arrays: Sequence[Array | None], axis: int) -> list[tuple[object, ...] | None]:
        return [None if a is None else (a.dtype.name, a.shape[:axis], a.shape[axis + 1 :]) for a in arrays]

    def layout(of: Written) -> list[list[tuple[object, ...] | None]]:
        return [kinds(of.rows, 0), *(kinds(caches, 2) for caches in of.caches)]

    if layout(written) != layout(own):
        raise InputError(
            "the snapshot is of engines that keep their rows and caches otherwise; "
            "restore it into a session of the same bundle and target"
        )


def _allocate(engines: Sequence[Engine], tokens: TokenLog, dim: int, batch: int, capacity: int) -> tuple[_Step, ...]:
    leads = leads_of([engine.spec for engine in engines])
    logs = {
        spec.name: RowLog(leads[spec.name], spec.capacity_rows(capacity) * spec.output_rows, batch, dim)
        for spec in (engine.spec for engine in engines)
        if spec.output == "hidden"
    }
    return tuple(
        _Step(
            spec=engine.spec,
            bound=engine.bind(batch, engine.spec.capacity_rows(capacity)),
            sources=tuple(tokens if given.source is None else logs[given.source] for given in engine.spec.inputs),
            output=logs.get(engine.spec.name),
        )
        for engine in engines
    )
