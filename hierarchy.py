"""Hierarchy strings: `"2@1 8@4 2@1"` is two layers at full rate, eight at a quarter, two at full rate.

The notation is the Hourglass paper's (arXiv 2110.13711, section 2): `layers@factor`, where the factor is the *total*
shortening relative to tokens, in the order in which data flows. An hourglass is a palindrome, `"4@16 3@4 4@1"` goes from coarse
to fine, `"2@1 2@4 2@16 2@1"` from fine to coarse and back in one go. A single entry, `"14@1"`, is the vanilla Transformer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .errors import ConfigError

_ENTRY = re.compile(r"(\d+)@(?:(\d+)|~(\d+(?:\.\d+)?))")
_HOURGLASS, _TOP_DOWN, _BOTTOM_UP = "2@1 8@4 2@1", "4@16 3@4 4@1", "2@1 2@4 2@16 2@1"
_ONE_SCALE = "6@1"
_DECIDED = "1@1 6@~5 1@1"
MAX_LAYERS = 4096
"""Of a model; more is a slip of the pen, which would be built for hours before a weight is missed."""


@dataclass(frozen=True)
class Level:
    """`layers` layers that see one vector per `stride` tokens.

    Where the data decides when they fire, `stride` is 1, and `expected` says after how many tokens on average: `8@~4.5`.
    """

    layers: int
    stride: int
    expected: float | None = None

    def __str__(self) -> str:
        return f"{self.layers}@{self.stride}" if self.expected is None else f"{self.layers}@~{self.expected:g}"

    @property
    def tokens_per_vector(self) -> float:
        """On average."""
        return self.stride if self.expected is None else self.expected


@dataclass(frozen=True)
class Hierarchy:
    """The levels of a model, in dataflow order. The `require_` methods say which orders make sense to which architecture."""

    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        layers = sum(level.layers for level in self.levels)
        if layers > MAX_LAYERS:
            raise ConfigError(f"the model would have {layers:,} layers, expected at most {MAX_LAYERS:,}")

    def require_hourglass(self) -> Hierarchy:
        """Itself, if the factors are a palindrome that starts at 1 and grows by whole factors; else raises ConfigError."""
        factors = [level.stride for level in self.levels]
        if not self.levels or factors[0] != 1:
            raise self._error(f"the outermost factor must be 1, got {factors[0] if factors else 'nothing'}")
        if factors != factors[::-1] or len(factors) % 2 == 0:
            raise self._error(f"factors must be a palindrome around one middle entry, got {factors}")
        self._require_growth(factors[: len(factors) // 2 + 1])
        return self

    def require_descent(self) -> Hierarchy:
        """Itself, if the factors go down to 1 by whole factors, as those of a top-down model; else raises ConfigError."""
        factors = [level.stride for level in self.levels]
        if not factors or factors[-1] != 1:
            raise self._error(f"the last factor must be 1, got {factors[-1] if factors else 'nothing'}", _TOP_DOWN)
        self._require_growth(factors[::-1], _TOP_DOWN)
        return self

    def require_ascent(self) -> Hierarchy:
        """Itself, if the factors grow from 1 by whole factors and end with 1, as bottom-up; else raises ConfigError."""
        factors = [level.stride for level in self.levels]
        if len(factors) < 3 or factors[0] != 1 or factors[-1] != 1:
            raise self._error(f"factors must start at 1, grow, and end with 1, got {factors}", _BOTTOM_UP)
        self._require_growth(factors[:-1], _BOTTOM_UP)
        return self

    def require_one_scale(self) -> Hierarchy:
        """Itself, if there is one level, at factor 1, as in retina models; else raises ConfigError."""
        factors = [level.stride for level in self.levels]
        if factors != [1]:
            raise self._error(f"there must be one level, at factor 1, got {factors}", _ONE_SCALE)
        return self

    def require_decided_middle(self) -> Hierarchy:
        """Itself, if the data decides when the middle one of three levels fires; else raises ConfigError."""
        outer = [self.levels[0], self.levels[-1]] if len(self.levels) == 3 else []
        middle = self.levels[len(self.levels) // 2].expected if outer else None
        if middle is None or middle <= 1 or any(level.stride != 1 or level.expected is not None for level in outer):
            raise self._error("there must be three levels, at 1, at ~ and more than 1, and at 1", _DECIDED)
        return self

    def require_strides(self) -> Hierarchy:
        """Itself, if no level fires where the data decides; else raises ConfigError."""
        decided = next((level for level in self.levels if level.expected is not None), None)
        if decided is not None:
            raise self._error(f"the data decides when layers fire in dynamic models alone, got {decided}")
        return self

    def _require_growth(self, factors: Sequence[int], example: str = _HOURGLASS) -> None:
        for outer, inner in itertools.pairwise(factors):
            if inner <= outer or inner % outer:
                reason = f"each factor must be a larger multiple of the one outside it, got {inner} inside {outer}"
                raise self._error(reason, example)

    def _error(self, reason: str, example: str = _HOURGLASS) -> ConfigError:
        return ConfigError(f'malformed hierarchy "{self}": {reason}; write for instance "{example}"')

    @classmethod
    def parse(cls, text: str) -> Hierarchy:
        """Read `"2@1 8@4 2@1"`; raises ConfigError with the offending entry."""
        levels = []
        for entry in text.split():
            match = _ENTRY.fullmatch(entry)
            if match is None or float(match[2] or match[3]) < 1:
                raise ConfigError(
                    f'malformed hierarchy "{text}": got the entry "{entry}", expected layers@factor '
                    f'with factor >= 1, or layers@~factor where the data decides; write for instance "{_HOURGLASS}"'
                )
            expected = None if match[2] else float(match[3])
            levels.append(Level(int(match[1]), int(match[2] or 1), expected))
        hierarchy = cls(tuple(levels))
        if hierarchy.depth == 0:
            raise hierarchy._error("there are no layers at all")
        return hierarchy

    @classmethod
    def nested(cls, depths: Sequence[tuple[int, int]], valley: int, factors: Sequence[int]) -> Hierarchy:
        """Build from (pre, post) depths, outermost first, around `valley` layers; `factors` shorten one level each."""
        strides = [1]
        for factor in factors:
            strides.append(strides[-1] * factor)
        pre = [Level(depth[0], stride) for depth, stride in zip(depths, strides, strict=False)]
        post = [Level(depth[1], stride) for depth, stride in zip(depths, strides, strict=False)]
        return cls((*pre, Level(valley, strides[len(depths)]), *reversed(post)))

    def __str__(self) -> str:
        return " ".join(map(str, self.levels))

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Tokens per vector of each scale, finest first: `(1, 4, 16)`."""
        return tuple(sorted({level.stride for level in self.levels}))

    @property
    def is_vanilla(self) -> bool:
        """Whether there is one scale only."""
        return len(self.levels) == 1

    @property
    def factor(self) -> int:
        """How many of the outermost vectors become one of the next scale (1 for a vanilla model)."""
        return 1 if self.is_vanilla else self.strides[1]

    @property
    def inner(self) -> Hierarchy:
        """The hierarchy inside the outermost pair, its strides counted from 1 again."""
        if self.is_vanilla:
            raise self._error("a vanilla model has nothing inside its one level")
        return Hierarchy(tuple(Level(level.layers, level.stride // self.factor) for level in self.levels[1:-1]))

    @property
    def depth(self) -> int:
        """Layers in total."""
        return sum(level.layers for level in self.levels)

    @property
    def layer_equivalents(self) -> float:
        """Layers' worth of work per token: the sum of layers / stride."""
        return sum(level.layers / level.tokens_per_vector for level in self.levels)
