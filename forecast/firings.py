"""When stages fire in the tokens of a measurement: by arithmetic, by what a session has seen, or as often as is expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ..contract import StageSpec
from ..runtime.rows import Ids
from ..runtime.schedules import Schedule, firings_by


class Fired(NamedTuple):
    """A firing, or what is expected of one.

    Attributes:
        number: which of the stage's it is, from 0.
        seen: tokens that were seen by then, that which caused it included.
        times: how often it happens: 1, or the share of the time that it is expected.
    """

    number: float
    seen: int
    times: float = 1.0


class Firings(Protocol):
    """Of one stage."""

    def among(self, position: int, tokens: int) -> Iterator[Fired]:
        """Those that the tokens `[position, position + tokens)` cause."""
        ...

    def within(self, tokens: int) -> float:
        """How many the first so many tokens cause, with that before there is any token."""
        ...


class ByStride:
    """Of a stage of a fixed stride."""

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec

    def among(self, position: int, tokens: int) -> Iterator[Fired]:
        """As `Firings.among`."""
        return (Fired(firing, self._spec.fired_by(firing) + 1) for firing in self._spec.firings(position, tokens))

    def within(self, tokens: int) -> float:
        """As `Firings.within`."""
        return self._spec.firings_within(tokens)


class Expected:
    """Of a stage whose firings the data decides, before there is any: with every token by the share that its clock expects."""

    def __init__(self, spec: StageSpec) -> None:
        self._rate, self._ahead = 1 / spec.tokens_per_firing, int(spec.begins_ahead)

    def among(self, position: int, tokens: int) -> Iterator[Fired]:
        """As `Firings.among`."""
        each = range(position, position + tokens)
        return (Fired(token * self._rate + self._ahead, token + 1, self._rate) for token in each)

    def within(self, tokens: int) -> float:
        """As `Firings.within`."""
        return tokens * self._rate + self._ahead


class Seen:
    """Of a stage whose firings the data decided, by the tokens that made boundaries, ascending `[n]`."""

    def __init__(self, spec: StageSpec, made: Ids) -> None:
        self._spec, self._made, self._ahead = spec, made, int(spec.begins_ahead)

    def among(self, position: int, tokens: int) -> Iterator[Fired]:
        """As `Firings.among`."""
        first, last = np.searchsorted(self._made, (position, position + tokens)).tolist()
        return (Fired(index + self._ahead, int(self._made[index]) + 1) for index in range(first, last))

    def within(self, tokens: int) -> float:
        """As `Firings.within`."""
        return firings_by(self._spec, self._made, tokens)


def firings_of(spec: StageSpec, schedule: Schedule | None = None) -> Firings:
    """Of a stage; where the data decides, those of a session's `schedule`, or without one what is expected."""
    if spec.clock is None:
        return ByStride(spec)
    return Expected(spec) if schedule is None else Seen(spec, schedule[spec.clock].ends)


def is_coarse(spec: StageSpec) -> bool:
    """Whether a token may leave a stage as it is: it has a stride above 1, or the data decides."""
    return spec.stride > 1 or spec.clock is not None


def coarse_steps(specs: Sequence[StageSpec], schedule: Schedule, positions: Sequence[int]) -> list[bool]:
    """Whether the token at each of some positions fired any coarse stage; `schedule`: of the session that has seen them."""
    coarse = [firings_of(spec, schedule) for spec in specs if is_coarse(spec)]
    return [any(next(firings.among(position, 1), None) for firings in coarse) for position in positions]


def stages_fired(specs: Sequence[StageSpec], schedule: Schedule, positions: Sequence[int]) -> list[tuple[str, ...]]:
    """The names of the stages that the token at each of some positions fired, in dataflow order; `schedule` as above."""
    each = [(spec.name, firings_of(spec, schedule)) for spec in specs]
    return [
        tuple(name for name, firings in each if next(firings.among(position, 1), None) is not None) for position in positions
    ]
