"""What a report says: all its figures, with the measurements they come from. The JSON is this; pages and pictures show it."""

from __future__ import annotations

import msgspec

from ..bench.environment import Environment
from ..bench.ratio import Ratio
from ..bench.result import BenchResult
from ..bench.statistics import Summary

REPORT_SCHEMA_VERSION = 1


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a stage. `rows`: of its source per firing; null where the data decides how many. No source: token ids."""

    source: str | None
    rows: int | None


class StageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A stage as its manifest has it.

    Attributes:
        stride: tokens from firing to firing; where the data decides, `expected` says how many are expected on average.
        first_token: the token of the first firing; -1: before there is any token.
        parameter_share: of all parameters of the model.
        weight_bytes: `table_bytes` among them are looked up row by row, and never read whole.
    """

    name: str
    stride: int
    expected: float | None
    first_token: int
    layers: int
    parameters: int
    parameter_share: float
    weight_bytes: int
    table_bytes: int
    reads: list[Read]


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle as its manifest has it; `same_as` is the first bundle of the same model, which may be this one."""

    name: str
    same_as: str
    architecture: str
    hierarchy: str
    precision: str
    parameters: int
    layer_equivalents: float
    dim: int
    vocab_size: int
    context: int
    disk_bytes: int
    stages: list[StageFacts]


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the first `tokens` tokens fire a stage, and what share of them does.

    `missing` says of which stages that is not known, and why.
    """

    tokens: int
    is_of_text: bool
    fires: dict[str, list[int]]
    shares: dict[str, float]
    missing: str | None


class StepGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Decode steps that fire the same coarse stages; null: of an older measurement it is only known that some fired.

    `share`: of all steps; `counts`: by the bins of the histogram.
    """

    coarse: list[str] | None
    share: float
    itl_ms: Summary
    counts: list[int]


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """Decode steps of the tokens at `phase` modulo the period; `group` is the index of their step group."""

    phase: int
    group: int
    count: int
    p10_ms: float
    p50_ms: float
    p90_ms: float


class LatencyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Time between tokens of one model, by what its steps fire.

    Attributes:
        period: tokens after which the same stages fire again; null where the data decides.
        edges_ms: of the bins that the groups' `counts` are of; `above` steps took longer than the last.
        missing: why there are no groups; `phases_missing`: why there are no phases.
    """

    name: str
    period: int | None
    edges_ms: list[float]
    above: int
    groups: list[StepGroup]
    phases: list[Phase]
    missing: str | None
    phases_missing: str | None


class RateRatio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast `name` decodes as `than`, by the rounds of one run, which took turns."""

    name: str
    than: str
    ratio: Ratio


class MemoryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes with so many tokens in a session that has room for no more.

    Attributes:
        weights: of all stages, tables included.
        caches: keys and values, or what else is remembered.
        rows: hidden states that stages hand to one another; `state` is both.
        held: weights and state.
        working: the most that a process took beside those while it read the tokens; null where that was not measured.
    """

    tokens: int
    weights: int
    caches: int
    rows: int
    state: int
    held: int
    working: int | None


class MemoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of one bundle by length, up to its context; `missing` says why there is no working memory."""

    name: str
    points: list[MemoryPoint]
    missing: str | None


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle needs of any device.

    Attributes:
        memory: bytes of weights, of the state of the full context, and of working memory as far as that is known.
        bytes_per_token: that decoding reads, as in the measurement; null where they were not counted.
        tokens_per_s_per_gb_s: at most, for each GB/s of memory bandwidth.
    """

    name: str
    memory: int
    bytes_per_token: float | None
    tokens_per_s_per_gb_s: float | None


class DeviceForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle would do on a device, by `foveal forecast`; nobody has measured it.

    Attributes:
        tokens_per_s: of one sequence; between `at_least` and `at_most`, by how much of the makers' figures is assumed.
        worst_step_ms: a step in which every stage fires.
        memory: bytes, the program included; `fits`: null where it is not known what the device has.
    """

    name: str
    device: str
    tokens_per_s: float
    at_least: float
    at_most: float
    worst_step_ms: float
    bound: str
    memory: float
    fits: bool | None


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """How well a bundle predicts the text, teacher-forced.

    Attributes:
        ms_per_token: while decoding, as measured.
        reference: the fp32 bundle of the same model, if there is one; `change` is of bits per byte (of nats per token where
            there are no bytes) relative to it, with the half width of its 95 % interval.
    """

    name: str
    tokens: int
    window: int
    bits_per_byte: float | None
    nats_per_token: float
    ms_per_token: float
    reference: str | None
    change: float | None
    change_half_width: float | None
    is_shown: bool | None
    kl_nats: float | None
    top1_agreement: float | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A question that a reader comes with, the answer in plain words, and the section that has the figures."""

    question: str
    answer: str
    section: str


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """What gives the figures again; one per bundle, where there are several."""

    report: str
    measurement: str
    describe: list[str]
    forecasts: list[str]
    losses: list[str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        created_utc: when the report was made; the measurement has a date of its own.
        foveal: the version that made it.
        subject: the bundle that it is about, the first that was named; the others stand beside it.
        target: whose engines.
        was_saved: whether the measurement was read from a file instead of being made.
        machine: the one that the report, its losses and its memory were made on.
        time_shares: of the time that engines take per token, by model and stage.
        ratios: of the decoding rate, of every model against every other.
        forecasts: of each bundle on every known device; by bundle, `forecasts_missing` says why there are none.
        losses: empty, with the reason in `losses_missing`, where no text was given.
    """

    schema_version: int
    created_utc: str
    foveal: str
    subject: str
    target: str
    was_saved: bool
    machine: Environment
    models: list[ModelFacts]
    measured: BenchResult
    timeline: Timeline
    latencies: list[LatencyFacts]
    time_shares: dict[str, dict[str, float]]
    ratios: list[RateRatio]
    memory: list[MemoryFacts]
    needs: list[Needs]
    forecasts: list[DeviceForecast]
    forecasts_missing: dict[str, str]
    losses: list[Loss]
    losses_missing: str | None
    texts: list[str]
    commands: Commands
    summary: list[Answer] = []
