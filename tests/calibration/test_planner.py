"""Plans are the best there are: what brute force finds too."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal import BackendUnavailable, ConfigError
from foveal.calibration.planner import Choice, Option, Unit, choose, frontier, plan_of_choice, uniform_choice
from foveal.precision import Plan

PRECISIONS = ("fp32", "int8", "w8", "w4")
STEP = 1e-4
"""Of losses; times go in tenths. On a grid, sums are equal or well apart."""


def unit(name: str, *options: tuple[int, int], stage: str | None = None) -> Unit:
    """A unit with options (time in tenths of a millisecond, loss in steps), by precision."""
    made = [
        Option(precision=precision, ms_per_token=time / 10, loss=loss * STEP)
        for precision, (time, loss) in zip(PRECISIONS, options, strict=False)
    ]
    return Unit(name=name, stage=stage or name, options=tuple(made))


options = st.tuples(st.integers(0, 40), st.integers(-3, 30))
unit_lists = st.lists(st.lists(options, min_size=1, max_size=4), min_size=1, max_size=5).map(
    lambda given: [unit(str(index), *made) for index, made in enumerate(given)]
)


def all_sums(units: Sequence[Unit]) -> list[tuple[int, int]]:
    """Time and loss of every combination there is, in whole tenths and steps; a negative loss is none."""
    return [
        (
            sum(round(option.ms_per_token * 10) for option in combination),
            sum(max(round(option.loss / STEP), 0) for option in combination),
        )
        for combination in itertools.product(*(unit.options for unit in units))
    ]


def sums(choice: Choice) -> tuple[int, int]:
    """Time and loss of a choice, in the same numbers."""
    return round(choice.ms_per_token * 10), round(choice.predicted_loss / STEP)


def taken(choice: Choice, units: Sequence[Unit]) -> list[Option]:
    """The options a choice stands for."""
    return [next(o for o in unit.options if o.precision == choice.precisions[unit.name]) for unit in units]


@given(unit_lists, st.integers(0, 100))
def test_no_combination_is_better(units: list[Unit], steps: int) -> None:
    """The fastest within the budget, and of those the one of least loss; or none is within it."""
    within = [(time, loss) for time, loss in all_sums(units) if loss <= steps]
    if not within:
        with pytest.raises(ConfigError, match="no choice keeps the loss within"):
            choose(units, steps * STEP)
        return
    choice = choose(units, steps * STEP)
    assert sums(choice) == min(within)
    found = taken(choice, units)
    assert choice.ms_per_token == pytest.approx(sum(option.ms_per_token for option in found))
    assert choice.predicted_loss == pytest.approx(sum(max(option.loss, 0) for option in found))


@given(unit_lists)
def test_the_frontier_is_all_that_nothing_beats(units: list[Unit]) -> None:
    """By rising loss and falling time, each point once."""
    combinations = set(all_sums(units))
    best = [
        (time, loss)
        for time, loss in combinations
        if not any(other != (time, loss) and other[0] <= time and other[1] <= loss for other in combinations)
    ]
    assert [sums(choice) for choice in frontier(units)] == sorted(best, key=lambda point: point[1])


def test_a_frontier_of_a_few_points() -> None:
    """Those of the largest losses, where it says the most about speed."""
    units = [unit(str(n), (40, 0), (20 + n, 3 + n)) for n in range(5)]
    every = frontier(units)
    assert len(every) == 6
    assert frontier(units, most=4) == every[-4:]


@pytest.mark.parametrize("seed", [16, 21, 34, 41])
def test_savings_below_a_hundredth_of_a_percent_count(seed: int) -> None:
    """The solver stops there unless it is told not to: it missed each of these, among 4^14 combinations."""
    rng = np.random.default_rng(seed)
    drawn = [(1 + rng.random(4) * 0.01, rng.random(4) * 0.01) for _ in range(14)]
    budget = float(rng.random() * 0.07)
    units = [
        Unit(
            name=str(index),
            stage=str(index),
            options=tuple(
                Option(precision=precision, ms_per_token=float(time), loss=float(loss))
                for precision, time, loss in zip(PRECISIONS, times, losses, strict=True)
            ),
        )
        for index, (times, losses) in enumerate(drawn)
    ]
    choice = choose(units, budget)
    assert choice.ms_per_token == pytest.approx(least_time(units, budget), rel=2e-6)
    assert choice.predicted_loss <= budget * (1 + 2e-6)


def least_time(units: Sequence[Unit], budget: float) -> float:
    """Exact, unit by unit: of the sums so far, those that another beats in both can't become the best."""
    sums = np.zeros((1, 2))
    for unit in units:
        sums = (sums[:, None] + [(option.ms_per_token, option.loss) for option in unit.options]).reshape(-1, 2)
        sums = sums[sums[:, 1] <= budget]
        sums = sums[np.lexsort((sums[:, 1], sums[:, 0]))]
        sums = sums[sums[:, 1] < np.concatenate([[np.inf], np.minimum.accumulate(sums[:-1, 1])])]
    return float(sums[0, 0])


def test_a_known_optimum() -> None:
    """It pays to spend the budget where it saves most, not where it costs least."""
    units = [unit("a", (100, 0), (90, 1)), unit("b", (100, 0), (50, 10)), unit("c", (100, 0), (95, 2))]
    for steps, expected in ((0, "000"), (1, "100"), (9, "101"), (10, "010"), (12, "110"), (13, "111")):
        choice = choose(units, steps * STEP)
        assert [PRECISIONS.index(choice.precisions[name]) for name in "abc"] == [int(digit) for digit in expected]


def test_a_budget_of_nothing() -> None:
    """Only what costs no loss at all; noise below zero is none, and no credit for others."""
    units = [unit("a", (30, 0), (20, 0), (10, 1)), unit("b", (30, 0), (20, -5), (10, 4))]
    choice = choose(units, 0)
    assert choice.precisions == {"a": "int8", "b": "int8"}
    assert choice.predicted_loss == 0


def test_among_equally_fast_ones_the_least_loss() -> None:
    """Whatever the budget allows, and in any order."""
    for order in itertools.permutations([(20, 7), (20, 3), (20, 5), (30, 0)]):
        choice = choose([unit("a", *order)], 1.0)
        assert sums(choice) == (20, 3)


def test_a_budget_that_no_choice_keeps() -> None:
    """The smallest loss there is is named; a budget of just that will do, however its sum is rounded."""
    units = [unit("a", (10, 3), (5, 9)), unit("b", (10, 4), (5, 20))]
    reason = "no choice keeps the loss within 0.050%: the smallest is 0.070%; allow more"
    with pytest.raises(ConfigError, match=reason):
        choose(units, 5 * STEP)
    assert sums(choose(units, 7 * STEP)) == (20, 7)


def test_a_precision_whose_logits_are_no_numbers_is_not_chosen() -> None:
    """Its loss is infinite: nothing keeps it, and no other choice suffers from it."""
    broken = Option(precision="fp16", ms_per_token=0.1, loss=float("inf"))
    units = [
        msgspec.structs.replace(one, options=(*one.options, broken)) for one in (unit("a", (10, 0), (5, 9)), unit("b", (10, 0)))
    ]
    assert choose(units, 20 * STEP).precisions == {"a": "int8", "b": "fp32"}
    assert all(choice.predicted_loss >= 1 or "fp16" not in choice.precisions.values() for choice in frontier(units))


@pytest.mark.parametrize("budget", [float("nan"), -0.01])
def test_a_budget_that_is_none(budget: float) -> None:
    """What was got, and how a budget is written."""
    with pytest.raises(ConfigError, match=f"the budget is {budget}, expected a share of at least 0, for instance 0.01 for 1 %"):
        choose([unit("a", (1, 0))], budget)


def test_nothing_to_choose_from() -> None:
    """No units, or a unit without options."""
    with pytest.raises(ConfigError, match="there is nothing to choose a precision for; give at least one unit"):
        choose([], 0.01)
    with pytest.raises(ConfigError, match="b has no precision to choose from; give at least one option"):
        choose([unit("a", (1, 0)), unit("b")], 0.01)


def test_one_precision_for_everything() -> None:
    """With the sums of its times and losses."""
    units = [unit("a", (10, 0), (5, 3)), unit("b", (20, 0), (8, -2))]
    choice = uniform_choice(units, "int8")
    assert choice.precisions == {"a": "int8", "b": "int8"}
    assert sums(choice) == (13, 3)


def test_without_a_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that installs it."""
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(BackendUnavailable, match=r"planning precisions needs scipy: pip install '\.\[export\]'"):
        choose([unit("a", (1, 0))], 0.01)


def test_the_plan_of_a_choice() -> None:
    """Stages by their name, products as exceptions; what is chosen for all is the default."""
    units = [unit("1.pre", (9, 0), (5, 1)), unit("4/stack/up", (9, 0), (5, 9), stage="4"), unit("4/exit", (3, 0), stage="4")]
    plan = plan_of_choice(choose(units, 1 * STEP), units, head=False, embedding=True)
    assert plan == Plan(stages={"1.pre": "int8"}, products={"4/stack/up": "fp32", "4/exit": "fp32"}, head=False, embedding=True)
    assert plan.label == "mixed"
    uniform = [unit("1.pre", (9, 0), (5, 1)), unit("4", (9, 0), (5, 9))]
    plan = plan_of_choice(choose(uniform, 10 * STEP), uniform)
    assert plan == Plan(default="int8", stages={"1.pre": "int8", "4": "int8"})
    assert plan.label == "int8"
