"""What whoever watches is told."""

from __future__ import annotations

import pytest

from foveal.progress import left


@pytest.mark.parametrize(
    ("seconds", "done", "steps", "expected"),
    [
        (0.0, 0, 7, ""),
        (1.0, 1, 7, ""),  # the first step of many is slower than the others
        (4.0, 2, 7, ", about 10 s left"),
        (60.0, 4, 14, ", about 2 min 30 s left"),
        (240.0, 4, 6, ", about 2 min 0 s left"),
        (9.0, 7, 7, ""),
        (9.0, 7, 0, ""),  # nobody knows how many there are
    ],
)
def test_how_long_the_rest_takes(seconds: float, done: int, steps: int, expected: str) -> None:
    """From the second of equal steps on."""
    assert left(seconds, done, steps) == expected
