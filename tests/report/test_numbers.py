"""How figures are written."""

from __future__ import annotations

import pytest

from foveal.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1725.4, "1,725"),
        (100.0, "100"),
        (99.96, "100"),
        (26.23, "26.2"),
        (9.999, "10.0"),
        (0.3777, "0.378"),
        (0.0, "0"),
        (None, "-"),
    ],
)
def test_three_digits(value: float | None, text: str) -> None:
    """Large numbers whole, what is not known a dash."""
    assert numbers.significant(value) == text


def test_tiny_figures_have_an_exponent() -> None:
    """Instead of a row of zeros."""
    assert numbers.significant(1.234e-6) == "1.2e-06"


@pytest.mark.parametrize(("share", "text"), [(0.463, "46 %"), (0.0042, "0.4 %"), (1.0, "100 %"), (0.0, "0 %"), (None, "-")])
def test_percent(share: float | None, text: str) -> None:
    """With a digit more below one."""
    assert numbers.percent(share) == text


@pytest.mark.parametrize(("share", "text"), [(0.000348, "+0.035 %"), (-0.0121, "-1.2 %"), (0.0, "+0 %")])
def test_changes_have_a_sign(share: float, text: str) -> None:
    """Two digits."""
    assert numbers.change(share) == text


def test_sizes_and_counts() -> None:
    """MB are 1e6 bytes; small models are counted in full."""
    assert numbers.megabytes(26_230_000) == "26.2"
    assert (numbers.millions(5_772_288), numbers.millions(9_120)) == ("5.77 M", "9,120")


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (112, "112th")]
)
def test_ordinals(number: int, text: str) -> None:
    """As English has them."""
    assert numbers.ordinal(number) == text


def test_how_often_a_stage_fires() -> None:
    """By its stride, or as the data decides."""
    assert [numbers.often(1, None), numbers.often(4, None), numbers.often(1, 4.5)] == [
        "every token",
        "every 4th token",
        "one token in 4.5, as the data decides",
    ]


def test_ratios() -> None:
    """Two digits behind the point, unless there are many in front of it."""
    assert [numbers.times(ratio) for ratio in (0.8, 1.314, 43989042699629.23)] == ["0.80", "1.31", "43,989,042,699,629"]


def test_lists() -> None:
    """With an "and"."""
    assert [numbers.listed(parts) for parts in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
