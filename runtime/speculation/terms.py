"""On which terms a sequence drafts: what its tokens are worth where they are not drafted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .costs import CallCosts


class Terms(NamedTuple):
    """On which a sequence drafts.

    Attributes:
        worth: seconds that a token at a position takes where it is not drafted.
        spared: seconds that the step without the sequence takes less.
        most: seconds that no token is worth more than.
    """

    worth: Callable[[int], float]
    spared: float
    most: float = math.inf


def alone(costs: CallCosts, position: int) -> Terms:
    """Of a sequence that has the calls for itself."""
    return Terms(lambda place: costs.seconds(place, 1), costs.seconds(position, 1))
