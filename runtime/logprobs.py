"""Log probabilities of tokens, as the model itself gives them: before temperature, bias, penalties and filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TokenLogprobs:
    """Of one token at its place.

    Attributes:
        token: its id.
        logprob: natural logarithm of its probability.
        rank: how many tokens are likelier, and 1: the likeliest has rank 1.
        top: the likeliest tokens and their log probabilities, the likeliest first; ties by the lower id.
    """

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


def token_logprobs(logits: npt.NDArray[np.floating[Any]], token: int, count: int) -> TokenLogprobs:
    """Of a token by the logits before it, float `[V]`, and of the `count` likeliest; NaN if the largest logit is no number."""
    shift = float(logits.max())
    with np.errstate(invalid="ignore"):
        below = logits.astype(np.float64) - shift
    normaliser = float(np.log(np.exp(below).sum()))
    top = likeliest(logits, count)
    rank = int(np.count_nonzero(logits > logits[token])) + 1
    pairs = tuple((int(one), float(below[one]) - normaliser) for one in top)
    return TokenLogprobs(token, float(below[token]) - normaliser, rank, pairs)


def likeliest(logits: npt.NDArray[np.floating[Any]], count: int) -> npt.NDArray[np.int64]:
    """The ids of so many of the largest logits, in falling order, ties by the lower id."""
    if not count:
        return np.empty(0, np.int64)
    candidates = np.arange(len(logits))
    if count < len(logits):
        candidates = np.flatnonzero(logits >= np.partition(logits, -count)[-count])
    return candidates[np.argsort(-logits[candidates], kind="stable")][:count]
