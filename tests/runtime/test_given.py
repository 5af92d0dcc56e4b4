"""What callers give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foveal.runtime.given import several, shown


class _Unwritable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("one", ["abc", b"abc", bytearray(b"abc"), 5, None, 1.5])
def test_one_is_one(one: Any) -> None:
    """A text is no row of letters, and bytes no row of ids."""
    assert several(one) == (one,)


def test_an_array_of_no_dimension_is_one() -> None:
    """It says that it can be gone through, and can't be."""
    assert [int(one) for one in several(np.array(3))] == [3]


def test_anything_else_is_gone_through_once() -> None:
    """Also what can be gone through only once."""
    assert several(iter([1, 2])) == several([1, 2]) == several(np.array([1, 2])) == (1, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(10**5000, "a value of int that can't be written", id="digits"),
        (_Unwritable(), "a value of _Unwritable that can't be written"),
        ("a" * 500, f"'{'a' * 199} [...]"),
        (np.float64(0.5), repr(np.float64(0.5))),
    ],
)
def test_every_value_can_be_shown_in_short(value: Any, expected: str) -> None:
    """Python itself writes no int of more than 4300 digits."""
    assert shown(value) == expected
