"""What every stage graph takes and gives: the one table that the exporter, the runtime and the docs share.

Rows between stages are time-major, `[rows, B, D]`, so that any run of rows of any batch is one contiguous block and can be
bound in place (docs/adr/0002). Letters: B batch, L firings of the stage in this call, k rows per firing, D width, H heads,
Dh head width, S capacity in rows, N rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

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

    def capacity_rows(self, capacity_tokens: int) -> int:
        """Firings in `capacity_tokens` tokens: rows of each cache."""
        return max(len(self.firings(0, capacity_tokens)), 1)


@dataclass(frozen=True)
class TensorSpec:
    """One graph input or output; `shape` mixes fixed sizes with the letters above."""

    name: str
    dtype: Literal["float32", "float16", "int64"]
    shape: tuple[int | str, ...]
    meaning: str
    aliased_with: str | None = None


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
