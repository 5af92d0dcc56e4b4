"""Ratios of rounds, and how sure they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foveal.bench.ratio import paired_ratio, quantile, unpaired_ratio

VALUES = st.lists(st.floats(0.1, 1000), min_size=2, max_size=12)


@pytest.mark.parametrize("degrees", [1, 2, 5, 20, 21, 30, 60, 500])
def test_quantiles_are_students(degrees: int) -> None:
    """From the table and beyond it; of a fraction those of the whole number below."""
    assert quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-4)
    assert quantile(degrees + 0.9) == quantile(degrees)


@given(st.lists(st.tuples(st.floats(0.1, 1000), st.floats(0.1, 1000)), min_size=2, max_size=12))
def test_a_paired_ratio_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    """The interval of the mean of logarithms."""
    ours, theirs = zip(*pairs, strict=True)
    logs = np.log(ours) - np.log(theirs)
    found = paired_ratio(ours, theirs)
    assert found.ratio == pytest.approx(math.exp(logs.mean()))
    assert found.rounds == len(pairs)
    if logs.std() > 1e-9:
        low, high = stats.t.interval(0.95, len(logs) - 1, loc=logs.mean(), scale=stats.sem(logs))
        assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)), rel=2e-3)


@given(VALUES, VALUES)
def test_an_unpaired_ratio_is_welchs(ours: list[float], theirs: list[float]) -> None:
    """At least as wide, by less than the next whole number of degrees of freedom."""
    logs = np.log(ours), np.log(theirs)
    found = unpaired_ratio(ours, theirs)
    assert found.ratio == pytest.approx(math.exp(logs[0].mean() - logs[1].mean()))
    if min(one.std() for one in logs) > 1e-6:
        low, high = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
        assert found.low is not None
        assert found.high is not None
        assert math.log(found.low) <= low + 1e-3 * abs(low)
        assert math.log(found.high) >= high - 1e-3 * abs(high)


def test_what_disturbs_both_of_a_round_does_not_count() -> None:
    """Paired: rounds that are slow for both leave the interval narrow, as it is not where they are taken by themselves."""
    quiet, noisy = [100.0, 50.0, 100.0, 25.0], [200.0, 100.5, 199.0, 50.0]
    paired, unpaired = paired_ratio(noisy, quiet), unpaired_ratio(noisy, quiet)
    assert paired.differs
    assert not unpaired.differs
    assert paired.ratio == pytest.approx(unpaired.ratio)


def test_one_round_says_how_much_and_not_how_sure() -> None:
    """There is no interval."""
    for found in (paired_ratio([2.0], [1.0]), unpaired_ratio([2.0, 2.0], [1.0])):
        assert (found.ratio, found.low, found.high, found.differs) == (pytest.approx(2), None, None, False)
