"""Who leaves a common step with a draft: those for whom a call of their own is expected to take less than what it saves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.runtime.speculation.costs import CallCosts
from foveal.runtime.speculation.step_costs import StepCosts


class Calls(CallCosts):
    """1 for a call, 0.05 for each further token."""

    is_timed = True

    def __init__(self) -> None:
        super().__init__([])
        self.is_timed, self.token, self.learnt = True, 1.0, list[tuple[int, int, float]]()

    def seconds(self, position: int, tokens: int) -> float:
        """As told."""
        return 1 + 0.05 * (tokens - 1)

    def learn(self, position: int, tokens: int, seconds: float) -> None:
        """Notes it."""
        self.is_timed = True
        self.learnt.append((position, tokens, seconds))


def steps_of(known: dict[int, float], period: int = 1) -> StepCosts:
    """That have learnt this."""
    costs = StepCosts(Calls(), period)
    for count, seconds in known.items():
        costs.together(np.arange(count), seconds)
    return costs


def test_steps_between_those_that_were_timed_are_on_a_line() -> None:
    """Beyond them, as a step of one more sequence is expected to take; of none, nothing."""
    costs = steps_of({2: 1.0, 6: 3.0})
    assert [costs.seconds(count) for count in (0, 2, 3, 4, 6)] == [0.0, 1.0, 1.5, 2.0, 3.0]
    assert 0.5 < costs.seconds(1) < 1.0
    assert 3.0 < costs.seconds(8) < 5.0


def test_the_newest_steps_count_and_one_that_was_held_up_hardly_does() -> None:
    """The machine may have done something else."""
    costs = steps_of({4: 1.0})
    costs.together(np.arange(4), 1000.0)
    assert costs.seconds(4) <= 2.5
    for _ in range(200):
        costs.together(np.arange(4), 2.0)
    assert costs.seconds(4) == pytest.approx(2.0, rel=0.01)


def test_a_step_of_one_is_a_call_of_one_token() -> None:
    """Wherever it is learnt; until one was timed, it is as long as what several together take lets expect."""
    costs = steps_of({})
    assert isinstance(costs.calls, Calls)
    costs.together(np.array([7]), 0.5)
    assert costs.calls.learnt == [(7, 1, 0.5)]
    costs.alone(9, 4, 0.7)
    assert costs.calls.learnt[1:] == [(9, 4, 0.7)]
    untimed = StepCosts(Calls(), 1)
    untimed.calls.is_timed = False
    untimed.together(np.arange(5), 2.0)
    assert untimed.calls.learnt == [(0, 1, pytest.approx(1.0))]  # type: ignore[attr-defined]


def test_one_sequence_alone_leaves_for_any_gain() -> None:
    """The step is the call that it would have taken."""
    costs = steps_of({1: 1.0})
    assert costs.leaving(1, [0.1]) == [0]
    assert costs.leaving(1, [-0.1]) == []
    terms = costs.terms(1, 5, is_in_phase=True)
    assert (terms.worth(6), terms.spared) == (1.0, 1.0)


def test_who_falls_out_of_its_phase_is_late_by_half_a_period() -> None:
    """Of tokens of the step; who has none to lose drafts sooner."""
    costs = steps_of({4: 2.0}, period=5)
    assert costs.terms(4, 5, is_in_phase=False).spared == pytest.approx(0.5)
    assert costs.terms(4, 5, is_in_phase=True).spared == pytest.approx(0.5 * (1 - 2))


@given(st.integers(2, 6), st.lists(st.floats(-2, 2), max_size=6), st.floats(0, 1))
def test_those_leave_together_that_save_most(count: int, gains: list[float], row: float) -> None:
    """Of all sets of them, none is expected to save more."""
    gains = gains[:count]
    costs = steps_of({number: 1 + row * (number - 1) for number in range(1, count + 1)})

    def saved(places: list[int]) -> float:
        share = costs.seconds(count) / count
        return sum(gains[place] - share for place in places) + costs.seconds(count) - costs.seconds(count - len(places))

    sets = [[place for place in range(len(gains)) if which >> place & 1] for which in range(1 << len(gains))]
    assert saved(costs.leaving(count, gains)) == pytest.approx(max(map(saved, sets)), abs=1e-9)
