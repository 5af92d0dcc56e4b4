"""What every stage graph takes and gives: the one table that the exporter, the runtime and the docs share.

Rows between stages are time-major, `[rows, B, D]`, so that any run of rows of any batch is one contiguous block and can be
bound in place (docs/adr/0002). Letters: B batch, L firings of the stage in this call, k rows per firing, D width, H heads,
Dh head width, S capacity in rows, N rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Fires = Literal["open", "close"]
Kind = Literal["tokens", "window", "stream", "context"]
TENSOR_NAMES: dict[Kind, str] = {"tokens": "input_ids", "window": "window", "stream": "stream", "context": "context"}


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one input comes from: firing i reads rows `[i * count - shift, i * count - shift + count)` of its source.

    Rows before the first are zeros. A `window` of k rows shifted by k-1 ends with the newest row: the causal shift of
    Hourglass. `tokens` have no source.
    """

    kind: Kind
    source: str | None = None
    count: int = 1
    shift: int = 0

    @property
    def name(self) -> str:
        """The tensor's name in the graph."""
        return TENSOR_NAMES[self.kind]


class StageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage: a run of layers at one scale, one graph, one engine.

    A stage that fires `open` runs for token t when `t % stride == 0`; one that fires `close` when the token completes a
    group. Each firing appends `output_rows` rows to its output and one row to each of its layers' caches. A stage with
    neither layers nor learned positions has no use for its position: then the graph has no such input. `cache_dtype` is the
    portable graph's; an engine may keep its caches otherwise and says so in its sidecar.
    """

    name: str
    stride: int
    fires: Fires = "open"
    inputs: tuple[InputSpec, ...]
    output: Literal["hidden", "logits"]
    output_rows: int = 1
    layers: int
    heads: int
    head_dim: int
    parameters: int
    uses_position: bool = True
    cache_dtype: Literal["float32", "float16"] = "float32"

    def firings(self, start: int, tokens: int) -> range:
        """Indices of the firings caused by tokens `[start, start + tokens)`."""
        early = self.stride - 1 if self.fires == "close" else 0  # group i fires at token i * stride + early
        first = -(-(start - early) // self.stride)
        last = -(-(start + tokens - early) // self.stride)
        return range(max(first, 0), max(last, 0))

    def fired_by(self, firing: int) -> int:
        """The token that causes a firing."""
        return firing * self.stride + (self.stride - 1 if self.fires == "close" else 0)

    def most_firings(self, tokens: int) -> int:
        """The most firings that so many tokens in a row can cause, at whatever phase they begin."""
        return -(-tokens // self.stride)

    def capacity_rows(self, capacity_tokens: int) -> int:
        """Firings in `capacity_tokens` tokens: rows of each cache."""
        return max(len(self.firings(0, capacity_tokens)), 1)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How large the tensors of a resident engine may get: sequences, tokens of all, and tokens of one call."""

    batch: int = 1
    capacity: int
    prefill: int

    def sizes(self, stages: Sequence[StageSpec], name: str) -> dict[str, int]:
        """What the letters of fixed dimensions stand for in a stage's engine: `S`, `R`, and `R.<source>` of what it reads."""
        by_name, leads = {stage.name: stage for stage in stages}, leads_of(stages)

        def log_rows(stage: StageSpec) -> int:
            return leads[stage.name] + stage.capacity_rows(self.capacity) * stage.output_rows

        stage = by_name[name]
        sources = {given.source for given in stage.inputs if given.source is not None}
        return {
            "S": stage.capacity_rows(self.capacity),
            "R": log_rows(stage),
            **{f"R.{source}": log_rows(by_name[source]) for source in sorted(sources)},
        }


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


def contract_of(stage: StageSpec, dim: int, vocab_size: int) -> Contract:
    """The tensors of a stage's graph."""
    inputs = [_row_input(spec, dim) for spec in stage.inputs]
    if stage.uses_position:
        inputs.append(TensorSpec("position", "int64", ("B",), "index of the first of these firings, per sequence"))
    if stage.output == "logits":
        inputs.append(TensorSpec("logit_rows", "int64", ("N",), "which of the L rows get logits"))
        outputs = [TensorSpec("logits", "float32", ("B", "N", vocab_size), "next-token logits")]
    else:
        rows = "L" if stage.output_rows == 1 else f"{stage.output_rows}*L"
        outputs = [TensorSpec("hidden", "float32", (rows, "B", dim), _OUTPUT_MEANING[stage.output_rows > 1])]
    cache = ("B", stage.heads, "S", stage.head_dim)
    for layer in range(stage.layers):
        for part in ("key", "value"):
            past, present = f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"
            inputs.append(TensorSpec(past, stage.cache_dtype, cache, f"{part}s of layer {layer}", present))
            outputs.append(TensorSpec(present, stage.cache_dtype, cache, "the same, L rows further", past))
    return Contract(tuple(inputs), tuple(outputs))


def resident_contract_of(stage: StageSpec, dim: int, vocab_size: int) -> Contract:
    """The tensors of a stage's graph in the resident form: rows stay in logs that the engines keep (docs/adr/0007).

    `R` is the length of the stage's own log, `R.<source>` that of a stage it reads. `rows.<source>` is only read.
    """
    portable = contract_of(stage, dim, vocab_size)
    sources = {given.name: given.source for given in stage.inputs if given.source is not None}
    inputs = [tensor for tensor in portable.inputs if tensor.name not in sources]
    outputs = list(portable.outputs)
    if not stage.uses_position:
        inputs.append(TensorSpec("position", "int64", ("B",), "index of the first of these firings, per sequence"))
    if sources:
        inputs.append(TensorSpec("offsets", "int64", ("L",), "0 to L - 1"))
    for source in dict.fromkeys(sources.values()):
        log = ("B", 1, f"R.{source}", dim)
        inputs.append(TensorSpec(f"rows.{source}", "float32", log, f"all rows of stage {source}"))
    if stage.output == "hidden":
        log = ("B", 1, "R", dim)
        inputs.append(TensorSpec("past_rows", "float32", log, "all rows of this stage", "present_rows"))
        outputs[0] = TensorSpec("present_rows", "float32", log, "the same, with those of these firings", "past_rows")
    return Contract(tuple(inputs), tuple(outputs))


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


def _row_input(spec: InputSpec, dim: int) -> TensorSpec:
    if spec.kind == "tokens":
        return TensorSpec(spec.name, "int64", ("B", "L" if spec.count == 1 else f"{spec.count}*L"), _INPUT_MEANING["tokens"])
    rows = "L" if spec.count == 1 else f"{spec.count}*L"
    return TensorSpec(spec.name, "float32", (rows, "B", dim), _INPUT_MEANING[spec.kind])
