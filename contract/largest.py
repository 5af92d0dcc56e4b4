"""How large a call of a resident engine may get: engines are built for it, and decoders cut calls by it."""

from __future__ import annotations

from typing import NamedTuple

from .schema import Limits, StageSpec

RECURRENT_FIRINGS = 64
"""Of a stage with a recurrent state: what a call computes grows with their square."""
SPAN_FIRINGS, SPAN_ROWS = 128, 32
"""Of a stage that reads spans: its spans are gathered as if each were as long as the longest, so both are bounded."""


class SpanRoom(NamedTuple):
    """The most rows that the longest span of a call may have, and all of its spans together."""

    longest: int
    block: int


def most_firings(spec: StageSpec, limits: Limits) -> int:
    """The most often that one call can fire a stage, at whatever phase it begins, within its capacity, a page and a period."""
    tokens = limits.prefill if spec.page is None else min(limits.prefill, spec.page)
    most = min(spec.most_firings(tokens), spec.capacity_firings(limits.capacity))
    if spec.is_recurrent:
        most = min(most, RECURRENT_FIRINGS)
    if spec.reads_spans:
        most = min(most, SPAN_FIRINGS)
    return most if spec.resets is None else min(most, spec.resets)


def span_room(limits: Limits) -> SpanRoom:
    """Of a call of several firings. A firing whose span is longer is a call of its own, which has room for any span."""
    return SpanRoom(SPAN_ROWS, max(limits.prefill, SPAN_ROWS))
