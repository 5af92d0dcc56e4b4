"""What runs on every change still meets every value, or every pair of values."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from combinations import but_deep, covering

AXES = (("a", "b", "c"), (1, 2), ("x", "y", "z", "w"))


def kept(params: list[Any]) -> list[tuple[Any, ...]]:
    """Values of those that are not deep."""
    return [param.values for param in params if not param.marks]


@pytest.mark.parametrize("together", [1, 2, 3])
def test_every_choice_of_so_many_values_occurs_together(together: int) -> None:
    """In what is not deep, which is no more than it need be: as many as the largest axes have combinations, or few more."""
    found = kept(covering(*AXES, together=together))
    for axes in itertools.combinations(range(len(AXES)), together):
        for values in itertools.product(*(AXES[axis] for axis in axes)):
            assert any(tuple(combination[axis] for axis in axes) == values for combination in found)
    assert len(found) <= {1: 4, 2: 13, 3: 24}[together]


def test_the_deep_profile_holds_all_of_them() -> None:
    """In the order of their product."""
    assert [param.values for param in covering(*AXES)] == list(itertools.product(*AXES))


def test_what_is_kept_by_hand_must_be_there() -> None:
    """A slip would move everything to the deep profile."""
    assert kept(but_deep(["b", ("c", 1)], ["a", "b", ("c", 1), ("c", 2)])) == [("b",), ("c", 1)]
    with pytest.raises(AssertionError, match="are not all among the parameters"):
        but_deep(["d"], ["a", "b"])
