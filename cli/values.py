"""Values that options take as text: shares, and numbers separated by commas."""

from __future__ import annotations

from typing import TypeVar

from ..errors import ConfigError

Number = TypeVar("Number", int, float)
_WORDS: dict[type, str] = {int: "whole numbers", float: "numbers"}


def parse_share(text: str, what: str = "the budget") -> float:
    """`"1%"` or `"0.01"`; raises ConfigError for anything else, in which it is called `what`."""
    number, scale = (text[:-1], 100) if text.endswith("%") else (text, 1)
    try:
        return float(number) / scale
    except ValueError:
        raise ConfigError(f'{what} is "{text}", expected a share such as 1% or 0.01') from None


def parse_numbers(given: str, kind: type[Number], option: str) -> tuple[Number, ...]:
    """Numbers separated by commas.

    Raises:
        ConfigError: something that is none.
    """
    try:
        return tuple(kind(part) for part in given.split(","))
    except ValueError as error:
        raise ConfigError(f'{option} is "{given}", expected {_WORDS[kind]} separated by commas') from error


def parse_counts(given: str, option: str) -> list[int]:
    """Different whole numbers from 1 on, separated by commas.

    Raises:
        ConfigError: anything else, or a number twice.
    """
    parts = given.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts) or len({int(part) for part in parts}) != len(parts):
        raise ConfigError(f'{option} is "{given}", expected different numbers of at least 1, separated by commas, such as 1,2')
    return [int(part) for part in parts]
