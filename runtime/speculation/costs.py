"""What a call of some tokens takes, learnt from the calls that were made."""

from __future__ import annotations

from collections.abc import Sequence

from ...contract import StageSpec

_PRIOR_SLOPE = 0.06
"""That a further row adds to a call, in calls of one, until it is measured: little, so that longer calls are tried."""
_LEAST_RATE = 0.1
"""Weight of the newest call in what is known."""
_LARGEST_RATIO = 4.0
"""By which one call may be off, and be believed: the machine may have done something else."""
_FIRST_SECONDS = 1e-3
_MOST_FIRINGS = 64
"""Of one call, that are told apart."""


class CallCosts:
    """Predicts the seconds of a call from what it fires.

    Stages that fire together are one group. A call takes the sum of what its groups take for their firings, and each call that
    was timed moves its groups' shares by what the sum was wrong: steps that fire fewer groups tell them apart. Context grows
    and other work comes and goes, so newer calls count more. One is shared by all sessions of a model, whose threads may call
    it at once: what they overwrite of each other is an estimate.

    Args:
        specs: of the model's stages.
    """

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._groups = [_Group(*rhythm) for rhythm in dict.fromkeys((spec.tokens_per_firing, spec.delay) for spec in specs)]
        self.is_timed = False
        """Whether anything was learnt yet."""

    def seconds(self, position: int, tokens: int) -> float:
        """That a call of so many tokens, the first at a position, is expected to take."""
        return sum(group.seconds(group.firings(position, tokens)) for group in self._groups)

    def learn(self, position: int, tokens: int, seconds: float) -> None:
        """Of a call that took so long."""
        self.is_timed = True
        ratio = seconds / self.seconds(position, tokens)
        ratio = min(max(ratio, 1 / _LARGEST_RATIO), _LARGEST_RATIO)
        for group in self._groups:
            group.learn(group.firings(position, tokens), ratio)


class _Group:
    """Stages that fire after every so many tokens, with a delay; where the data decides, so often on average."""

    def __init__(self, stride: float, delay: int) -> None:
        self._stride, self._delay = stride, delay
        self._seconds = [0.0, *(_FIRST_SECONDS * (1 + _PRIOR_SLOPE * more) for more in range(_MOST_FIRINGS))]
        self._timed = [0] * len(self._seconds)

    def firings(self, position: int, tokens: int) -> int:
        """That so many tokens cause."""
        begin = position - self._delay - 1
        return int((begin + tokens) // self._stride) - int(begin // self._stride)

    def seconds(self, firings: int) -> float:
        """That they are expected to take."""
        if firings <= _MOST_FIRINGS:
            return self._seconds[firings]
        return self._seconds[-1] * firings / _MOST_FIRINGS

    def learn(self, firings: int, ratio: float) -> None:
        """That a call took so many times what was expected; what lies between two counts that were timed is on a line."""
        if not 0 < firings <= _MOST_FIRINGS:
            return
        self._timed[firings] += 1
        factor = ratio ** max(1 / self._timed[firings], _LEAST_RATE)
        known = self._seconds
        known[firings] *= factor
        above = next((count for count in range(firings + 1, len(known)) if self._timed[count]), None)
        below = next((count for count in range(firings - 1, 0, -1) if self._timed[count]), None)
        if above is None:
            for count in range(firings + 1, len(known)):
                known[count] = known[count - 1] + _PRIOR_SLOPE * known[1]
        else:
            _draw_line(known, firings, above)
        if below is not None:
            _draw_line(known, below, firings)


def _draw_line(known: list[float], start: int, end: int) -> None:
    slope = (known[end] - known[start]) / (end - start)
    for count in range(start + 1, end):
        known[count] = known[start] + slope * (count - start)
