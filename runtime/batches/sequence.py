"""One sequence of a batch: a handle, and what the batch knows of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..rows import Ids

State = Literal["queued", "prefilling", "waiting", "ready", "paused", "left"]
"""In this order: it waits for a slot, its prompt is being appended, it waits for the phase of its slot, it takes a token in the
next step, it was paused, or it has left the batch."""

Watch = Callable[[npt.NDArray[np.float32]], None]
"""Is given the logits of a prompt's rows as they are computed, `[N, V]`."""

_ADVICE: dict[State, str] = {
    "queued": "it waits for a slot; call step without it until it gives its first logits",
    "prefilling": "its prompt is still being appended; call step without it until it gives its first logits",
    "waiting": "it waits for the phase of its slot; call step without it until it gives its logits",
    "paused": "it was paused; resume it, and give it a token when step has given its logits",
    "left": "it has left the batch; join again",
}


class Sequence:
    """A sequence that joined a batch (`Batch.join`). All that changes it are the batch's methods.

    Attributes:
        state: one of `State`.
        position: tokens of it that were appended.
        logits: those of the token after the last, float32 `[V]`; None where there are none: before the prompt is appended, or
            after a rewind.
    """

    def __init__(self, pending: Ids, watch: Watch | None = None) -> None:
        self.state: State = "queued"
        self.position = 0
        self.logits: npt.NDArray[np.float32] | None = None
        self.watch = watch
        self.number, self.pending, self.slot, self.reached = -1, pending, -1, 0

    @property
    def is_live(self) -> bool:
        """Whether it has a slot."""
        return self.slot >= 0

    @property
    def advice(self) -> str:
        """Why it takes no token now, and what to do."""
        return _ADVICE[self.state]

    def go_on(self, tokens: int) -> None:
        """So many tokens were appended."""
        self.position += tokens
        self.reached = max(self.reached, self.position)

    def __repr__(self) -> str:
        return f"<Sequence {self.number}: {self.state}, {self.position} tokens>"
