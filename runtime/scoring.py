"""Log probabilities of a text that is there already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .logprobs import TokenLogprobs, token_logprobs
from .session import Session

SCORED_ROWS = 256
"""Tokens in a call whose logits are all wanted: so many are in memory at once."""


class PromptScorer:
    """Says how likely each id of a prompt was, from the logits of its rows as they come.

    Args:
        ids: of the prompt, `[T]`. Nothing says how likely the first is.
        count: of the likeliest tokens at each place.

    Attributes:
        found: of `ids[1:]`, as far as logits came.
    """

    def __init__(self, ids: Sequence[int], count: int) -> None:
        self.found: list[TokenLogprobs] = []
        self._ids, self._count, self._rows = [int(token) for token in ids], count, 0

    def take(self, logits: npt.NDArray[np.float32]) -> None:
        """The next rows, `[N, V]`."""
        following = self._ids[self._rows + 1 : self._rows + 1 + len(logits)]
        self._rows += len(logits)
        self.found += [token_logprobs(row, token, self._count) for row, token in zip(logits, following, strict=False)]


def append_scored(session: Session, ids: Sequence[int], count: int) -> tuple[list[TokenLogprobs], npt.NDArray[np.float32]]:
    """Append ids to a session of one sequence, and say how likely each was.

    Args:
        session: that the ids are appended to.
        ids: `[T]`, T at least 1.
        count: of the likeliest tokens at each place.

    Returns:
        Of `ids[1:]`, and the logits after the last, float32 `[V]`.

    Raises: as `Session.advance`.
    """
    scorer, given = PromptScorer(ids, count), np.asarray(ids)
    logits = np.empty(0, np.float32)
    for start in range(0, len(given), SCORED_ROWS):
        logits = session.advance(given[None, start : start + SCORED_ROWS])[0]
        scorer.take(logits)
    return scorer.found, logits[-1].copy()
