"""What every stage graph takes and gives: the one table that the exporter, the runtime and the docs share.

Rows between stages are time-major, `[rows, B, D]`, so that any run of rows of any batch is one contiguous block and can be
bound in place (docs/adr/0002). Letters: B batch, L firings of the stage in this call, k rows per firing, D width, H heads,
Dh head width, S capacity in firings, N rows whose logits are wanted, V vocabulary. docs/adr/0012 says why what stages may say
of themselves is enough for every family.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Fires = Literal["open", "close", "ahead"]
Kind = Literal["tokens", "window", "stream", "context"]
TENSOR_NAMES: dict[Kind, str] = {"tokens": "input_ids", "window": "window", "stream": "stream", "context": "context"}
BEGINNING = -1
"""The position of no token, before the first, which causes the first firing of stages that fire ahead."""


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one input comes from: firing i reads rows `[i * count - shift, i * count - shift + count)` of its source.

    Rows before the first are zeros. A `window` of k rows shifted by k-1 ends with the newest row: the causal shift of
    Hourglass. `tokens` have no source; those before the first are 0. `width` is that of the source's rows.
    """

    kind: Kind
    source: str | None = None
    count: int = 1
    shift: int = 0
    width: int = 0


class CacheSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stage remembers from firing to firing: rows `[H, Dh]`, of which each firing writes `rows`.

    A layer's keys and values are two caches, `0.key` and `0.value`. A cache that `keeps` so many rows has no more: the graph
    writes over old ones, at places worked out from the position.
    """

    name: str
    heads: int
    width: int
    rows: int = 1
    keeps: int | None = None

    def length(self, firings: int) -> int:
        """Rows after so many firings, at least 1."""
        return max(firings * self.rows, 1) if self.keeps is None else self.keeps


class BorrowSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cache of another stage, of which the graph reads all rows: it hides by itself those that are not there yet."""

    stage: str
    cache: CacheSpec

    @property
    def name(self) -> str:
        """The tensor's name in the graph."""
        return f"borrowed.{self.stage}.{self.cache.name}"


def layer_caches(layers: int, heads: int, width: int, keeps: int | None = None) -> tuple[CacheSpec, ...]:
    """Keys and values of a stack of attention layers."""
    names = (f"{layer}.{part}" for layer in range(layers) for part in ("key", "value"))
    return tuple(CacheSpec(name=name, heads=heads, width=width, keeps=keeps) for name in names)


class StageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage: a run of layers at one scale, one graph, one engine.

    A stage that fires `open` runs for token t when it opens a group, `t % stride == 0`; one that fires `close` when it
    completes one. One that fires `ahead` runs for group i when token `i * stride - 1` is known, and for the first before there
    is any token. Each firing appends `output_rows` rows to its output, of width `width` (of logits: the vocabulary).

    Attributes:
        caches: what it remembers, and `borrows`: whose caches it reads.
        layers: of the model, for people.
        uses_position: whether the graph has that input: one with neither caches nor positions has no use for it.
        resets: the stage remembers nothing across multiples of so many firings. No call of its engine crosses one.
        page: no call of any engine crosses a multiple of so many tokens, because caches are written over at those.
        rewinds: the most tokens that can be taken back, whose rows no cache has written over; None: all.
        cache_dtype: the portable graph's; an engine may keep its caches otherwise and says so in its sidecar.
    """

    name: str
    stride: int
    fires: Fires = "open"
    inputs: tuple[InputSpec, ...]
    output: Literal["hidden", "logits"]
    output_rows: int = 1
    width: int
    layers: int
    caches: tuple[CacheSpec, ...] = ()
    borrows: tuple[BorrowSpec, ...] = ()
    parameters: int
    uses_position: bool = True
    resets: int | None = None
    page: int | None = None
    rewinds: int | None = None
    cache_dtype: Literal["float32", "float16"] = "float32"

    def firings(self, start: int, tokens: int) -> range:
        """Indices of the firings caused by tokens `[start, start + tokens)`; `start` may be the beginning."""
        begin, stride = start - self._delay, self.stride
        first, last = -(-begin // stride), -(-(begin + tokens) // stride)
        return range(first, last) if first >= 0 else range(max(last, 0))

    def fired_by(self, firing: int) -> int:
        """The token that causes a firing; the beginning, where there is none yet."""
        return firing * self.stride + self._delay

    @property
    def _delay(self) -> int:
        """Tokens from the one that opens a group to the one that causes its firing."""
        if self.fires == "open":
            return 0
        return BEGINNING if self.fires == "ahead" else self.stride - 1

    def firings_within(self, tokens: int) -> int:
        """How often the first so many tokens fire it."""
        return len(self.firings(BEGINNING, tokens - BEGINNING))

    def most_firings(self, tokens: int) -> int:
        """The most firings that so many tokens in a row can cause, at whatever phase they begin."""
        return -(-tokens // self.stride)

    def capacity_firings(self, capacity_tokens: int) -> int:
        """Firings that there must be room for, at least 1."""
        return max(self.firings_within(capacity_tokens), 1)

    def names(self) -> list[str]:
        """Names of its row inputs in the graph, in order: the kind, and the source too where there are several of a kind."""
        kinds = [given.kind for given in self.inputs]
        return [TENSOR_NAMES[given.kind] + (f".{given.source}" if kinds.count(given.kind) > 1 else "") for given in self.inputs]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How large the tensors of a resident engine may get: sequences, tokens of all, and tokens of one call."""

    batch: int = 1
    capacity: int
    prefill: int

    def sizes(self, stages: Sequence[StageSpec], name: str) -> dict[str, int]:
        """What the letters of fixed dimensions stand for in a stage's engine: `S`, `R`, and `R.<source>` of what it reads."""
        by_name, leads = {stage.name: stage for stage in stages}, leads_of(stages)

        def log_rows(stage: StageSpec) -> int:
            return leads[stage.name] + stage.capacity_firings(self.capacity) * stage.output_rows

        stage = by_name[name]
        sources = {given.source for given in stage.inputs if given.source is not None}
        lenders = {borrowed.stage for borrowed in stage.borrows}
        return {
            "S": stage.capacity_firings(self.capacity),
            **{f"S.{lender}": by_name[lender].capacity_firings(self.capacity) for lender in sorted(lenders)},
            "R": log_rows(stage),
            **{f"R.{source}": log_rows(by_name[source]) for source in sorted(sources)},
        }


def vocab_size_of(stages: Sequence[StageSpec]) -> int:
    """Token ids that the last stage, which gives logits, tells apart."""
    return stages[-1].width


def page_of(stages: Sequence[StageSpec]) -> int | None:
    """The tokens whose multiples no call may cross; None: any call will do."""
    pages = [stage.page for stage in stages if stage.page is not None]
    return math.gcd(*pages) if pages else None


def room_of(stages: Sequence[StageSpec], position: int) -> int:
    """Tokens from a position on that one call can take if none of its stages is to cross a page or a reset."""
    page = page_of(stages)
    rooms = [] if page is None else [page - position % page]
    for stage in stages:
        if stage.resets is not None:
            fired = stage.firings(position, 1)
            following = fired.stop if fired else fired.start
            rooms.append(stage.fired_by(following + -following % stage.resets) - position)
    return min(rooms, default=sys.maxsize)


def late_stages(stages: Sequence[StageSpec]) -> frozenset[str]:
    """Those whose rows nobody reads in the decode step that makes them: the others need not wait for them.

    Rows are addressed linearly, so what holds for the first few periods of firing holds for ever.
    """
    period = math.lcm(*(stage.stride for stage in stages))
    waited_for = {stages[-1].name, *(borrowed.stage for stage in stages for borrowed in stage.borrows)}
    for token in range(BEGINNING, 3 * period):
        rows = {stage.name: stage.firings(token, 1).start * stage.output_rows for stage in stages if stage.firings(token, 1)}
        for stage in stages:
            for firing in stage.firings(token, 1):
                for given in stage.inputs:
                    last = firing * given.count - given.shift + given.count - 1
                    if given.source in rows and last >= rows[given.source]:
                        waited_for.add(given.source)
    return frozenset(stage.name for stage in stages) - waited_for


def begins_ahead(stages: Sequence[StageSpec]) -> bool:
    """Whether some stage fires before there is any token."""
    return any(stage.fires == "ahead" for stage in stages)


def rewinds_of(stages: Sequence[StageSpec]) -> int | None:
    """The most tokens that can be taken back; None: all."""
    limits = [stage.rewinds for stage in stages if stage.rewinds is not None]
    return min(limits) if limits else None


def leads_of(stages: Sequence[StageSpec]) -> dict[str, int]:
    """Rows of zeros in front of each stage's log, so that the first windows of those that read it are whole."""
    shifts: dict[str, int] = {stage.name: 0 for stage in stages}
    for stage in stages:
        for given in stage.inputs:
            if given.source is not None:
                shifts[given.source] = max(shifts[given.source], given.shift)
    return shifts


@dataclass(frozen=True)
class TensorSpec:
    """One graph input or output; `shape` mixes fixed sizes with the letters above."""

    name: str
    dtype: Literal["float32", "float16", "int64"]
    shape: tuple[int | str, ...]
    meaning: str
    aliased_with: str | None = None


def size_of(dimension: int | str, letters: Mapping[str, int]) -> int:
    """What a dimension such as `4*L` comes to; -1 if its letter is not among those given."""
    if isinstance(dimension, int):
        return dimension
    factor, _, letter = dimension.rpartition("*")
    return int(factor or 1) * letters[letter] if letter in letters else -1


@dataclass(frozen=True)
class Contract:
    """Inputs and outputs of one stage graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def contract_of(stage: StageSpec) -> Contract:
    """The tensors of a stage's graph."""
    inputs = [_row_input(name, given) for name, given in zip(stage.names(), stage.inputs, strict=True)]
    if stage.uses_position:
        inputs.append(_POSITION)
    if stage.output == "logits":
        inputs.append(TensorSpec("logit_rows", "int64", ("N",), "which of the L rows get logits"))
        outputs = [TensorSpec("logits", "float32", ("B", "N", stage.width), "next-token logits")]
    else:
        rows = _times(stage.output_rows, "L")
        outputs = [TensorSpec("hidden", "float32", (rows, "B", stage.width), _OUTPUT_MEANING[stage.output_rows > 1])]
    for borrowed in stage.borrows:
        shape = _cache_shape(borrowed.cache, f"S.{borrowed.stage}")
        meaning = f"{borrowed.cache.name} of stage {borrowed.stage}"
        inputs.append(TensorSpec(borrowed.name, stage.cache_dtype, shape, meaning))
    for cache in stage.caches:
        past, present = f"past_key_values.{cache.name}", f"present.{cache.name}"
        shape = _cache_shape(cache, "S")
        inputs.append(TensorSpec(past, stage.cache_dtype, shape, _cache_meaning(cache), present))
        outputs.append(TensorSpec(present, stage.cache_dtype, shape, "the same, with the rows of these firings", past))
    return Contract(tuple(inputs), tuple(outputs))


def resident_contract_of(stage: StageSpec) -> Contract:
    """The tensors of a stage's graph in the resident form: rows stay in logs that the engines keep (docs/adr/0007).

    `R` is the length of the stage's own log, `R.<source>` that of a stage it reads. `rows.<source>` is only read.
    """
    portable = contract_of(stage)
    widths = {given.source: given.width for given in stage.inputs if given.source is not None}
    read = {name for name, given in zip(stage.names(), stage.inputs, strict=True) if given.source is not None}
    inputs = [tensor for tensor in portable.inputs if tensor.name not in read]
    outputs = list(portable.outputs)
    if not stage.uses_position:
        inputs.append(_POSITION)
    if widths:
        inputs.append(TensorSpec("offsets", "int64", ("L",), "0 to L - 1"))
    for source, width in widths.items():
        log = ("B", 1, f"R.{source}", width)
        inputs.append(TensorSpec(f"rows.{source}", "float32", log, f"all rows of stage {source}"))
    if stage.output == "hidden":
        own = ("B", 1, "R", stage.width)
        inputs.append(TensorSpec("past_rows", "float32", own, "all rows of this stage", "present_rows"))
        outputs[0] = TensorSpec("present_rows", "float32", own, "the same, with those of these firings", "past_rows")
    return Contract(tuple(inputs), tuple(outputs))


_POSITION = TensorSpec("position", "int64", ("B",), "index of the first of these firings, per sequence")


def _times(factor: int, letter: str) -> str:
    return letter if factor == 1 else f"{factor}*{letter}"


def _cache_shape(cache: CacheSpec, letter: str) -> tuple[int | str, ...]:
    return ("B", cache.heads, _times(cache.rows, letter) if cache.keeps is None else cache.keeps, cache.width)


def _cache_meaning(cache: CacheSpec) -> str:
    place, _, part = cache.name.rpartition(".")
    return f"{part}s of layer {place}" if place.isdigit() and part in ("key", "value") else cache.name


CANDIDATES = 64
"""Tokens that the sampler on a device chooses from: the likeliest, or all of a smaller vocabulary."""
DRAWS = 256
"""Uniform numbers that it is given at a time."""


def sampler_contract(stages: int, vocab_size: int) -> Contract:
    """The tensors of the sampler of a model with so many stages (`export/sampler.py`).

    It has a position for each stage, and one more that counts the numbers drawn; `fired` says by how much each of them goes on.
    """
    places = range(stages + 1)
    inputs = (
        TensorSpec("logits", "float32", ("B", 1, vocab_size), "next-token logits"),
        TensorSpec("uniform", "float32", (DRAWS, "B"), "numbers of [0, 1), one for each token to draw"),
        TensorSpec("inverse_temperature", "float32", (1,), "logits are multiplied by it"),
        TensorSpec("top_k", "int64", (1,), f"how many of the likeliest tokens to keep, at most {CANDIDATES}"),
        TensorSpec("top_p", "float32", (1,), "keep the likeliest that together have this probability"),
        TensorSpec("min_p", "float32", (1,), "keep those at least so likely, relative to the likeliest"),
        TensorSpec("fired", "int64", (stages + 1,), "1 for stages that fired in this step, and for the draw"),
        *(TensorSpec(f"position_{place}", "int64", ("B",), "where a stage stands") for place in places),
    )
    outputs = (
        TensorSpec("next_ids", "int64", ("B", 1), "the tokens drawn"),
        *(TensorSpec(f"next_position_{place}", "int64", ("B",), "where it stands in the next step") for place in places),
    )
    return Contract(inputs, outputs)


_OUTPUT_MEANING = {False: "one row per firing", True: "the rows each firing hands to the finer scale"}
_INPUT_MEANING: dict[Kind, str] = {
    "tokens": "token ids",
    "window": "the newest k rows of the finer scale at each firing",
    "stream": "rows of an earlier stage at this scale",
    "context": "rows handed down by the coarser scale",
}


def _row_input(name: str, given: InputSpec) -> TensorSpec:
    rows = _times(given.count, "L")
    if given.kind == "tokens":
        return TensorSpec(name, "int64", ("B", rows), _INPUT_MEANING["tokens"])
    return TensorSpec(name, "float32", (rows, "B", given.width), _INPUT_MEANING[given.kind])
