"""What tokens weigh by their logits, and which one a random number draws: softmax in float64, in memory that stays.

A running sum over a vocabulary takes longer than all the rest of a softmax, as each addition waits for the one before. So
sums are made block by block, and only the block that is looked for is summed number by number.
"""

from __future__ import annotations

import math
import threading
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Weights = npt.NDArray[np.float64]

_BLOCK = 64
"""Weights that are summed at once; of 4,096 there are as many blocks."""


class _Room(threading.local):
    """Memory of each thread for the weights of a vocabulary: fresh pages for every token would cost more than the softmax."""

    weights: Weights = np.empty(0)


_room = _Room()


def highest_of(logits: Floats) -> float:
    """The largest logit; NaN if any is."""
    return float(logits.item(logits.argmax()))


@np.errstate(over="ignore", under="ignore")
def weights_of(logits: Floats, temperature: float) -> Weights:
    """`exp((logits - max(logits)) / temperature)`: the likeliest weighs 1, and whatever overflows nothing.

    Args:
        logits: float `[n]`, their maximum finite.
        temperature: more than 0.

    Returns:
        `[n]`, in memory that the next call of this thread writes over.
    """
    if len(_room.weights) < len(logits):
        _room.weights = np.empty(len(logits))
    weights = _room.weights[: len(logits)]
    weights[...] = logits
    weights -= highest_of(logits)
    weights /= temperature
    return np.exp(weights, out=weights)


def index_of(weights: Weights, share: float, side: Literal["left", "right"] = "right") -> int:
    """Where the running sum of weights gets beyond a share of their sum (`left`: reaches it); never at a weight of 0.

    With a uniform random number as share this is an index drawn by its weight: the inverse of the cumulative distribution.

    Args:
        weights: `[n]`, as `weights_of` gives them: not negative, one of them 1.
        share: of [0, 1).
    """
    starts = np.arange(0, len(weights), _BLOCK)
    ends = np.add.reduceat(weights, starts).cumsum()
    reached = share * ends.item(-1)  # below it: the largest random number is 1 - 2**-53
    block = int(ends.searchsorted(reached, side))
    within = weights[block * _BLOCK : (block + 1) * _BLOCK].cumsum()
    before = ends.item(block - 1) if block else 0.0
    # summed in another order, a block may come out smaller than what is left
    left = min(reached - before, math.nextafter(within.item(-1), 0))
    return block * _BLOCK + int(within.searchsorted(left, side))


def falling(logits: Floats, count: int) -> Floats:
    """So many of the largest logits, the largest first. Values are sorted several times as fast as ids."""
    largest = np.partition(logits, -count)[-count:] if count < len(logits) else logits
    return np.sort(largest)[::-1]


def id_at(logits: Floats, sorted_logits: Floats, place: int) -> int:
    """The id of the logit at a place among those that `falling` gave; of equal ones the lower id comes first."""
    value = sorted_logits[place]
    before = np.count_nonzero(sorted_logits[:place] == value)
    return int((logits == value).nonzero()[0][before])
