"""Do the engines decide as PyTorch does when stages fire? Where a value is too near its threshold, rounding may decide.

Each decision is looked at by itself: a system follows PyTorch's schedule, so that all before a decision is as it was there.
One that comes out otherwise although its value is farther from the threshold than values are apart is an error of the system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from ...bundle import ModelInfo
from ...contract import ClockSpec, StageSpec, clocks_of
from ...runtime.engines.base import Engine
from ...runtime.rows import Array, Ids
from ...runtime.schedules import Decisions, Schedule, differing
from ...runtime.session import Session
from .chunks import random_chunks, spans
from .errors import TOLERANCE, Comparison
from .verify_report import CLEAR, Check, ClockReport, CloseCall

_SEED = 20211026


class _Reading(NamedTuple):
    """What was decided in one run of a system."""

    run: str
    sequence: str
    forced: Decisions
    expected: Decisions


class _Moved(NamedTuple):
    """The first token at which a run on its own schedule decided otherwise, and the margin there."""

    run: str
    token: int
    margin: float


@dataclass
class _OfClock:
    spec: ClockSpec
    comparison: Comparison
    largest_error: float = 0.0
    readings: list[_Reading] = field(default_factory=list)
    moved: list[_Moved] = field(default_factory=list)
    common: int = 0
    either: int = 0


class BoundaryChecks:
    """Collects what systems decide, to be judged when the largest error of all runs is known.

    Args:
        specs: of the stages.
    """

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._of = {
            clock: _OfClock(clock, Comparison(_name(clock, "boundary values"), TOLERANCE)) for clock in clocks_of(specs)
        }
        self._expected: dict[str, Schedule] = {}

    def add(self, run: str, sequence: str, forced: Schedule, own: Schedule, expected: Schedule) -> None:
        """A run's decisions: on the schedule that was expected, PyTorch's, and on its own."""
        self._expected.setdefault(sequence, expected)
        for clock, found in self._of.items():
            decided, right = forced[clock], _begin(expected[clock], len(forced[clock].values))
            if clock.stage is not None:
                place = partial(_value_place, clock.stage, run, right.tokens)
                found.comparison.add(decided.values, right.values, place, axis=0)
                found.largest_error = found.comparison.largest
            found.readings.append(_Reading(run, sequence, decided, right))
            moved = differing(own[clock], right)
            common = len(np.intersect1d(own[clock].ends, right.ends, assume_unique=True))
            found.common += common
            found.either += common + moved
        self._add_moved(run, own, expected)

    def _add_moved(self, run: str, own: Schedule, expected: Schedule) -> None:
        """Charge the first boundary that a run moves to the nearest decision at its token; later ones may follow from it."""
        ends = {clock: len(own[clock].made) and int(own[clock].tokens[-1]) + 1 for clock in self._of}
        moved = [
            np.setxor1d(own[clock].ends, expected[clock].until(end).ends, assume_unique=True) for clock, end in ends.items()
        ]
        first = min((int(tokens[0]) for tokens in moved if len(tokens)), default=None)
        if first is None:
            return
        at = [
            (float(expected[clock].margins(clock)[row]), place)
            for place, clock in enumerate(self._of)
            for row in np.flatnonzero(expected[clock].tokens == first).tolist()
        ]
        margin, place = min(at, default=(float("inf"), 0))
        list(self._of.values())[place].moved.append(_Moved(run, first, margin))

    def checks(self) -> list[Check]:
        """Of every clock its values, and its boundaries: the largest margin that flipped, and what rounding allows."""
        checks = []
        for found in self._of.values():
            if found.spec.stage is not None:
                values = found.comparison
                largest = values.largest
                checks.append(
                    Check(
                        name=values.name, max_abs_error=largest, tolerance=TOLERANCE, values=values.values, where=values.where
                    )
                )
            checks.append(self._boundaries(found))
        return checks

    @staticmethod
    def _boundaries(found: _OfClock) -> Check:
        allowed, largest, where = CLEAR * found.largest_error, 0.0, None
        for reading in found.readings:
            margins = reading.expected.margins(found.spec)
            for row in reading.forced.flips.tolist():
                margin, token = float(margins[row]), int(reading.expected.tokens[row])
                largest = max(largest, margin)
                if margin > allowed and where is None:
                    made = "no boundary" if reading.expected.made[row] else "a boundary"
                    value = reading.forced.values[row]
                    where = f"{reading.run}, token {token}: {made} of the value {value:.6g}, threshold {found.spec.threshold:g}"
        for moved in found.moved:
            largest = max(largest, moved.margin)
            if moved.margin > allowed and where is None:
                where = f"{moved.run}, own schedule, token {moved.token}: not PyTorch's boundary, margin {moved.margin:.1e}"
        return Check(
            name=_name(found.spec, "boundaries"),
            max_abs_error=largest,
            tolerance=allowed,
            values=sum(len(reading.expected.made) for reading in found.readings),
            where=where,
            kind="boundaries",
        )

    def report(self) -> tuple[ClockReport, ...]:
        """By clock, in dataflow order."""
        return tuple(self._report(clock, found) for clock, found in self._of.items())

    def _report(self, clock: ClockSpec, found: _OfClock) -> ClockReport:
        expected = {name: schedule[clock] for name, schedule in self._expected.items()}
        margins = {name: decisions.margins(clock) for name, decisions in expected.items()}
        smallest = min((float(of.min()) for of in margins.values() if len(of)), default=np.inf)
        flipped = {
            (reading.sequence, int(reading.expected.tokens[row])) for reading in found.readings for row in reading.forced.flips
        }
        calls = [
            CloseCall(
                sequence=name,
                token=int(decisions.tokens[row]),
                value=float(decisions.values[row]),
                margin=float(margins[name][row]),
                flipped=(name, int(decisions.tokens[row])) in flipped,
            )
            for name, decisions in expected.items()
            for row in np.flatnonzero(margins[name] < CLEAR * found.largest_error)
        ]
        return ClockReport(
            stage=clock.stage,
            threshold=clock.threshold,
            decisions=sum(len(decisions.made) for decisions in expected.values()),
            boundaries=sum(int(decisions.made.sum()) for decisions in expected.values()),
            largest_error=found.largest_error,
            smallest_margin=None if np.isinf(smallest) else smallest,
            too_close=tuple(sorted(calls, key=lambda call: call.margin)),
            flips=len(flipped),
            equal_share=found.common / found.either if found.either else 1.0,
        )


def _name(clock: ClockSpec, what: str) -> str:
    return f"{what} by ids of tokens" if clock.stage is None else f'{what} of stage "{clock.stage}"'


def _value_place(stage: str, run: str, tokens: Ids, row: int) -> str:
    return f'stage "{stage}", token {tokens[row]}, boundary value ({run})'


def _begin(decisions: Decisions, rows: int) -> Decisions:
    """The first rows: a system may be built for fewer tokens than there are."""
    return Decisions(decisions.tokens[:rows], decisions.values[:rows], decisions.made[:rows], decisions.wanted[:rows])


def schedule_of(reference: Sequence[Engine], info: ModelInfo, ids: Ids, logits: Array) -> Schedule:
    """When PyTorch's stages fire on ids `[1, T]`: as its full forward did, which gave `logits`.

    The full forward does not say when it fires, and its sums may have another order. Where the stages give other logits from
    a token on, and the decision before it is too close to call, it is turned.
    """
    with Session(reference, info, 1, ids.shape[1]) as session:
        first = found = _read(session, ids, None)
        error, last = None, -1
        while (token := _first_beyond(found.logits, logits)) is not None:
            error = _rounding(session, ids, first.schedule) if error is None else error
            close = [at for at in _close(found.schedule, CLEAR * error) if last < at <= token]
            if not close:
                return first.schedule  # that is not for rounding: the check of the split says where
            last = close[-1]
            found = _read(session, ids, _turned(found.schedule, last))
    return found.schedule


class _Read(NamedTuple):
    logits: Array
    schedule: Schedule


def _read(session: Session, ids: Ids, schedule: Schedule | None) -> _Read:
    session.reset()
    session.follow(schedule)
    logits = session.advance(ids)
    return _Read(logits, session.schedule)


def _rounding(session: Session, ids: Ids, schedule: Schedule) -> float:
    """By how much the values that decide depend on the calls that tokens come in."""
    session.reset()
    session.follow(schedule)
    for start, end in spans(random_chunks(ids.shape[1], _SEED)):
        session.advance(ids[:, start:end])
    pairs = zip(session.schedule.values(), schedule.values(), strict=True)
    return max((float(np.abs(a.values - b.values).max()) for a, b in pairs if len(a.values)), default=0.0)


def _first_beyond(got: Array, expected: Array) -> int | None:
    """The first token whose logits are not those."""
    comparison = Comparison("the split", TOLERANCE)
    comparison.add(got, expected, str, axis=1)
    return None if comparison.where is None else int(comparison.where)


def _close(schedule: Schedule, margin: float) -> list[int]:
    """Tokens whose decisions are nearer to the threshold, in order."""
    near = [decided.tokens[decided.margins(clock) <= margin] for clock, decided in schedule.items()]
    return sorted({int(token) for tokens in near for token in tokens})


def _turned(schedule: Schedule, token: int) -> Schedule:
    """A schedule up to a token, whose decision there, the nearest to its threshold, is turned."""
    found = {clock: decided.until(token + 1) for clock, decided in schedule.items()}
    there = [clock for clock, decided in found.items() if len(decided.tokens) and decided.tokens[-1] == token]
    nearest = min(there, key=lambda clock: float(found[clock].margins(clock)[-1]))
    made = found[nearest].made.copy()
    made[-1] = not made[-1]
    found[nearest] = replace(found[nearest], made=made)
    return found
