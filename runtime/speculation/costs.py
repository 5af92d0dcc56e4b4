"""What a call of some tokens takes, learnt from the calls that were made."""

from __future__ import annotations

from collections.abc import Sequence

from ...contract import StageSpec

_PRIOR_SLOPE = 0.06
"""That a further row adds to a call, in calls of one, until it is measured: little, so that longer calls are tried."""
_LEAST_RATE = 0.1
"""Weight of the newest call in what is known."""
_FORGETS, _OFTEN = 0.01, 17
_LARGEST_RATIO = 4.0
"""By which one call may be off, and be believed: the machine may have done something else."""
_ALL_COUNT, _EVERY = 64, 8
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

    Attributes:
        token: seconds of one in a call of its own, on average: some of these fire more than others.
    """

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._groups = [_Group(*rhythm) for rhythm in dict.fromkeys((spec.tokens_per_firing, spec.delay) for spec in specs)]
        self._calls, self.token = 0, _FIRST_SECONDS

    @property
    def is_timed(self) -> bool:
        """Whether anything was learnt yet."""
        return self._calls > 0

    def seconds(self, position: int, tokens: int) -> float:
        """That a call of so many tokens, the first at a position, is expected to take."""
        total = 0.0
        for group in self._groups:  # asked some ten times for each draft: no function more than there must be
            begin = position - group.delay - 1
            firings = int((begin + tokens) // group.stride) - int(begin // group.stride)
            total += group.known[firings] if firings <= _MOST_FIRINGS else group.known[-1] * firings / _MOST_FIRINGS
        return total

    def learn(self, position: int, tokens: int, seconds: float) -> None:
        """Of a call that took so long; of those of one token, which are most, every eighth is enough once there were some."""
        self._calls += 1
        if tokens == 1 and self._calls > _ALL_COUNT and self._calls % _EVERY:
            return
        ratio = seconds / self.seconds(position, tokens)
        if self._calls == 1:  # all that is known yet
            for group in self._groups:
                group.known = [ratio * one for one in group.known]
        ratio = min(max(ratio, 1 / _LARGEST_RATIO), _LARGEST_RATIO) if self._calls > 1 else 1.0
        for group in self._groups:
            begin = position - group.delay - 1
            group.learn(int((begin + tokens) // group.stride) - int(begin // group.stride), ratio)
        self.token = sum(group.known[1] / group.stride for group in self._groups)


class _Group:
    """Stages that fire after every so many tokens, with a delay; where the data decides, so often on average.

    Attributes:
        known: seconds by firings.
    """

    def __init__(self, stride: float, delay: int) -> None:
        self.stride, self.delay = stride, delay
        self.known = [0.0, *(_FIRST_SECONDS * (1 + _PRIOR_SLOPE * more) for more in range(_MOST_FIRINGS))]
        self._timed = [0] * len(self.known)

    def learn(self, firings: int, ratio: float) -> None:
        """That a call took so many times what was expected; what lies between two counts that were timed is on a line."""
        if not 0 < firings <= _MOST_FIRINGS:
            return
        self._timed[firings] += 1
        known = self.known
        known[firings] *= ratio ** max(1 / (self._timed[firings] + (firings > 1)), _LEAST_RATE)
        if firings == 1:  # what was dear once is taken to be cheap again by and by, so that it is tried
            for count in range(2, _OFTEN):
                known[count] += (known[1] * (1 + _PRIOR_SLOPE * (count - 1)) - known[count]) * _FORGETS
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
