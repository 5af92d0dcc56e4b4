"""What measuring the claims says: one schema for the JSON, the tables and the docs."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...calibration.probe import Probe
from ..environment import Environment

CLAIMS_SCHEMA_VERSION = 1
Answer = Literal["holds", "holds in part", "does not hold"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a claim holds here, and for what."""

    answer: Answer
    sentence: str


class SpeedCase(msgspec.Struct, frozen=True, kw_only=True):
    """One model of random weights decoding behind a past of `context` tokens.

    Attributes:
        tokens_per_s: median of the rounds.
        speedup: over the vanilla model of the same precision and past, the median of the rounds' ratios; null of that model.
        speedup_by_round: in each round.
        by_layers: the speedup that layers run per token promise, `by_bytes` that which bytes read per token do.
        overlap: whether stages that a step does not wait for ran in a second thread: measured at loading.
    """

    model: str
    precision: str
    context: int
    layers: int
    layer_equivalents: float
    weight_bytes_per_token: float
    cache_bytes_per_token: float
    tokens_per_s: float
    tokens_per_s_by_round: list[float]
    ms_where_coarse_fires: float | None
    ms_where_none_does: float | None
    speedup: float | None
    speedup_by_round: list[float]
    by_layers: float | None
    by_bytes: float | None
    threads: int
    overlap: bool


class SpeedResult(msgspec.Struct, frozen=True, kw_only=True):
    """Claim 1; `noise` says which figures were disturbed."""

    vanilla: str
    new_tokens: int
    rounds: int
    cases: list[SpeedCase]
    noise: list[str]
    verdict: Verdict


class MemoryCase(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one model of random weights at one length.

    Attributes:
        weights: of all stages; `tables`, the share of them that is looked up by row, of which positions grow with the context.
        caches: keys and values, and whatever else stages remember, after so many tokens.
        rows: that stages hand to one another, all of which are kept.
        working: what a process takes beyond what it held before and its state: activations, the library's arena, logits.
        peak: of a process that has loaded the model, reads the tokens and decodes the last; `loaded` is what it held before.
    """

    model: str
    layers: int
    layer_equivalents: float
    tokens: int
    weights: int
    tables: int
    caches: int
    rows: int
    working: int | None
    loaded: int | None
    peak: int | None

    @property
    def state(self) -> int:
        """Caches and rows."""
        return self.caches + self.rows


class MemoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Claim 2; `missing` says which figures could not be had, and why."""

    baselines: list[str]
    chunk: int
    method: str
    cases: list[MemoryCase]
    missing: list[str]
    verdict: Verdict


class FiringStage(msgspec.Struct, frozen=True, kw_only=True):
    """How often one stage fired, and how often its specification says."""

    name: str
    stride: int
    fires: str
    layers: int
    firings: int
    expected: int
    engine_ms: float


class EngineCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an engine while decoding: microseconds since the first of the picture."""

    stage: str
    token: int
    begin_us: float
    end_us: float


class FiringModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model decoding `tokens` tokens one by one; `calls` are those of the last few, for the picture."""

    model: str
    hierarchy: str
    layers: int
    layers_run_per_token: float
    tokens: int
    stages: list[FiringStage]
    calls: list[EngineCall]


class FiringResult(msgspec.Struct, frozen=True, kw_only=True):
    """Claim 3."""

    models: list[FiringModel]
    verdict: Verdict


class RareGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Positions (or words) by how common they are: those that occur `at_least` to `below` times (null: or more).

    Attributes:
        difference: mean loss of the model minus that of the vanilla one, on the same positions: below 0, the model is better.
        half_width: of a 95 % confidence interval, from the spread between windows; null where one window has them all.
    """

    at_least: int
    below: int | None
    count: int
    nats: float
    vanilla_nats: float
    difference: float
    half_width: float | None

    @property
    def answer(self) -> Literal["better", "worse", "no difference shown"]:
        """Than the vanilla model, as far as the interval says."""
        if self.half_width is None or abs(self.difference) <= self.half_width:
            return "no difference shown"
        return "better" if self.difference < 0 else "worse"


class RareModel(msgspec.Struct, frozen=True, kw_only=True):
    """A trained hierarchical model beside the vanilla one.

    Attributes:
        compute: its training compute as a multiple of the vanilla model's; null if a checkpoint does not say.
        overall: all positions.
        tokens: by occurrences of the token per million tokens of the text.
        words: by occurrences of the word in the text; the loss of a word is the sum over its tokens.
    """

    model: str
    hierarchy: str
    compute: float | None
    overall: RareGroup
    tokens: list[RareGroup]
    words: list[RareGroup]


class RareWordsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Claim 4."""

    vanilla: str
    texts: list[str]
    window: int
    windows: int
    text_tokens: int
    models: list[RareModel]
    verdict: Verdict


class OrderResult(msgspec.Struct, frozen=True, kw_only=True):
    """Claim 5; a probe's `bundle` is the name of its model."""

    texts: list[str]
    distance: int
    probes: list[Probe]
    verdict: Verdict


class ClaimsResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run; claims that were not asked for are null.

    Attributes:
        quick: small sizes, whose figures say nothing of the claims.
        seconds: that each claim took, conversions included.
        problems: what makes the figures of all claims doubtful.
    """

    schema_version: int
    command: str
    environment: Environment
    quick: bool
    threads: int
    seconds: dict[str, float]
    problems: list[str]
    speed: SpeedResult | None = None
    memory: MemoryResult | None = None
    firing: FiringResult | None = None
    rare_words: RareWordsResult | None = None
    order: OrderResult | None = None
