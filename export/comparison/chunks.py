"""How a sequence is cut into calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def random_chunks(length: int, seed: int, most: int = 11) -> list[int]:
    """Lengths of at most `most` that add up to `length`: calls that begin and end at any phase."""
    rng = np.random.default_rng(seed)
    chunks: list[int] = []
    while (left := length - sum(chunks)) > 0:
        chunks.append(min(left, int(rng.integers(1, most + 1))))
    return chunks


def spans(chunks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of each chunk."""
    start = 0
    for length in chunks:
        yield start, start + length
        start += length
