"""Many tokens in several calls, for engines that take only so many at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Call = Callable[[int, int, npt.NDArray[np.int64]], npt.NDArray[np.float32]]
"""Position, tokens, wanted rows `[N]` -> logits `[B, N, V]`, the caller's own."""


def run_in_calls(
    call: Call,
    position: int,
    tokens: int,
    wanted: npt.NDArray[np.int64],
    room: Callable[[int], int],
    room_for: Callable[[int], npt.NDArray[np.float32]] | None = None,
) -> npt.NDArray[np.float32]:
    """Run tokens `[position, position + tokens)` in calls of at most `room(position)` tokens each, which is at least one.

    Args:
        call: runs some of them.
        position: of the first.
        tokens: how many, at least 1.
        wanted: ascending int64 `[N]`: which of them get logits.
        room: how many tokens a call takes that begins at a position.
        room_for: memory for logits `[B, N, V]` of so many rows, of which that of all calls is asked for before the first; None:
            that is found when its shape is known.

    Returns:
        Logits `[B, N, V]` of the wanted rows, the caller's own.
    """
    if tokens == 1 or tokens <= room(position):
        return call(position, tokens, wanted)
    logits = None if room_for is None else room_for(len(wanted))
    start = done = 0
    while start < tokens:
        count = min(room(position + start), tokens - start)
        here = wanted[(wanted >= start) & (wanted < start + count)] - start
        answer = call(position + start, count, here)
        if logits is None:
            logits = np.empty((answer.shape[0], len(wanted), answer.shape[2]), np.float32)
        logits[:, done : done + len(here)] = answer
        start, done = start + count, done + len(here)
    assert logits is not None
    return logits
