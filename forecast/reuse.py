"""What a stage finds in a cache: how many other bytes were read since it last read its own.

A cache that replaces what was used longest ago still holds a stage's weights if that is less than its size. A coarse stage
comes back after all that the fine ones read meanwhile; a fine one after the others of a single step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..runtime.expected import expected_period, expected_schedule
from .firings import Firings, firings_of
from .shapes import Shape, StageShape
from .traffic import rows_read


class Firing(NamedTuple):
    """Of a stage in a decode step.

    Attributes:
        cached: bytes of keys and values (or what else is remembered) that it reads.
        distance: distinct bytes that are read from its last firing to the end of this one, its own included.
    """

    stage: StageShape
    cached: float
    distance: float


def steps_behind(shape: Shape, position: int) -> list[list[Firing]]:
    """The firings of each decode step of a whole period of firing, the first of which decodes the token at `position`.

    Where the data decides, stages fire at regular distances, as often as is expected. Firings before the first that is looked
    at are taken to have been a whole round ago.
    """
    period = expected_period(shape.specs, 1)
    before = min(period, position)
    schedule = expected_schedule(shape.specs, position + period + 1)
    firings = {spec.name: firings_of(spec, schedule) for spec in shape.specs}
    reader, steps = _Reader(_merged(shape), firings), []
    for token in range(position - before, position + period):
        fired = list(reader.step(token))
        if token >= position:
            steps.append(fired)
    return steps


def _merged(shape: Shape) -> Shape:
    """The same with one cache in the place of all of a stage that grow alike, where no other stage reads one of them."""
    if any(spec.borrows for spec in shape.specs):
        return shape
    return msgspec.structs.replace(shape, stages=tuple(map(_merged_stage, shape.stages)))


def _merged_stage(stage: StageShape) -> StageShape:
    alike: dict[tuple[int, int | None, bool], str] = {}
    row_bytes: dict[str, int] = {}
    for cache in stage.spec.caches:
        name = alike.setdefault((cache.rows, cache.keeps, cache.recurrent), cache.name)
        row_bytes[name] = row_bytes.get(name, 0) + stage.row_bytes[cache.name]
    caches = tuple(cache for cache in stage.spec.caches if cache.name in row_bytes)
    spec = msgspec.structs.replace(stage.spec, caches=caches)
    return msgspec.structs.replace(stage, spec=spec, row_bytes=row_bytes)


class _Reader:
    """Goes from firing to firing, and remembers which stages have read since."""

    def __init__(self, shape: Shape, firings: Mapping[str, Firings]) -> None:
        self._shape, self._firings = shape, firings
        self._specs = shape.specs
        self._row_bytes = {stage.spec.name: stage.row_bytes for stage in shape.stages}
        self._order: list[str] = []  # of stages by their last firing, the latest last
        self._read: dict[str, float] = {}

    def step(self, token: int) -> Iterator[Firing]:
        """The firings that a token causes."""
        specs, row_bytes = self._specs, self._row_bytes
        for stage in self._shape.stages:
            for fired in self._firings[stage.spec.name].among(token, 1):
                rows = rows_read(specs, self._firings, stage.spec, fired)
                cached = sum(count * row_bytes[source][name] for source, name, count in rows)
                yield Firing(stage, cached, self._distance(stage, stage.weight_bytes + cached))

    def _distance(self, stage: StageShape, own: float) -> float:
        name, order = stage.spec.name, self._order
        others: Sequence[str] = order[order.index(name) + 1 :] if name in order else order
        if name not in order:
            unread = [other for other in self._shape.stages if other.spec.name not in self._read and other is not stage]
            missing = sum(other.weight_bytes for other in unread)
        else:
            missing = 0.0
            order.remove(name)
        found = own + missing + sum(self._read[other] for other in others)
        order.append(name)
        self._read[name] = own
        return found
