"""Rates, and what is none."""

from __future__ import annotations

import pytest
from forecasting import engine

from foveal.forecast.rates import Reads


def test_flat() -> None:
    """The same wherever the bytes are."""
    assert Reads.flat(7.0) == Reads(7.0, 7.0)


@pytest.mark.parametrize("given", [(0.0, 1.0), (1.0, 0.0), (1.0, -1.0)])
def test_what_is_no_rate_is_refused(given: tuple[float, float]) -> None:
    """Not above 0."""
    with pytest.raises(ValueError, match="rates above 0"):
        Reads(*given)


def test_what_a_firing_takes_apart_from_bytes() -> None:
    """A stage 1 s; three layers of 2, and of 0.1 for each of 20 columns; five products of 0.5."""
    assert engine(column_s=0.1).launch_s(layers=3, products=5, columns=20) == pytest.approx(1 + 3 * (2 + 2) + 2.5)
