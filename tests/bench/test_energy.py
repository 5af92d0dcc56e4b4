"""From samples to joules: exact for power that is linear between samples, and refused where they are too few."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.bench.power.energy import PowerWindow, energy_j, summarise_window, why_too_thin
from foveal.bench.power.result import PowerResult, power_result
from foveal.bench.power.sampler import PowerSamples

SECOND = 1_000_000_000
knots = st.lists(st.tuples(st.integers(1, 5 * SECOND), st.floats(-1, 1000)), min_size=2, max_size=12)


def line_through(gaps: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Corners of a curve of power, from the times between them."""
    at, corners = 10**15, []  # a machine that has been up for eleven days
    for gap, watts in gaps:
        at += gap
        corners.append((at, watts))
    return corners


def closed_form(corners: list[tuple[int, float]], began: int, ended: int) -> float:
    """The integral of the curve: of each straight piece, as p t + s t^2 / 2 between its ends."""
    joules = 0.0
    for (start, low), (end, high) in pairwise(corners):
        slope = (high - low) / ((end - start) * 1e-9)
        first, last = max(start, began), min(end, ended)
        if first < last:
            a, b = (first - start) * 1e-9, (last - start) * 1e-9
            joules += low * (b - a) + slope * (b * b - a * a) / 2
    return joules


def samples_of(corners: list[tuple[int, float]]) -> PowerSamples:
    return PowerSamples(time_ns=[at for at, _ in corners], watts=[watts for _, watts in corners])


def steady(watts: float, seconds: float, count: int) -> PowerWindow:
    """A window of constant power, sampled evenly."""
    step = seconds / count
    times = [round((number + 0.5) * step * SECOND) for number in range(count)]
    return summarise_window(PowerSamples(time_ns=times, watts=[watts] * count), 0, round(seconds * SECOND))


@given(knots, st.floats(0, 1), st.floats(0, 1))
def test_piecewise_linear_power_is_integrated_exactly(gaps: list[tuple[int, float]], first: float, second: float) -> None:
    """Between any two times inside the samples, on a sample or between two."""
    corners = line_through(gaps)
    start, end = corners[0][0], corners[-1][0]
    began, ended = sorted(start + round(share * (end - start)) for share in (first, second))
    expected = closed_form(corners, began, ended)
    assert energy_j(samples_of(corners), began, ended) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(knots, st.data())
def test_more_samples_of_the_same_curve_change_nothing(gaps: list[tuple[int, float]], data: st.DataObject) -> None:
    """The trapezoidal rule, not a mean of samples: their spacing has no weight."""
    corners = line_through(gaps)
    start, end = corners[0][0], corners[-1][0]
    whole = energy_j(samples_of(corners), start, end)
    (left, low), (right, high) = data.draw(st.sampled_from(list(pairwise(corners))))
    extra = data.draw(st.integers(left, right))
    middle = (extra, low + (high - low) * (extra - left) / (right - left))
    assert energy_j(samples_of(sorted([*corners, middle])), start, end) == pytest.approx(whole, rel=1e-9, abs=1e-6)


def test_beyond_the_samples_power_is_held() -> None:
    """Where the sensor began late or ended early."""
    assert energy_j(PowerSamples(time_ns=[SECOND, 2 * SECOND], watts=[4.0, 6.0]), 0, 4 * SECOND) == 4 + 5 + 2 * 6


def test_a_window_of_uneven_samples() -> None:
    """The mean is over time; the peak is a reading; the longest time without one counts the ends too."""
    samples = PowerSamples(time_ns=[0, SECOND, 2 * SECOND, 6 * SECOND, 9 * SECOND], watts=[99.0, 2.0, 4.0, 8.0, 99.0])
    window = summarise_window(samples, SECOND, 8 * SECOND)
    assert (window.count, window.seconds, window.longest_gap_s, window.peak_w) == (3, 7, 4, 8)
    assert window.energy_j == pytest.approx(3 + 24 + 2 * (8 + (8 + 2 / 3 * 91)) / 2)
    assert window.mean_w == pytest.approx(window.energy_j / 7)


def test_idle_is_subtracted_for_as_long_as_the_window_lasted() -> None:
    """7 W above 5 W for 20 s and 1000 tokens."""
    result = power_result(steady(12, 20, 400), 1000, steady(5, 5, 100))
    assert (result.mean_w, result.peak_w, result.missing) == (pytest.approx(12), 12, None)
    assert (result.energy_j, result.energy_net_j) == (pytest.approx(240), pytest.approx(140))
    assert (result.j_per_token, result.j_per_token_net) == (pytest.approx(0.24), pytest.approx(0.14))
    assert result.tokens_per_j == pytest.approx(1000 / 240)
    assert msgspec.json.decode(msgspec.json.encode(result), type=PowerResult) == result


@pytest.mark.parametrize(
    ("window", "why"),
    [
        (steady(1, 9.5, 400), "400 power samples in 9.5 s are too few for a figure, at least 100 in 10 s are needed"),
        (steady(1, 11, 99), "99 power samples in 11.0 s are too few for a figure, at least 100 in 10 s are needed"),
        (steady(1, 10, 100), None),
    ],
)
def test_too_few_samples(window: PowerWindow, why: str | None) -> None:
    """Both numbers, and what would be enough."""
    assert why_too_thin(window) == why


def test_samples_in_a_burst_are_no_measurement() -> None:
    """A tool that buffers its lines gives many at once, then none for long."""
    burst = PowerSamples(time_ns=[SECOND + n for n in range(200)] + [11 * SECOND], watts=[3.0] * 201)
    window = summarise_window(burst, 0, 12 * SECOND)
    assert why_too_thin(window) == "201 power samples in 12.0 s leave a gap of 10.0 s, at most 1 s may pass between two"


def test_no_figure_without_samples_but_the_samples_stay() -> None:
    """Nulls with a reason; what there is can be looked at."""
    thin = power_result(steady(12, 4, 80), 10, steady(5, 5, 100))
    assert (thin.mean_w, thin.peak_w, thin.energy_j, thin.energy_net_j, thin.j_per_token, thin.tokens_per_j) == (None,) * 6
    assert "80 power samples in 4.0 s are too few" in (thin.missing or "")
    assert len(thin.window.samples.watts) == 80


def test_without_a_baseline_only_gross_figures() -> None:
    """The rest says that idle was not measured well enough."""
    result = power_result(steady(12, 20, 400), 1000, steady(5, 2, 40))
    assert result.j_per_token == pytest.approx(0.24)
    assert (result.energy_net_j, result.j_per_token_net) == (None, None)
    assert result.missing == "net of idle: 40 power samples in 2.0 s are too few for a figure, at least 30 in 3 s are needed"
