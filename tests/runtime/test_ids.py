"""Ids as they are written in options, files and JSON."""

from __future__ import annotations

import pytest

from foveal.runtime.ids import written_id


@pytest.mark.parametrize(("text", "id"), [("0", 0), ("17", 17), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_digits_are_an_id(text: str, id: int) -> None:
    """With zeros before it, too."""
    assert written_id(text) == id


@pytest.mark.parametrize("text", ["", "a", "-1", "+1", " 1", "1\n", "1.0", "1_0", "٣", "9" * 19, "1" * 5000])
def test_anything_else_is_none(text: str) -> None:
    """Signs, spaces, other digits than ASCII's, and more of them than any model's ids have."""
    assert written_id(text) is None
