"""What callers give: one or several of it, and how an error shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_MOST = 200
"""Characters of a value; a longer one would hide what the error says."""


def several(value: object) -> tuple[Any, ...]:
    """Of what may be one, or any number of them; a text is one, and so are bytes."""
    if isinstance(value, str | bytes | bytearray | memoryview) or not isinstance(value, Iterable):
        return (value,)
    try:
        return tuple(value)
    except TypeError:  # an array of no dimension
        return (value,)


def shown(value: object) -> str:
    """A value in short, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # an int of thousands of digits, which Python does not write, or a class of the caller's own
        return f"a value of {type(value).__name__} that can't be written"
    return text if len(text) <= _MOST else f"{text[:_MOST]} [...]"
