"""Bytes that decoding must read: weights by firing rate, cached rows by how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..bundle import Bundle, StageEntry
from ..contract import CacheSpec, StageSpec
from ..runtime.expected import expected_period
from ..runtime.schedules import Schedule
from .firings import Fired, Firings, firings_of


class Traffic(NamedTuple):
    """Bytes per token."""

    weights: float
    caches: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.caches


def bytes_per_token(bundle: Bundle, target: str, position: int, tokens: int, schedule: Schedule | None = None) -> Traffic:
    """As `bytes_by_stage`, of all stages together."""
    stages = bytes_by_stage(bundle, target, position, tokens, schedule).values()
    return Traffic(sum(stage.weights for stage in stages), sum(stage.caches for stage in stages))


def bytes_by_stage(
    bundle: Bundle, target: str, position: int, tokens: int, schedule: Schedule | None = None
) -> dict[str, Traffic]:
    """What decoding tokens `[position, position + tokens)` one by one must read, per token, with a batch of one.

    Tables are looked up row by row and do not count. Of a cache that keeps a fixed number of rows, no more than those are read;
    of a stage that resets, those since the last reset; of a recurrent state, all of it; of a borrowed cache, those that its
    stage has written by then. Where the data decides, firings are those of the `schedule`, which a session has that decoded
    these tokens; without one, as many as are expected.
    """
    found = {}
    specs = [entry.spec for entry in bundle.manifest.stages]
    row_bytes = {spec.name: bundle.cache_row_bytes(target, spec) for spec in specs}
    firings = {spec.name: firings_of(spec, schedule) for spec in specs}
    for entry in bundle.manifest.stages:
        fired = list(firings[entry.spec.name].among(position, tokens))
        weights = (entry.weight_bytes - entry.table_bytes) * sum(one.times for one in fired)
        caches = sum(
            one.times * rows * row_bytes[stage][name]
            for one in fired
            for stage, name, rows in rows_read(specs, firings, entry.spec, one)
        )
        found[entry.spec.name] = Traffic(weights / tokens, caches / tokens)
    return found


class StageReads(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that decoding a token reads for one stage.

    Attributes:
        fires_per_token: how often it fires; where the data decides, as often as is expected.
        weights: by that rate; tables, which are looked up row by row, left out.
        weights_fp32: what the same weights would be in fp32; None where the bundle's tables are narrower, too.
        caches_half: keys and values (or what else it remembers), mean over a period in the middle of the context.
        caches_full: the same over the last period of the context.
    """

    name: str
    fires_per_token: float
    weights: float
    weights_fp32: float | None
    caches_half: float
    caches_full: float


def reads_per_token(bundle: Bundle, target: str) -> tuple[StageReads, ...]:
    """What engines of a target read per token, stage by stage, with a batch of one."""
    context = bundle.manifest.model.context
    tokens = min(expected_period([entry.spec for entry in bundle.manifest.stages], 1), context)
    half, full = (bytes_by_stage(bundle, target, start, tokens) for start in ((context - tokens) // 2, context - tokens))
    return tuple(
        _reads(bundle, entry, half[entry.spec.name], full[entry.spec.name].caches, tokens) for entry in bundle.manifest.stages
    )


def _reads(bundle: Bundle, entry: StageEntry, half: Traffic, caches_full: float, tokens: int) -> StageReads:
    rate = sum(one.times for one in firings_of(entry.spec).among(0, tokens)) / tokens
    tables_are_fp32 = not bundle.manifest.plan.embedding or not entry.table_bytes
    return StageReads(
        name=entry.spec.name,
        fires_per_token=rate,
        weights=half.weights,
        weights_fp32=(4 * entry.spec.parameters - entry.table_bytes) * rate if tables_are_fp32 else None,
        caches_half=half.caches,
        caches_full=caches_full,
    )


def rows_read(
    specs: Sequence[StageSpec], firings: Mapping[str, Firings], spec: StageSpec, fired: Fired
) -> Iterator[tuple[str, str, float]]:
    """Stage, cache and rows of everything that one firing looks back at, its own new rows included."""
    remembered = fired.number if spec.resets is None else fired.number % spec.resets
    for cache in spec.caches:
        yield spec.name, cache.name, _rows_there(cache, remembered + 1)
    order = [other.name for other in specs]
    for borrowed in spec.borrows:
        comes_first = order.index(borrowed.stage) < order.index(spec.name)
        written = firings[borrowed.stage].within(fired.seen - 1 + comes_first)
        yield borrowed.stage, borrowed.cache.name, _rows_there(borrowed.cache, written)


def _rows_there(cache: CacheSpec, firings: float) -> float:
    if cache.recurrent:
        return cache.rows
    rows = firings * cache.rows
    return rows if cache.keeps is None else min(rows, cache.keeps)
