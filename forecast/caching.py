"""What of a stage's bytes is still in a cache when it fires again.

Caches of CPUs don't replace what was used longest ago: of a set that is read over and over and is twice as large as the cache
half is found in it, where strict order would leave nothing. So the model is a cache that replaces at random (Fricker, Robert
and Roberts 2012, arXiv 1202.3974): what is read r times in a period is there with probability r t / (1 + r t), and t is such
that all that is there is as large as the cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..runtime.expected import expected_period, expected_schedule
from .firings import firings_of
from .shapes import Shape, StageShape
from .traffic import rows_read


class Firing(NamedTuple):
    """Of a stage in a decode step; `cached`: bytes of keys and values (or what else is remembered) that it reads."""

    stage: StageShape
    cached: float


def steps_behind(shape: Shape, position: int) -> list[list[Firing]]:
    """The firings of each decode step of a whole period of firing, the first of which decodes the token at `position`.

    Where the data decides, stages fire at regular distances, as often as is expected.
    """
    period, merged = expected_period(shape.specs, 1), _merged(shape)
    schedule = expected_schedule(shape.specs, position + period + 1)
    firings = {spec.name: firings_of(spec, schedule) for spec in shape.specs}
    specs, row_bytes = merged.specs, {stage.spec.name: stage.row_bytes for stage in merged.stages}
    steps = []
    for token in range(position, position + period):
        fired = []
        for stage in merged.stages:
            for one in firings[stage.spec.name].among(token, 1):
                rows = rows_read(specs, firings, stage.spec, one)
                fired.append(Firing(stage, sum(count * row_bytes[source][name] for source, name, count in rows)))
        steps.append(fired)
    return steps


def shares_in_cache(steps: Sequence[Sequence[Firing]], cache_bytes: float, batch: int = 1) -> Mapping[str, float]:
    """By stage, the share of what a firing reads that is in a cache of so many bytes, over a period of steps."""
    read: dict[str, list[float]] = defaultdict(list)
    for step in steps:
        for stage, cached in step:
            read[stage.spec.name].append(stage.weight_bytes + batch * cached)
    often = {name: len(sizes) for name, sizes in read.items()}
    sizes = {name: sum(each) / len(each) for name, each in read.items()}
    if sum(sizes.values()) <= cache_bytes:
        return dict.fromkeys(sizes, 1.0)

    def shares(time: float) -> dict[str, float]:
        return {name: count * time / (1 + count * time) for name, count in often.items()}

    low, high = 0.0, 1.0
    while sum(sizes[name] * share for name, share in shares(high).items()) < cache_bytes:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        there = sum(sizes[name] * share for name, share in shares(middle).items())
        low, high = (low, middle) if there > cache_bytes else (middle, high)
    return shares(low)


_HALVINGS = 50


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
