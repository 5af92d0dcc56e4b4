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
        rows: the logits after each of the tokens that the newest step appended, float32 `[n, V]`, of which `logits` are the
            last; what is rewound of these tokens leaves the logits of those before. None where a step appended none.
    """

    def __init__(self, pending: Ids, watch: Watch | None = None) -> None:
        self.state: State = "queued"
        self.position = 0
        self.logits: npt.NDArray[np.float32] | None = None
        self.rows: npt.NDArray[np.float32] | None = None
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

    def reach(self, tokens: int) -> None:
        """So many tokens are about to be appended: whatever comes of that, their rows may be written."""
        self.reached = max(self.reached, self.position + tokens)

    def go_on(self, tokens: int, rows: npt.NDArray[np.float32] | None = None) -> None:
        """So many tokens were appended; with the logits after each of them, or with none."""
        self.reach(tokens)
        self.position += tokens
        self._hold(rows)

    def go_back(self, tokens: int) -> None:
        """So many tokens, at least one, were taken back."""
        self.position -= tokens
        self.reached = self.reached if self.position else 0
        self._hold(self.rows[:-tokens] if self.rows is not None and tokens < len(self.rows) else None)

    def _hold(self, rows: npt.NDArray[np.float32] | None) -> None:
        self.rows, self.logits = rows, None if rows is None else rows[-1]

    def __repr__(self) -> str:
        return f"<Sequence {self.number}: {self.state}, {self.position} tokens>"
