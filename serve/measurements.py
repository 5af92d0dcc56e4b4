"""What a service tells of itself, counted: for `/metrics`. Plain sums, as its thread counts between two steps."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from ..contract import StageSpec
from ..runtime.generation.continuation import FinishReason
from ..runtime.service.observer import ServiceObserver

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Up to which histograms of times tell them apart."""
COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Histogram:
    """How many values were at most so large; the last counts those beyond all bounds.

    Args:
        bounds: ascending.

    Attributes:
        counts: of values up to each bound, and beyond the one before.
        sum: of all values.
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: how many were at most each bound, as text."""
        found, total = [], 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            total += count
            found.append(("+Inf" if bound == math.inf else repr(bound), float(total)))
        return found


class Measurements(ServiceObserver):
    """Times and counts of one service.

    Args:
        specs: of the model's stages.

    Attributes:
        first: seconds from a request to each of its texts' first tokens.
        between: seconds between tokens, by the coarsest stage that fired for the second.
        steps, step_texts: seconds that steps took, and texts that they brought tokens to.
        ends: texts that ended, by why; those that failed by `error`.
        texts: seconds from a request to the end of a text.
    """

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._strides = {spec.name: spec.tokens_per_firing for spec in specs}
        self._coarsest: dict[tuple[str, ...], str] = {}
        self.first, self.texts, self.steps, self.step_texts = Histogram(), Histogram(), Histogram(), Histogram(COUNTS)
        self.between: dict[str, Histogram] = {}
        self.ends: Counter[str] = Counter()

    def first_token(self, seconds: float) -> None:
        """A text's first token came so long after its request."""
        self.first.add(seconds)

    def token(self, fired: tuple[str, ...], seconds: float) -> None:
        """Another token of a text came so long after its last."""
        name = self._coarsest.get(fired)
        if name is None:
            name = max(fired, key=lambda one: self._strides.get(one, 0), default="none")
            self._coarsest[fired] = name
            self.between = {**self.between, name: self.between.get(name, Histogram())}  # whoever reads it has it whole
        self.between[name].add(seconds)

    def stepped(self, seconds: float, texts: int) -> None:
        """A step took so long, and brought tokens to so many texts."""
        self.steps.add(seconds)
        self.step_texts.add(texts)

    def finished(self, reason: FinishReason | None, seconds: float, prompt_tokens: int, new_tokens: int) -> None:
        """A text ended, or failed if there is no reason."""
        self.ends[reason or "error"] += 1
        self.texts.add(seconds)
