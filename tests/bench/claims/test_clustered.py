"""Confidence intervals of values that depend on one another within their window, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.bench.claims.clustered import clustered_mean


@given(st.integers(2, 20), st.integers(1, 9), st.integers(0, 1000))
def test_windows_of_one_size(windows: int, size: int, seed: int) -> None:
    """The standard error of the windows' means."""
    values = np.random.default_rng(seed).normal(size=(windows, size))
    found = clustered_mean(values.ravel(), np.repeat(np.arange(windows), size))
    means = values.mean(axis=1)
    assert found.mean == pytest.approx(means.mean())
    assert found.half_width == pytest.approx(1.96 * means.std(ddof=1) / np.sqrt(windows))


def test_windows_of_different_sizes() -> None:
    """By hand: sums 6 and 1 of sizes 3 and 1; the mean is 7/4, sums lie 3/4 above and below it."""
    found = clustered_mean(np.array([1.0, 2, 3, 1]), np.array([7, 7, 7, 9]))
    assert found.mean == 1.75
    assert found.half_width == pytest.approx(1.96 * np.sqrt(2 * (0.75**2 + 0.75**2)) / 4)


def test_values_that_repeat_within_a_window_say_nothing_new() -> None:
    """Ten copies of each window's value have the interval of one."""
    values = np.array([0.3, -0.2, 0.9, 0.1])
    once = clustered_mean(values, np.arange(4))
    assert clustered_mean(np.repeat(values, 10), np.repeat(np.arange(4), 10)) == pytest.approx(once)


def test_the_interval_covers_the_mean_95_times_in_100() -> None:
    """Of windows that share most of their noise, 60 of up to 9 values."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        sizes = rng.integers(1, 10, 60)
        clusters = np.repeat(np.arange(60), sizes)
        values = rng.normal(size=60)[clusters] + 0.3 * rng.normal(size=len(clusters))
        found = clustered_mean(values, clusters)
        assert found.half_width is not None
        covered += abs(found.mean) <= found.half_width
    assert covered / 400 == pytest.approx(0.95, abs=0.03)


def test_one_window_has_no_interval() -> None:
    """However many values there are in it."""
    assert clustered_mean(np.array([1.0, 2, 3]), np.array([5, 5, 5])) == (2.0, None)
