"""Phases of slots: what fires together stands side by side, and every step costs the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import ahead, hourglass, top_down

from foveal import ConfigError
from foveal.contract import period_of
from foveal.runtime.batches.phases import best_slot, check_policy, modulus_of, phases_of, step_costs
from foveal.runtime.batches.ranges import ranges_of


@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 40))
def test_staggered_slots_that_fire_a_stage_together_are_one_run(k: int, inner: int, slots: int) -> None:
    """For every stage of nested strides, at every step of a period, however many slots there are."""
    for program in (hourglass(k, inner), ahead(k, inner), top_down(k)):
        phases = np.array(phases_of(program, slots, "staggered"))
        for spec in program:
            for step in range(period_of(program)):
                fires = (phases + step - spec.delay) % spec.stride == 0
                assert len(ranges_of(fires, np.zeros(slots, bool))) <= 1


@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 4))
def test_staggered_steps_of_a_full_batch_cost_the_same(k: int, inner: int, times: int) -> None:
    """Where slots divide into phases; aligned, one in a period costs all of it."""
    program, slots = hourglass(k, inner), k * inner * times
    taken = np.ones(slots, bool)
    staggered = step_costs(program, phases_of(program, slots, "staggered"), taken)
    aligned = step_costs(program, phases_of(program, slots, "aligned"), taken)
    assert staggered.max() == staggered.min()
    assert aligned.max() > staggered.max()
    assert (modulus_of(program, "staggered"), modulus_of(program, "aligned")) == (k * inner, k * inner)


def test_phases_by_hand() -> None:
    """Eight slots over strides 1, 2 and 4: the slots of a residue of 2 are halves, those of a residue of 4 quarters."""
    assert phases_of(hourglass(2, 2), 8, "staggered") == [0, 0, 2, 2, 1, 1, 3, 3]
    assert phases_of(hourglass(2, 2), 2, "staggered") == [0, 1]
    assert phases_of(hourglass(2, 2), 3, "aligned") == [0, 0, 0]
    assert phases_of(top_down(3), 6, "staggered") == [0, 0, 1, 1, 2, 2]


def test_stages_that_fire_at_the_close_count_from_there() -> None:
    """Their costly step is that of the last token of a group."""
    opens, closes = hourglass(4, 2), top_down(4)
    taken = np.ones(1, bool)
    assert step_costs(opens, [0], taken).argmax() == 0
    assert step_costs(closes, [0], taken).argmax() == 3


def test_the_best_slot_spreads_what_is_costly() -> None:
    """The second sequence goes where the first does not fire, if the coarse stage is what costs; then the others' halves."""
    program = hourglass(2, 2)
    phases, taken = phases_of(program, 4, "staggered"), np.zeros(4, bool)
    order = []
    for _ in range(4):
        order.append(best_slot(program, phases, taken))
        taken[order[-1]] = True
    assert sorted(order) == [0, 1, 2, 3]
    costs = [step_costs(program, phases, np.array([slot in order[:count] for slot in range(4)])).max() for count in (2, 4)]
    assert costs[0] <= costs[1]


def test_policies_that_there_are() -> None:
    """Another is refused with those."""
    check_policy("aligned")
    with pytest.raises(ConfigError, match='got policy "eager", expected one of: staggered, aligned'):
        check_policy("eager")
