"""Programs: what a stage computes, as a list of a few kinds of fused steps, for `runtime/engines/native.py`.

    engines/cpu/<stage>.native.json    a `Program`
    engines/cpu/<stage>.native         its weights, each array at a multiple of 64 bytes

A call runs so many firings of a stage. Steps read and write buffers, which have a float32 row `[width]` for every firing, or,
after `take`, for every firing whose logits are wanted. What a stage reads of several rows per firing, as the k rows of a
window, is one row of k times the width. A row of a result depends on its own firing and on the caches alone, bit for bit:
so it is the same however a sequence is cut into calls.

What a file says is checked before anything of it is used: `problem_of_program`
(program_checks.py) finds indices, widths and places that do not fit.
"""

from __future__ import annotations

from typing import Literal

import msgspec

PROGRAM_VERSION = 1
MOST_ROWS = 16
"""Firings of one call; longer ones are for the stage's graph."""
ALIGNMENT = 64
PANEL, ROW_STEP = 16, 8
"""Columns of a weight that lie together; columns are filled up to a multiple of it, and rows of integers to a multiple of 8."""

Format = Literal["fp32", "int8", "w8", "w4"]
Activation = Literal["none", "relu", "gelu", "gelu_tanh", "silu"]


class Weight(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A matrix of a product, packed as `native/src/layouts.md` says.

    Attributes:
        format: of its values; `int8` is multiplied by int8 inputs of one static scale, `w8` and `w4` by inputs rounded row by
            row and block by block.
        rows, columns: K and N.
        block: rows that share a scale, of `w8` and `w4`; 0: all.
        place: in the file.
    """

    format: Format
    rows: int
    columns: int
    block: int = 0
    place: int

    @property
    def bytes(self) -> int:
        """Of what is packed: panels of 16 columns, their scales in front of each block of rows."""
        columns = padded(self.columns)
        if self.format == "fp32":
            return columns * self.rows * 4
        rows = -(-self.rows // ROW_STEP) * ROW_STEP
        blocks = -(-rows // self.block) if self.block else 1
        return columns * (blocks * 4 + rows // (2 if self.format == "w4" else 1))


def padded(columns: int) -> int:
    """A number of columns, filled up to whole panels."""
    return -(-columns // PANEL) * PANEL


class Embed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="embed"):
    """`out = table[ids]`, `count` of them one behind the other; of a single one `+ positions[row]`, the index of the firing.

    Attributes:
        ids: which of the program's inputs.
        table: place of `[tokens, width]`: float32, float16, or uint8 around 128 with `scales`, float32 `[tokens]`.
        positions: place of float32 `[position_rows, width]`.
    """

    ids: int
    count: int = 1
    out: int
    width: int
    tokens: int
    table: int
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    scales: int | None = None
    positions: int | None = None
    position_rows: int = 0


class Add(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="add"):
    """`out = a + b`, then `+ c`."""

    a: int
    b: int
    c: int | None = None
    out: int


class Mul(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="mul"):
    """`out = a * b`, element by element."""

    a: int
    b: int
    out: int


class Activate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="activate"):
    """`out = activation(x)`."""

    x: int
    out: int
    activation: Activation


class Norm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="norm"):
    """`out = norm(x)`, each `width` values by themselves; or, with `added`, `total = x + added` and `out = norm(total)`.

    Attributes:
        kind: `layer`; `rms` `x / sqrt(mean(x ** 2) + eps)`; `rms_clamp` `x / max(sqrt(mean(x ** 2)), eps)`.
        gamma, beta: places of float32 `[width]`.
    """

    kind: Literal["layer", "rms", "rms_clamp"] = "layer"
    x: int
    added: int | None = None
    total: int | None = None
    out: int
    width: int
    eps: float
    gamma: int
    beta: int | None = None


class Product(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="product"):
    """`out = activation(x @ weight + bias) + added`; `added` may be `out` itself.

    A row of x that is `count` times as wide as the weight has rows is as many rows of the product.

    Attributes:
        x_scale: of an `int8` weight's inputs: `round(x / x_scale)`, half to even, within -128 to 127.
        bias: place of float32 `[N]`, N filled up.
    """

    x: int
    weight: Weight
    x_scale: float = 0.0
    bias: int | None = None
    activation: Activation = "none"
    added: int | None = None
    out: int
    count: int = 1


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="gate"):
    """`out = activation(x[:, :width]) * x[:, width:]`."""

    x: int
    out: int
    width: int
    activation: Activation = "silu"


class Angles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="angles"):
    """`out = [cos(row * frequencies), sin(row * frequencies)]`, `row` the index of the firing.

    Attributes:
        width: of both together.
        frequencies: place of float32 `[width / 2]`.
    """

    out: int
    width: int
    frequencies: int


class Attend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="attend"):
    """Write the keys and values of all rows into caches, then attend from each row to those up to its own.

    `qkv` rows are `heads` queries, `kv_heads` keys and as many values, each `head_dim` wide; query head i reads head
    `i * kv_heads // heads`. Rows of caches may be wider than `head_dim`: the rest is zeros.

    Attributes:
        key, value: which of the program's caches.
        scale: of scores.
        window: rows that are seen, the row itself counted; 0: all.
        key_scale, value_scale: of int8 caches: `round(x / scale)`, half to even, within -128 to 127.
        angles: a buffer of `Angles`, by which the first dimensions of queries and keys, as many as it is wide, are rotated; in
            caches keys are rotated.
        neighbours: dimensions 2i and 2i + 1 are rotated together, and put where i and i + half are; else those are.
    """

    qkv: int
    out: int
    key: int
    value: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int = 0
    key_scale: float = 0.0
    value_scale: float = 0.0
    angles: int | None = None
    neighbours: bool = False


class GroupAttend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="group_attend"):
    """Attend from a row's query `[heads * head_dim]` to `count` keys and values of its own, nothing hidden.

    `key_values` rows are `count` times `heads * head_dim` of keys, then as many of values.
    """

    query: int
    key_values: int
    out: int
    heads: int
    head_dim: int
    count: int
    scale: float


class Take(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="take"):
    """The rows whose logits are wanted."""

    x: int
    out: int


class Mean(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="mean"):
    """The mean of `count` rows that follow one another in a row of x."""

    x: int
    out: int
    count: int


class Repeat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="repeat"):
    """A row of x, `count` times."""

    x: int
    out: int
    count: int


class Copy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", tag="copy"):
    """`out[:, to : to + width] = x[:, at : at + width]`."""

    x: int
    out: int
    width: int
    at: int = 0
    to: int = 0


Step = Embed | Add | Mul | Activate | Norm | Product | Gate | Angles | Attend | GroupAttend | Take | Mean | Repeat | Copy


class BufferSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows `[width]`, one of every firing, or of every firing whose logits are wanted."""

    width: int
    wanted: bool = False


class ProgramInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the stage's row inputs: int64 ids `[rows, count]`, or float32 rows, which are a buffer that no step writes."""

    name: str
    count: int = 1
    buffer: int | None = None


class ProgramCache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cache `[B, heads, S, width]` as the stage's engine keeps it; in the order of the stage's specification."""

    name: str
    dtype: Literal["float32", "int8"]
    heads: int
    width: int


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a stage.

    Attributes:
        version: `PROGRAM_VERSION`.
        stage: its name.
        graph_sha256: of the engine graph that it was made from, which runs what the program does not.
        data_bytes, data_sha256: of the file of weights.
        most_rows: firings of one call.
        output: the buffer that is the result.
    """

    version: int
    stage: str
    graph_sha256: str
    data_bytes: int
    data_sha256: str
    most_rows: int = MOST_ROWS
    buffers: tuple[BufferSpec, ...]
    inputs: tuple[ProgramInput, ...]
    caches: tuple[ProgramCache, ...]
    output: int
    steps: tuple[Step, ...]


def program_names(engine: str) -> tuple[str, str]:
    """Where the program of an engine graph is, and its weights, by the graph's path."""
    stem = engine.removesuffix(".onnx")
    return f"{stem}.native.json", f"{stem}.native"
