"""Percentiles that mean something."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.bench.statistics import METHOD, Summary, percentile, summarise


def test_nearest_rank() -> None:
    """The sample at rank ceil(p n), never an invented one."""
    ordered = [float(n) for n in range(1, 1001)]
    assert [percentile(ordered, share) for share in (0.5, 0.9, 0.95, 0.99)] == [500, 900, 950, 990]


@pytest.mark.parametrize(("share", "enough"), [(0.9, 100), (0.95, 200), (0.99, 1000)])
def test_too_few_samples_give_no_percentile(share: float, enough: int) -> None:
    """Fewer than ten samples beyond it say nothing; the p99 of twenty samples would be their maximum."""
    assert percentile([1.0] * (enough - 1), share) is None
    assert percentile([1.0] * enough, share) == 1.0


def test_no_samples() -> None:
    """Nulls, not zeros."""
    summary = summarise([], "ms")
    assert (summary.count, summary.mean, summary.p50) == (0, None, None)
    assert summary.method == METHOD


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_summaries_survive_json(samples: list[float]) -> None:
    """Zeros and nulls included; and the figures lie in their order."""
    summary = summarise(samples, "ms")
    assert msgspec.json.decode(msgspec.json.encode(summary), type=Summary) == summary
    assert summary.min is not None
    assert summary.max is not None
    assert summary.p50 is not None
    assert summary.min <= summary.p50 <= summary.max
