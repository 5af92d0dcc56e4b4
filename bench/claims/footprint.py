"""Bytes that a bundle takes, by arithmetic: what the manifest and the sidecars say."""

from __future__ import annotations

from typing import NamedTuple

from ...bundle import Bundle
from ...contract import leads_of

_ROW_ITEM = 4  # rows between stages are fp32


class Footprint(NamedTuple):
    """Bytes of one sequence, as `MemoryCase`."""

    weights: int
    tables: int
    caches: int
    rows: int


def footprint(bundle: Bundle, target: str, tokens: int) -> Footprint:
    """What a bundle takes with `tokens` tokens in a session that has room for no more."""
    entries = bundle.manifest.stages
    specs = [entry.spec for entry in entries]
    leads, caches, rows = leads_of(specs), 0, 0
    for spec in specs:
        firings, row_bytes = spec.capacity_firings(tokens), bundle.cache_row_bytes(target, spec)
        caches += sum(cache.length(firings) * row_bytes[cache.name] for cache in spec.caches)
        if spec.output == "hidden":
            rows += (leads[spec.name] + firings * spec.output_rows) * spec.width * _ROW_ITEM
    return Footprint(
        weights=sum(entry.weight_bytes for entry in entries),
        tables=sum(entry.table_bytes for entry in entries),
        caches=caches,
        rows=rows,
    )
