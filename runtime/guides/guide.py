"""Which tokens may come next, so that a text follows a constraint."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Guide(Protocol):
    """Which tokens may come next, token by token, so that the text follows a constraint."""

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Of the next token, `[V]`; waits for what `take` began to compute. All False: nothing may follow, all is
        said."""
        ...

    def take(self, token: int) -> None:
        """Go on by a token that was allowed, and begin to compute what may follow it, in a thread beside the engines."""
        ...

    def fork(self) -> Guide:
        """One of its own at the same place, for several texts from one prompt."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether the text so far satisfies the constraint as it stands."""
        ...

    @property
    def seconds(self) -> float:
        """Spent on computing masks so far."""
        ...

    @property
    def waited_seconds(self) -> float:
        """Of these, `allowed` waited for."""
        ...

    def close(self) -> None:
        """Compute no more."""
        ...
