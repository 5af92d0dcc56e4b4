"""Hierarchy strings: `"2@1 8@4 2@1"` is two layers at full rate, eight at a quarter, two at full rate.

The notation is the Hourglass paper's (arXiv 2110.13711, section 2): `layers@factor`, where the factor is the *total*
shortening relative to tokens. An hourglass is a palindrome of factors, each a multiple of the one outside it. A single
entry, `"14@1"`, is the vanilla Transformer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .errors import ConfigError

_ENTRY = re.compile(r"(\d+)@(\d+)")


@dataclass(frozen=True)
class Level:
    """`layers` Transformer layers that see one vector per `stride` tokens."""

    layers: int
    stride: int

    def __str__(self) -> str:
        return f"{self.layers}@{self.stride}"


@dataclass(frozen=True)
class Hierarchy:
    """The levels of an hourglass, in dataflow order.

    Raises:
        ConfigError: the strides are not a palindrome that starts at 1 and grows by whole factors.
    """

    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        strides = [level.stride for level in self.levels]
        if not self.levels or strides[0] != 1:
            raise self._error(f"the outermost factor must be 1, got {strides[0] if strides else 'nothing'}")
        if strides != strides[::-1] or len(strides) % 2 == 0:
            raise self._error(f"factors must be a palindrome around one middle entry, got {strides}")
        for outer, inner in zip(self.strides, self.strides[1:], strict=False):
            if inner <= outer or inner % outer:
                raise self._error(f"each factor must be a larger multiple of the one outside it, got {inner} inside {outer}")

    def _error(self, reason: str) -> ConfigError:
        return ConfigError(f'malformed hierarchy "{self}": {reason}; write for instance "2@1 8@4 2@1"')

    @classmethod
    def parse(cls, text: str) -> Hierarchy:
        """Read `"2@1 8@4 2@1"`; raises ConfigError with the offending entry."""
        levels = []
        for entry in text.split():
            match = _ENTRY.fullmatch(entry)
            if match is None or int(match[2]) == 0:
                raise ConfigError(
                    f'malformed hierarchy "{text}": got the entry "{entry}", expected layers@factor '
                    'with factor >= 1; write for instance "2@1 8@4 2@1"'
                )
            levels.append(Level(int(match[1]), int(match[2])))
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
        return tuple(level.stride for level in self.levels[: len(self.levels) // 2 + 1])

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
        return sum(level.layers / level.stride for level in self.levels)

    def fires(self, stride: int, token: int) -> bool:
        """Whether a scale of this stride fires at this token index: when the token opens a group."""
        return token % stride == 0
