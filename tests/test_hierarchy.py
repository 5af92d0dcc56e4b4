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
        ("2@1 1@4 4@6 1@4 2@1", "got 6 inside 4"),
        ("2@1 4@1 2@1", "got 1 inside 1"),
    ],
)
def test_no_hourglass(text: str, reason: str) -> None:
    """The message says what is wrong and shows a right one."""
    with pytest.raises(ConfigError, match=reason) as caught:
        Hierarchy.parse(text).require_hourglass()
    assert "2@1 8@4 2@1" in str(caught.value)


@given(hierarchies())
def test_an_hourglass_is_one(hierarchy: Hierarchy) -> None:
    """Of any depth, with any factors."""
    assert hierarchy.require_hourglass() is hierarchy


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("4@16 3@4 4@2", "the last factor must be 1, got 2"),
        ("2@1 8@4", "the last factor must be 1, got 4"),
        ("4@16 3@6 4@1", "each factor must be a larger multiple of the one outside it, got 16 inside 6"),
        ("2@1 8@4 2@1", "got 1 inside 4"),
        ("3@4 3@4 2@1", "got 4 inside 4"),
    ],
)
def test_no_descent(text: str, reason: str) -> None:
    """A top-down model goes from coarse to fine; the message shows one that does."""
    with pytest.raises(ConfigError, match=reason) as caught:
        Hierarchy.parse(text).require_descent()
    assert str(caught.value).endswith('write for instance "4@16 3@4 4@1"')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("4@1 3@4", r"factors must start at 1, grow, and end with 1, got \[1, 4\]"),
        ("4@2 3@4 1@1", r"must start at 1, grow, and end with 1, got \[2, 4, 1\]"),
        ("4@1 3@4 1@2", r"must start at 1, grow, and end with 1, got \[1, 4, 2\]"),
        ("4@1", r"must start at 1, grow, and end with 1, got \[1\]"),
        ("4@1 3@4 1@6 1@1", "got 6 inside 4"),
        ("4@1 3@1 1@1", "got 1 inside 1"),
    ],
)
def test_no_ascent(text: str, reason: str) -> None:
    """A bottom-up model goes from fine to coarse and back in one go; the message shows one that does."""
    with pytest.raises(ConfigError, match=reason) as caught:
        Hierarchy.parse(text).require_ascent()
    assert str(caught.value).endswith('write for instance "2@1 2@4 2@16 2@1"')


@pytest.mark.parametrize(("text", "got"), [("4@1 3@4 1@1", r"\[1, 4, 1\]"), ("4@2", r"\[2\]")])
def test_not_one_scale(text: str, got: str) -> None:
    """The message shows one that is."""
    with pytest.raises(ConfigError, match=f"there must be one level, at factor 1, got {got}; write for instance") as caught:
        Hierarchy.parse(text).require_one_scale()
    assert str(caught.value).endswith('"6@1"')


def test_orders_that_make_sense_to_some_architecture() -> None:
    """Each gives the hierarchy back."""
    for text, required in {
        "14@1": (Hierarchy.require_hourglass, Hierarchy.require_descent, Hierarchy.require_one_scale),
        "4@16 3@4 4@1": (Hierarchy.require_descent,),
        "2@1 2@4 2@16 2@1": (Hierarchy.require_ascent,),
        "2@1 8@4 2@1": (Hierarchy.require_hourglass, Hierarchy.require_ascent),
    }.items():
        hierarchy = Hierarchy.parse(text)
        assert all(require(hierarchy) is hierarchy for require in required)


@given(hierarchies())
def test_strides_are_the_scales(hierarchy: Hierarchy) -> None:
    """Finest first, whichever way the levels go."""
    levels = hierarchy.levels[len(hierarchy.levels) // 2 :]
    assert Hierarchy(levels).strides == hierarchy.strides == Hierarchy(levels[::-1]).strides


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no layers at all"),
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


def test_a_slip_of_the_pen() -> None:
    """Layers are counted before any is built."""
    with pytest.raises(ConfigError, match="the model would have 2,147,483,648 layers, expected at most 4,096"):
        Hierarchy.parse("2147483648@1")
