"""What is measured: the article's sizes, or small ones that show that the commands work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ...errors import ConfigError
from ...hierarchy import Hierarchy
from ...models.config import architecture_of
from ..random_models import CALIBRATION_TOKENS, RandomModels

if TYPE_CHECKING:
    from ...models.config import Architecture

Claim = Literal["speed", "memory", "firing", "rare-words", "order"]
CLAIMS: tuple[Claim, ...] = get_args(Claim)
TEXT_CLAIMS: frozenset[Claim] = frozenset({"order", "rare-words"})
"""Those that are measured on text."""


@dataclass(frozen=True)
class Case:
    """A model of random weights: its layers, and the architecture if its hierarchy does not say it."""

    hierarchy: str
    given: Architecture | None = None

    @property
    def architecture(self) -> Architecture:
        """As `models.config` has it."""
        return architecture_of(self.hierarchy) if self.given is None else self.given

    @property
    def name(self) -> str:
        """For people: `top-down 9@16 9@4 8@1`."""
        is_vanilla = self.architecture == "hourglass" and Hierarchy.parse(self.hierarchy).is_vanilla
        return f"{'vanilla' if is_vanilla else self.architecture} {self.hierarchy}"


@dataclass(frozen=True)
class Settings:
    """Of all claims; as they stand, the article's.

    Attributes:
        dim, heads, ff_dim, vocab_size: of the models of random weights, the Hourglass paper's (arXiv 2110.13711, Table 1).
        deep: 26 layers over 1x/4x/16x: the models of claims 1 and 3; the article's split between the scales is not known.
        vanilla: what they are measured against.
        deepest: about 30 layers, those of claim 2, and `baselines` what they are measured against.
        chunk: tokens read at once where a past is filled.
        shown: tokens in the picture.
        limit: windows of text, None: all.
        window: tokens of text that trained models read at once, without a past.
        distance: in tokens; how far back order is said to matter.
        calibration_tokens: of text, for the ranges of int8 models: random weights do not deserve more.
    """

    is_quick: bool = False
    dim: int = 512
    heads: int = 8
    ff_dim: int = 2048
    vocab_size: int = 256
    deep: tuple[Case, ...] = (Case("9@16 9@4 8@1"), Case("4@1 4@4 10@16 4@4 4@1"))
    vanilla: Case = Case("14@1")
    precisions: tuple[str, ...] = ("fp32", "int8")
    contexts: tuple[int, ...] = (512, 2048, 8192)
    new_tokens: int = 128
    rounds: int = 8
    deepest: tuple[Case, ...] = (
        Case("10@16 10@4 10@1"),
        Case("4@1 4@4 14@16 4@4 4@1"),
        Case("30@1", "retina"),
    )
    baselines: tuple[Case, ...] = (Case("12@1"), Case("14@1"))
    lengths: tuple[int, ...] = (512, 1024, 4096, 16_384)
    chunk: int = 512
    firing_tokens: int = 512
    shown: int = 48
    limit: int | None = None
    distance: int = 50
    window: int = 512
    calibration_tokens: int = CALIBRATION_TOKENS

    @property
    def timed(self) -> RandomModels:
        """Sizes of what is timed: learned positions, as in docs/performance.md."""
        return self._sizes(max(self.contexts) + self.new_tokens, "learned")

    @property
    def weighed(self) -> RandomModels:
        """Sizes of what is weighed: rotary positions, which take no memory."""
        return self._sizes(max(self.lengths), "rotary")

    def _sizes(self, context: int, positions: Literal["learned", "rotary"]) -> RandomModels:
        return RandomModels(self.dim, self.heads, self.ff_dim, self.vocab_size, context, positions)


QUICK = Settings(
    is_quick=True,
    dim=64,
    heads=2,
    ff_dim=128,
    deep=(Case("1@16 1@4 1@1"), Case("1@1 0@4 1@16 0@4 1@1")),
    vanilla=Case("2@1"),
    contexts=(32, 64),
    new_tokens=16,
    rounds=3,
    deepest=(Case("1@16 1@4 1@1"),),
    baselines=(Case("2@1"),),
    lengths=(64, 128),
    chunk=32,
    firing_tokens=64,
    limit=6,
    calibration_tokens=2560,
)


def chosen_claims(names: Sequence[str]) -> tuple[Claim, ...]:
    """The claims of these names, in their order; all if there are none.

    Raises:
        ConfigError: a name that is none of them.
    """
    for name in names:
        if name not in CLAIMS:
            raise ConfigError(f'unknown claim "{name}"; expected some of {", ".join(CLAIMS)}')
    return tuple(claim for claim in CLAIMS if not names or claim in names)
