"""Bytes that decoding must read: weights by firing rate, cached rows by how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..bundle import Bundle
from ..contract import CacheSpec, StageSpec


class Traffic(NamedTuple):
    """Bytes per token."""

    weights: float
    caches: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.caches


def bytes_per_token(bundle: Bundle, target: str, position: int, tokens: int) -> Traffic:
    """What decoding tokens `[position, position + tokens)` one by one must read, per token, with a batch of one.

    Tables are looked up row by row and do not count. Of a cache that keeps a fixed number of rows, no more than those are read;
    of a stage that resets, those since the last reset; of a borrowed cache, those that its stage has written by then.
    """
    weights = caches = 0
    specs = [entry.spec for entry in bundle.manifest.stages]
    row_bytes = {spec.name: bundle.cache_row_bytes(target, spec) for spec in specs}
    for entry in bundle.manifest.stages:
        firings = entry.spec.firings(position, tokens)
        weights += (entry.weight_bytes - entry.table_bytes) * len(firings)
        for firing in firings:
            caches += sum(rows * row_bytes[stage][name] for stage, name, rows in _rows_read(specs, entry.spec, firing))
    return Traffic(weights / tokens, caches / tokens)


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
