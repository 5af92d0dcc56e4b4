"""What generation asks of a constraint."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Guide(Protocol):
    """Which tokens may come next, token by token, so that the text follows a constraint.

    For one thread at a time. `allowed`, `take`, `is_whole` raise InputError where the constraint can't be followed on (a limit
    of its library, or a tokenizer that can't write what has to come), and once it is closed.
    """

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Of the next token, `[V]`, read-only; waits for what `take` began to compute.

        All False: nothing may follow, the text is whole.
        """
        ...

    def take(self, token: int) -> None:
        """Go on by a token that was allowed, and begin to compute what may follow it, in a thread beside the engines.

        Raises:
            InputError: a token that is not allowed here; the guide stays where it was.
        """
        ...

    def fork(self) -> Guide:
        """One of its own at the same place (n texts from one prompt)."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether the text so far satisfies the constraint as it stands."""
        ...

    @property
    def seconds(self) -> float:
        """Spent computing masks, in whichever thread."""
        ...

    @property
    def waited_seconds(self) -> float:
        """Of these, those that the caller waited for."""
        ...

    def close(self) -> None:
        """Let go of its memory; it can't be asked any more."""
        ...
