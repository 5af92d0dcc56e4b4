"""Log probabilities of a text that is there already."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .logprobs import TokenLogprobs, token_logprobs
from .session import Session

SCORED_ROWS = 256
"""Tokens in a call whose logits are all wanted: so many are in memory at once."""


def bits_per_byte(nats: float, tokens: int, size: int | None) -> float | None:
    """Of a text, as if its first token, which nothing says the likelihood of, cost as much as the others do on average.

    Args:
        nats: of a token, on average.
        tokens: how many there are.
        size: of the text, in bytes; None, or 0, where nobody knows it: then there is no such figure.
    """
    return nats * tokens / (math.log(2) * size) if size else None


class PromptScorer:
    """Says how likely each id of a prompt was, from the logits of its rows as they come.

    Args:
        ids: of the prompt, `[T]`. Nothing says how likely the first is.
        count: of the likeliest tokens at each place.
        first: of the ids, the first to score, at least 1.

    Attributes:
        found: of `ids[first:]`, as far as logits came.
    """

    def __init__(self, ids: Sequence[int], count: int, first: int = 1) -> None:
        self.found: list[TokenLogprobs] = []
        self._ids, self._count, self._first, self._place = [int(token) for token in ids], count, first, 0

    def take(self, logits: npt.NDArray[np.float32]) -> None:
        """The next rows, `[N, V]`."""
        for row in logits:
            self._place += 1
            if self._first <= self._place < len(self._ids):
                self.found.append(token_logprobs(row, self._ids[self._place], self._count))


def append_scored(
    session: Session, ids: Sequence[int], count: int, first: int = 1
) -> tuple[list[TokenLogprobs], npt.NDArray[np.float32]]:
    """Append ids to a session of one sequence, and say how likely each was.

    Args:
        session: that the ids are appended to.
        ids: `[T]`, T at least 1.
        count: of the likeliest tokens at each place.
        first: of the ids, the first to score.

    Returns:
        Of `ids[first:]`, and the logits after the last, float32 `[V]`.

    Raises: as `Session.advance`; InputError for logits that are not finite.
    """
    scorer, given = PromptScorer(ids, count, first), np.asarray(ids)
    logits = np.empty(0, np.float32)
    for start in range(0, len(given), SCORED_ROWS):
        logits = session.advance(given[None, start : start + SCORED_ROWS])[0]
        if not np.isfinite(logits.max(axis=-1)).all():
            raise InputError(
                f"can't say how likely ids {start} to {start + len(logits)} are: the largest logit of some is no finite "
                "number; the model's output is broken"
            )
        scorer.take(logits)
    return scorer.found, logits[-1].copy()
