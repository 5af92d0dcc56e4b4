"""Hierarchy strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal import ConfigError, Hierarchy


@st.composite
def hierarchies(draw: st.DrawFn) -> Hierarchy:
    """Hourglasses of one to four scales."""
    factors = draw(st.lists(st.sampled_from([2, 3, 4, 5, 8, 16]), max_size=3))
    layers = st.integers(0, 3)
    outside = [(draw(layers), draw(layers)) for _ in factors]
    return Hierarchy.nested(outside, draw(st.integers(1, 3)), factors)


@given(hierarchies())
def test_a_string_is_the_hierarchy(hierarchy: Hierarchy) -> None:
    """Writing and reading a hierarchy changes nothing."""
    assert Hierarchy.parse(str(hierarchy)) == hierarchy


def test_strides_and_work() -> None:
    """Factors in the string are total; work is layers over strides."""
    hierarchy = Hierarchy.parse("2@1 1@2 4@8 1@2 2@1")
    assert hierarchy.strides == (1, 2, 8)
    assert hierarchy.factor == 2
    assert str(hierarchy.inner) == "1@1 4@4 1@1"
    assert hierarchy.depth == 10
    assert hierarchy.layer_equivalents == 5.5


def test_one_entry_is_vanilla() -> None:
    """A single level has no inside."""
    hierarchy = Hierarchy.parse("14@1")
    assert hierarchy.is_vanilla
    assert hierarchy.factor == 1
    with pytest.raises(ConfigError, match="nothing inside"):
        _ = hierarchy.inner


def test_an_empty_inside_is_allowed() -> None:
    """lucidrains' depth (2, 0, 2) has no layers in the valley."""
    assert Hierarchy.parse("2@1 0@4 2@1").inner.depth == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2@1 8@4", "palindrome"),
        ("2@1 8@4 2@2", "palindrome"),
        ("2@1 8@4 8@4 2@1", "palindrome"),
        ("2@2", "outermost factor must be 1, got 2"),
        ("", "outermost factor must be 1, got nothing"),
        ("2@1 1@4 4@6 1@4 2@1", "got 6 inside 4"),
        ("2@1 4@1 2@1", "got 1 inside 1"),
        ("0@1", "no layers"),
        ("2@1 x@4 2@1", 'got the entry "x@4"'),
        ("2@1 8@0 2@1", 'got the entry "8@0"'),
        ("2@1 -8@4 2@1", 'got the entry "-8@4"'),
    ],
)
def test_a_malformed_hierarchy_is_refused(text: str, reason: str) -> None:
    """The message says what is wrong and shows a right one."""
    with pytest.raises(ConfigError, match=reason) as caught:
        Hierarchy.parse(text)
    assert "2@1 8@4 2@1" in str(caught.value)
