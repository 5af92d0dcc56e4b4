"""Many tokens in several calls, for engines that take only so many at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Call = Callable[[int, int, npt.NDArray[np.int64]], npt.NDArray[np.float32]]
"""Position, tokens, wanted rows `[N]` -> logits `[B, N, V]`, the caller's own."""


def run_in_calls(
    call: Call, position: int, tokens: int, wanted: npt.NDArray[np.int64], room: Callable[[int], int]
) -> npt.NDArray[np.float32]:
    """Run tokens `[position, position + tokens)` in calls of at most `room(position)` tokens each, which is at least one.

    Returns:
        Logits `[B, N, V]` of the wanted rows, the caller's own.
    """
    if tokens == 1 or tokens <= room(position):
        return call(position, tokens, wanted)
    answers, start = [], 0
    while start < tokens:
        count = min(room(position + start), tokens - start)
        here = wanted[(wanted >= start) & (wanted < start + count)] - start
        answers.append(call(position + start, count, here))
        start += count
    return np.concatenate(answers, axis=1)
