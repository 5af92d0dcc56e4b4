"""What every stage graph takes and gives: the tensors that the exporter, the runtime and docs/io-contract.md share.

Rows between stages are time-major, `[rows, B, D]`, so that any run of rows of any batch is one contiguous block and can be
bound in place (docs/adr/0002). Letters: B batch, L firings of the stage in this call, k rows per firing, D width, H heads,
Dh head width, S capacity in firings, N rows whose logits are wanted, V vocabulary. Where the data decides what firings read,
M is the length of the block of rows that holds all of it, and P that of the longest span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .schema import CacheSpec, InputSpec, Kind, StageSpec


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
    inputs = read_tensors(stage)
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
        after = "the same, after these firings" if cache.recurrent else "the same, with the rows of these firings"
        outputs.append(TensorSpec(present, stage.cache_dtype, shape, after, past))
    return Contract(tuple(inputs), tuple(outputs))


def resident_contract_of(stage: StageSpec) -> Contract:
    """The tensors of a stage's graph in the resident form: rows stay in logs that the engines keep (docs/adr/0007).

    `R` is the length of the stage's own log, `R.<source>` that of a stage it reads. `rows.<source>` is only read: at rows that
    follow from the position where an input is read by stride, else at `places.<input>`, which the host tells.
    """
    portable = contract_of(stage)
    widths = {given.source: given.width for given in stage.inputs if given.source is not None}
    each = list(zip(stage.names(), stage.inputs, strict=True))
    inputs = [tensor for name, given in each for tensor in _told_of(name, given)]
    inputs += portable.inputs[len(read_tensors(stage)) :]
    outputs = list(portable.outputs)
    if not stage.uses_position:
        inputs.append(_POSITION)
    if any(given.source is not None and given.reads == "stride" for given in stage.inputs):
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
    if cache.recurrent:
        return ("B", cache.heads, cache.rows, cache.width)
    return ("B", cache.heads, _times(cache.rows, letter) if cache.keeps is None else cache.keeps, cache.width)


def _cache_meaning(cache: CacheSpec) -> str:
    place, _, part = cache.name.rpartition(".")
    return f"{part}s of layer {place}" if place.isdigit() and part in ("key", "value") else cache.name


CANDIDATES = 64
"""Tokens that the sampler on a device chooses from: the likeliest, or all of a smaller vocabulary."""
DRAWS = 256
"""Uniform numbers that it is given at a time."""


def sampler_contract(stages: int, vocab_size: int) -> Contract:
    """The tensors of the sampler of a model with so many stages (`export/graphs/sampler.py`).

    It has a position for each stage, and one more that counts the numbers drawn; `fired` says by how much each of them goes on.
    """
    places = range(stages + 1)
    inputs = (
        TensorSpec("logits", "float32", ("B", 1, vocab_size), "next-token logits"),
        TensorSpec("uniform", "float32", (DRAWS, "B"), "numbers of [0, 1), one for each token to draw"),
        TensorSpec("inverse_temperature", "float32", (1,), "what a logit is below the largest is multiplied by it"),
        TensorSpec("top_k", "int64", (1,), f"how many of the likeliest tokens to keep, at most {CANDIDATES}"),
        TensorSpec("top_p", "float32", (1,), "keep the likeliest that together have this probability; above 0"),
        TensorSpec("min_p", "float32", (1,), "keep those at least so likely, relative to the likeliest"),
        TensorSpec("fired", "int64", (stages + 1,), "1 for stages that fired in this step, and for the draw"),
        *(TensorSpec(f"position_{place}", "int64", ("B",), "where a stage stands") for place in places),
    )
    outputs = (
        TensorSpec("next_ids", "int64", ("B", 1), "the tokens drawn; -1 where logits are broken"),
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


def read_tensors(stage: StageSpec) -> list[TensorSpec]:
    """What a stage's graph is given of the rows it reads: the rows of each input, and where firings find theirs."""
    each = zip(stage.names(), stage.inputs, strict=True)
    return [tensor for name, given in each for tensor in (_row_input(name, given), *_places(name, given))]


def _row_input(name: str, given: InputSpec) -> TensorSpec:
    rows = _times(given.count, "L") if given.reads == "stride" else f"M.{name}"
    if given.kind == "tokens":
        return TensorSpec(name, "int64", ("B", rows), _INPUT_MEANING["tokens"])
    return TensorSpec(name, "float32", (rows, "B", given.width), _INPUT_MEANING[given.kind])


def _places(name: str, given: InputSpec) -> tuple[TensorSpec, ...]:
    """Which rows of the block are each firing's: all sequences of a call find theirs at the same places."""
    if given.reads == "newest":
        return (TensorSpec(f"{name}.index", "int64", ("L",), f"the first of the {given.count} rows that each firing reads"),)
    if given.reads == "span":
        return (
            TensorSpec(f"{name}.first", "int64", ("L",), "the first row of each firing's span"),
            TensorSpec(f"{name}.within", "int64", (f"P.{name}",), "0 to P - 1"),
            TensorSpec(f"{name}.lengths", "int64", ("B", "L"), "rows of each firing's span, at most P"),
        )
    return ()


def _told_of(name: str, given: InputSpec) -> list[TensorSpec]:
    """What the host tells a resident stage of one input: ids, or where in the log its rows are, and whose each of them is."""
    if given.reads == "stride":
        return [_row_input(name, given)] if given.source is None else []
    rows = _times(given.count, "L") if given.reads == "newest" else f"M.{name}"
    told = (
        TensorSpec(name, "int64", ("B", rows), _INPUT_MEANING["tokens"])
        if given.source is None
        else TensorSpec(f"places.{name}", "int64", ("B", rows), f"which rows of rows.{given.source} are read")
    )
    return [told, *(_places(name, given) if given.reads == "span" else ())]
