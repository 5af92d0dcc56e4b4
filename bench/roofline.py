"""Bytes that decoding must read: weights by firing rate, cached rows by how many there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..bundle import Bundle, StageEntry
from ..contract import CacheSpec, StageSpec, period_of


class Traffic(NamedTuple):
    """Bytes per token."""

    weights: float
    caches: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.caches


def bytes_per_token(bundle: Bundle, target: str, position: int, tokens: int) -> Traffic:
    """As `bytes_by_stage`, of all stages together."""
    stages = bytes_by_stage(bundle, target, position, tokens).values()
    return Traffic(sum(stage.weights for stage in stages), sum(stage.caches for stage in stages))


def bytes_by_stage(bundle: Bundle, target: str, position: int, tokens: int) -> dict[str, Traffic]:
    """What decoding tokens `[position, position + tokens)` one by one must read, per token, with a batch of one.

    Tables are looked up row by row and do not count. Of a cache that keeps a fixed number of rows, no more than those are read;
    of a stage that resets, those since the last reset; of a borrowed cache, those that its stage has written by then. Where the
    data decides, a stage is taken to fire as often as its clock expects.
    """
    found = {}
    specs = [entry.spec for entry in bundle.manifest.stages]
    row_bytes = {spec.name: bundle.cache_row_bytes(target, spec) for spec in specs}
    for entry in bundle.manifest.stages:
        narrow = entry.weight_bytes - entry.table_bytes
        if entry.spec.clock is not None:
            found[entry.spec.name] = _expected(entry.spec, narrow, row_bytes[entry.spec.name], position + tokens // 2)
            continue
        firings = entry.spec.firings(position, tokens)
        caches = sum(
            rows * row_bytes[stage][name] for firing in firings for stage, name, rows in _rows_read(specs, entry.spec, firing)
        )
        found[entry.spec.name] = Traffic(narrow * len(firings) / tokens, caches / tokens)
    return found


def _expected(spec: StageSpec, weight_bytes: int, row_bytes: Mapping[str, int], position: int) -> Traffic:
    """Of a stage whose firings the data decides, at a token."""
    rate = 1 / spec.tokens_per_firing
    caches = sum(row_bytes[cache.name] * cache.length(math.ceil(position * rate)) for cache in spec.caches)
    return Traffic(weight_bytes * rate, caches * rate)


class StageReads(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that decoding a token reads for one stage.

    Attributes:
        fires_per_token: how often it fires.
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
    context, period = bundle.manifest.model.context, period_of([entry.spec for entry in bundle.manifest.stages])
    tokens = min(period, context)
    half, full = (bytes_by_stage(bundle, target, start, tokens) for start in ((context - tokens) // 2, context - tokens))
    return tuple(
        _reads(bundle, entry, half[entry.spec.name], full[entry.spec.name].caches, tokens) for entry in bundle.manifest.stages
    )


def _reads(bundle: Bundle, entry: StageEntry, half: Traffic, caches_full: float, tokens: int) -> StageReads:
    decided = entry.spec.clock is not None
    rate = 1 / entry.spec.tokens_per_firing if decided else len(entry.spec.firings(0, tokens)) / tokens
    tables_are_fp32 = not bundle.manifest.plan.embedding or not entry.table_bytes
    return StageReads(
        name=entry.spec.name,
        fires_per_token=rate,
        weights=half.weights,
        weights_fp32=(4 * entry.spec.parameters - entry.table_bytes) * rate if tables_are_fp32 else None,
        caches_half=half.caches,
        caches_full=caches_full,
    )


def _rows_read(specs: Sequence[StageSpec], spec: StageSpec, firing: int) -> Iterator[tuple[str, str, int]]:
    """Stage, cache and rows of everything that one firing looks back at, its own new rows included."""
    remembered = firing if spec.resets is None else firing % spec.resets
    for cache in spec.caches:
        yield spec.name, cache.name, _rows_there(cache, remembered + 1)
    by_name = {other.name: other for other in specs}
    order = [other.name for other in specs]
    for borrowed in spec.borrows:
        comes_first = order.index(borrowed.stage) < order.index(spec.name)
        written = by_name[borrowed.stage].firings_within(spec.fired_by(firing) + comes_first)
        yield borrowed.stage, borrowed.cache.name, _rows_there(borrowed.cache, written)


def _rows_there(cache: CacheSpec, firings: int) -> int:
    rows = firings * cache.rows
    return rows if cache.keeps is None else min(rows, cache.keeps)
