"""When the stages of a sequence fire: a clock leads from tokens to firings, and back.

A stage of a fixed stride has its clock by arithmetic (`StageSpec.firings`, `fired_by`, `firings_within`). Where the data
decides, the clock is a log: for every token how often the stage had fired by then. It only grows, and rewinding a sequence is
reading it further down, at any phase, as with rows and caches (docs/adr/0022, docs/adr/0024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from ..contract import BEGINNING, ClockSpec, StageSpec, clocks_of
from ..errors import InputError
from .boundaries import Boundaries
from .rows import Array, Ids, TokenLog
from .schedules import Decisions, Schedule


class Clock(Protocol):
    """From tokens of a sequence to a stage's firings, which are numbered from 0."""

    def firings(self, start: int, tokens: int) -> range:
        """Indices of the firings that tokens `[start, start + tokens)` cause; `start` may be the beginning."""
        ...

    def fired_by(self, firing: int) -> int:
        """The token that causes a firing; the beginning, where there is none yet."""
        ...

    def causes(self, firings: range) -> Ids:
        """The tokens that cause firings, `[n]`."""
        ...

    def firings_within(self, tokens: int) -> int:
        """How often the first so many tokens fire it."""
        ...

    def firings_within_each(self, tokens: Ids) -> Ids:
        """The same of several numbers of tokens, `[n]`."""
        ...


class StrideClock:
    """Of a stage of a fixed stride."""

    def __init__(self, spec: StageSpec) -> None:
        self._stride, self._delay = spec.stride, spec.delay
        self.firings, self.fired_by, self.firings_within = spec.firings, spec.fired_by, spec.firings_within

    def causes(self, firings: range) -> Ids:
        """As `Clock.causes`."""
        return np.arange(firings.start, firings.stop) * self._stride + self._delay

    def firings_within_each(self, tokens: Ids) -> Ids:
        """As `Clock.firings_within_each`."""
        return within_by_stride(self._stride, self._delay, tokens)


def within_by_stride(stride: int, delay: int, tokens: Ids) -> Ids:
    """How often the first so many tokens fire a stage of a fixed stride, `[n]`, and of a delay (`StageSpec.delay`)."""
    found: Ids = np.maximum(-(-(tokens - delay) // stride), 0)
    return found


class ClockLog:
    """Where the boundaries of a sequence are: written as tokens come, read at any of them.

    `count[t]` is how many boundaries the first t tokens have made, and `ends[i]` the token that made boundary i.

    Args:
        spec: the rule.
        source: when the rows come that may be boundaries.
        count: int64 `[capacity + 1]`, zeros, and `ends`: `[capacity]`. A batch has a row of each for every slot.
    """

    def __init__(self, spec: ClockSpec, source: Clock, count: Ids, ends: Ids) -> None:
        self.spec, self.count, self.ends = spec, count, ends
        self.boundaries = Boundaries(spec)
        self._source = source

    def append(self, start: int, tokens: int, values: Array) -> None:
        """Write down the boundaries that tokens `[start, start + tokens)` make; those before are in the log.

        Args:
            start: the first token.
            tokens: how many.
            values: of the rows that come with them `[n]`: float32, or the ids of tokens.
        """
        rows = self._source.firings(start, tokens)
        if tokens == 1:
            self.append_one(start, rows, values[0] if rows else 0.0)
            return
        before = int(self.count[start])
        last = self._row_of(before - 1) if self.boundaries.look_back else 0
        made_by = self._source.causes(rows)[self.boundaries.among(rows.start, last, values)]
        steps = np.zeros(tokens, np.int64)
        steps[made_by - start] = 1
        self.count[start + 1 : start + tokens + 1] = before + np.cumsum(steps)
        self.ends[before : before + len(made_by)] = made_by

    def append_one(self, token: int, rows: range, value: float) -> None:
        """As `append`, of one token: with the row that comes with it, if one does, and the row's value."""
        before, boundaries = int(self.count[token]), self.boundaries
        last = self._row_of(before - 1) if boundaries.look_back else 0
        if rows and boundaries.is_one(rows.start, last, value):
            self.ends[before] = token
            before += 1
        self.count[token + 1] = before

    def _row_of(self, boundary: int) -> int:
        """The row that made a boundary; -1 before the first."""
        return self._source.firings_within(int(self.ends[boundary]) + 1) - 1 if boundary >= 0 else -1

    def made_within(self, tokens: int) -> Ids:
        """The tokens among the first so many that made a boundary: a view."""
        found: Ids = self.ends[: self.count[tokens]]
        return found

    def decisions(self, tokens: int, values: Array) -> Decisions:
        """What was decided of the first so many tokens' rows, by their values `[n]`."""
        rows = self._source.firings(0, tokens)
        made = np.zeros(len(rows), np.bool_)
        made[self._source.firings_within_each(self.made_within(tokens) + 1) - 1] = True
        wanted = self.boundaries.wanted_of(made, values)
        return Decisions(self._source.causes(rows).copy(), values.copy(), made, wanted)

    def append_each(self, start: int, tokens: int, values: Array, way_out: str) -> None:
        """As `append`, of sequences that stand at the same token and have this one log, by their values `[n, B]`.

        Raises:
            InputError: they make other boundaries than one another; `way_out` says what to do.
        """
        first, *others = values.T
        made = []
        for of_one in others:
            self.append(start, tokens, of_one)
            made.append(self.made_within(start + tokens).tolist())
        self.append(start, tokens, first)
        if made and any(of_one != self.made_within(start + tokens).tolist() for of_one in made):
            raise InputError(
                "sequences of one session have to fire together, and the data would have these fire at different tokens; "
                + way_out
            )

    def restore(self, ends: Ids) -> None:
        """Let these be all boundaries that were made."""
        self.ends[: len(ends)] = ends
        self.count[...] = np.searchsorted(ends, np.arange(len(self.count)))


class LoggedClock:
    """Of a stage whose firings a log has; `ahead`: it fires once before there is a token."""

    def __init__(self, log: ClockLog, ahead: bool) -> None:
        self._log, self._ahead = log, int(ahead)

    def firings(self, start: int, tokens: int) -> range:
        """As `Clock.firings`."""
        ahead, count = self._ahead, self._log.count
        if start == BEGINNING:
            return range(ahead + int(count[start + tokens]))
        return range(ahead + int(count[start]), ahead + int(count[start + tokens]))

    def fired_by(self, firing: int) -> int:
        """As `Clock.fired_by`."""
        boundary = firing - self._ahead
        return BEGINNING if boundary < 0 else int(self._log.ends[boundary])

    def causes(self, firings: range) -> Ids:
        """As `Clock.causes`."""
        if firings.start >= self._ahead:
            return self._log.ends[firings.start - self._ahead : firings.stop - self._ahead]
        return np.concatenate(([BEGINNING], self._log.ends[: firings.stop - self._ahead]))

    def firings_within(self, tokens: int) -> int:
        """As `Clock.firings_within`."""
        return self._ahead + int(self._log.count[tokens])

    def firings_within_each(self, tokens: Ids) -> Ids:
        """As `Clock.firings_within_each`."""
        found: Ids = self._ahead + self._log.count[tokens]
        return found


class Clocks:
    """The clocks of all stages of one sequence, and the logs behind those that the data decides."""

    def __init__(self, specs: Sequence[StageSpec], logs: Mapping[ClockSpec, tuple[Ids, Ids]]) -> None:
        self.of: dict[str, Clock] = {}
        self.logs: dict[ClockSpec, ClockLog] = {}
        tokens = token_clock()
        for spec in specs:
            if spec.clock is None:
                self.of[spec.name] = StrideClock(spec)
                continue
            if spec.clock not in self.logs:
                source = tokens if spec.clock.stage is None else self.of[spec.clock.stage]
                self.logs[spec.clock] = ClockLog(spec.clock, source, *logs[spec.clock])
            self.of[spec.name] = LoggedClock(self.logs[spec.clock], spec.begins_ahead)

    @classmethod
    def allocate(cls, specs: Sequence[StageSpec], capacity: int) -> Clocks:
        """For one sequence of so many tokens."""
        return cls(specs, {spec: (count[0], ends[0]) for spec, (count, ends) in log_arrays(specs, 1, capacity).items()})

    def schedule(self, tokens: int, ids: TokenLog, values_of: Callable[[ClockSpec], Array]) -> Schedule:
        """What was decided of the first so many tokens, of the first sequence.

        Args:
            tokens: how many.
            ids: of them.
            values_of: the values of the rows that they made, `[n]`, for a clock that a stage decides.
        """
        return {
            spec: log.decisions(tokens, ids.seen(tokens)[0] if spec.stage is None else values_of(spec))
            for spec, log in self.logs.items()
        }

    def follow(self, schedule: Schedule | None) -> None:
        """Let boundaries be those of a schedule, as far as it goes; None: what the rules say."""
        for spec, log in self.logs.items():
            log.boundaries.forced = None if schedule is None else schedule[spec].made

    def made_within(self, tokens: int) -> tuple[Ids, ...]:
        """A copy of the boundaries that the first so many tokens have made, by clock."""
        return tuple(log.made_within(tokens).copy() for log in self.logs.values())

    def restore(self, boundaries: Sequence[Ids]) -> None:
        """Let these be all that were made, by clock."""
        for log, made in zip(self.logs.values(), boundaries, strict=True):
            log.restore(made)

    def decided_by(self, stage: str | None) -> list[ClockLog]:
        """The logs that the rows of a stage are appended to; None: the ids of tokens."""
        return [log for spec, log in self.logs.items() if spec.stage == stage]


def token_clock() -> StrideClock:
    """When ids come: with every token."""
    return StrideClock(StageSpec(name="tokens", stride=1, inputs=(), output="hidden", width=1, layers=0, parameters=0))


def log_arrays(specs: Sequence[StageSpec], sequences: int, capacity: int) -> dict[ClockSpec, tuple[Ids, Ids]]:
    """Zeros for the logs of so many sequences: counts `[sequences, capacity + 1]`, ends `[sequences, capacity]`."""
    return {
        clock: (np.zeros((sequences, capacity + 1), np.int64), np.zeros((sequences, capacity), np.int64))
        for clock in clocks_of(specs)
    }
