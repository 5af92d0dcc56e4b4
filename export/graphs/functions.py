"""Bodies of the `foveal` domain's ops, in standard ONNX.

A stage graph shows `Shorten`, `CachedAttention` and `Lengthen` as nodes; each is defined by a model-local function, so ONNX
Runtime and TensorRT run it with no custom library, and a plugin of the same name may replace it. The names are ones no ONNX
or TensorRT op has: TensorRT's parser matches op types without their domain. Inner nodes stay unnamed in the text and are
named in `_named`, because TensorRT warns about unnamed ones.
"""

from __future__ import annotations

from typing import Literal

import onnx
import onnx.parser
from onnx import FunctionProto

DOMAIN = "foveal"
MASK = 4
"""Index of the mask among the inputs of `CachedAttention`."""
Mask = Literal["bool", "added"]
"""Of attention: true where a row is seen; or a float to add to its scores."""
Given = tuple[Literal["kv_heads", "window"], ...]
"""Attributes of `CachedAttention` that a graph's nodes have beside `heads` and `scale`."""

# 1-D constants out of integer attributes, to build Reshape targets.
_CONSTANTS = """
    zero = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    axis0 = Constant <value_ints = [0]> ()
"""


def _one_d(name: str) -> str:
    return f"""
    {name}_0d = Constant <value_int: int = @{name}> ()
    {name}_1d = Unsqueeze ({name}_0d, axis0)
"""


# [B, n * k, D] -> [B, n, k, D]
_GROUPS = (
    _CONSTANTS
    + _one_d("factor")
    + _one_d("dim")
    + """
    group_shape = Concat <axis = 0> (zero, rest, factor_1d, dim_1d)
    groups = Reshape (x, group_shape)
"""
)

_AVERAGE = """
    axis2 = Constant <value_ints = [2]> ()
    pooled = ReduceMean <keepdims = 0> (groups, axis2)
"""

_LINEAR_POOL = """
    flat_shape = Constant <value_ints = [0, 0, -1]> ()
    flat = Reshape (groups, flat_shape)
    flat_pooled = MatMul (flat, pool_weight)
    pooled = Add (flat_pooled, pool_bias)
"""

# Queries [B, n, H, 1, D] against the group's keys and values [B, n, H, k, D].
_GROUP_ATTENTION = (
    _one_d("heads")
    + """
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    normed = LayerNormalization <axis = -1, epsilon: float = @epsilon> (pooled, norm_weight, norm_bias)
    query_flat = MatMul (normed, query_weight)
    query_shape = Concat <axis = 0> (zero, zero, heads_1d, one, rest)
    query = Reshape (query_flat, query_shape)
    key_value_flat = MatMul (groups, key_value_weight)
    key_flat, value_flat = Split <axis = -1, num_outputs = 2> (key_value_flat)
    head_shape = Concat <axis = 0> (zero, zero, factor_1d, heads_1d, rest)
    key_rows = Reshape (key_flat, head_shape)
    value_rows = Reshape (value_flat, head_shape)
    key_columns = Transpose <perm = [0, 1, 3, 4, 2]> (key_rows)
    value = Transpose <perm = [0, 1, 3, 2, 4]> (value_rows)
    scale = Constant <value_float: float = @scale> ()
    scaled_query = Mul (query, scale)
    scores = MatMul (scaled_query, key_columns)
    weights = Softmax <axis = -1> (scores)
    found_heads = MatMul (weights, value)
    found_shape = Constant <value_ints = [0, 0, -1]> ()
    found = Reshape (found_heads, found_shape)
    found_out = MatMul (found, out_weight)
    found_biased = Add (found_out, out_bias)
    attended = Add (pooled, found_biased)
    ff_normed = LayerNormalization <axis = -1, epsilon: float = @epsilon> (attended, ff_norm_weight, ff_norm_bias)
    ff_up = MatMul (ff_normed, up_weight)
    ff_up_biased = Add (ff_up, up_bias)
    ff_hidden = Gelu (ff_up_biased)
    ff_down = MatMul (ff_hidden, down_weight)
    ff_down_biased = Add (ff_down, down_bias)
    y = Add (attended, ff_down_biased)
"""
)

POOL_INPUTS = ("pool_weight", "pool_bias")
ATTENTION_INPUTS = (
    *("norm_weight", "norm_bias", "query_weight", "key_value_weight", "out_weight", "out_bias"),
    *("ff_norm_weight", "ff_norm_bias", "up_weight", "up_bias", "down_weight", "down_bias"),
)
SPREAD_INPUTS = ("spread_weight", "spread_bias")
VALUE_INPUTS = ("value_weight", "out_weight", "out_bias")


def shorten(kind: str, opset: int) -> FunctionProto:
    """`Shorten(x [B, n * k, D], weights...) -> y [B, n, D]` for one kind of shortening."""
    inputs = (POOL_INPUTS if kind.startswith("linear") else ()) + (ATTENTION_INPUTS if kind.endswith("attention") else ())
    body = _GROUPS + (_LINEAR_POOL if kind.startswith("linear") else _AVERAGE)
    if kind.endswith("attention"):
        return _function("Shorten", "factor, dim, heads, scale, epsilon", ("x", *inputs), "y", body + _GROUP_ATTENTION, opset)
    return _function("Shorten", "factor, dim", ("x", *inputs), "y", body + "y = Identity (pooled)", opset)


_REPEAT = """
    axis2 = Constant <value_ints = [2]> ()
    column = Unsqueeze (x, axis2)
    one = Constant <value_ints = [1]> ()
    repeats = Concat <axis = 0> (one, one, factor_1d, one)
    rows = Tile (column, repeats)
"""

_SPREAD = """
    axis2 = Constant <value_ints = [2]> ()
    wide = MatMul (x, spread_weight)
    wide_biased = Add (wide, spread_bias)
    row_shape = Concat <axis = 0> (zero, zero, factor_1d, dim_1d)
    rows = Reshape (wide_biased, row_shape)
"""

_VALUE = """
    value = MatMul (x, value_weight)
    found = MatMul (value, out_weight)
    found_biased = Add (found, out_bias)
    found_column = Unsqueeze (found_biased, axis2)
    all_rows = Add (rows, found_column)
"""


def lengthen(kind: str, opset: int) -> FunctionProto:
    """`Lengthen(x [B, n, D], weights...) -> y [B, n * k, D]` for one kind of upsampling."""
    is_attention = kind.endswith("attention")
    inputs = (SPREAD_INPUTS if kind.startswith("linear") else ()) + (VALUE_INPUTS if is_attention else ())
    body = _CONSTANTS + _one_d("factor") + _one_d("dim")
    body += (_SPREAD if kind.startswith("linear") else _REPEAT) + (_VALUE if is_attention else "all_rows = Identity (rows)")
    body += """
    y_shape = Concat <axis = 0> (zero, rest, dim_1d)
    y = Reshape (all_rows, y_shape)
"""
    return _function("Lengthen", "factor, dim", ("x", *inputs), "y", body, opset)


# Queries [B, H, L, Dh], and keys and values, as many or fewer [B, Hkv, L, Dh], out of `qkv`, and the way back.
_SPLIT_HEADS = (
    _CONSTANTS
    + _one_d("heads")
    + """
    three = Constant <value_ints = [3]> ()
    three_heads = Mul (heads_1d, three)
    head_shape = Concat <axis = 0> (zero, zero, three_heads, rest)
    rows = Reshape (qkv, head_shape)
    all_heads = Transpose <perm = [0, 2, 1, 3]> (rows)
    query, key, value = Split <axis = 1, num_outputs = 3> (all_heads)
"""
)
_ALL_HEADS = """
    query_key = Add (heads_1d, kv_heads_1d)
    query_key_value = Add (query_key, kv_heads_1d)
"""
_SPLIT_GROUPED = (
    _CONSTANTS
    + _one_d("heads")
    + _one_d("kv_heads")
    + _ALL_HEADS
    + """
    head_shape = Concat <axis = 0> (zero, zero, query_key_value, rest)
    rows = Reshape (qkv, head_shape)
    all_heads = Transpose <perm = [0, 2, 1, 3]> (rows)
    head_axis = Constant <value_ints = [1]> ()
    query = Slice (all_heads, zero, heads_1d, head_axis)
    key = Slice (all_heads, heads_1d, query_key, head_axis)
    value = Slice (all_heads, query_key, query_key_value, head_axis)
"""
)
# The queries of the heads that read the same keys, one behind the other: [B, H, L, W] <-> [B, Hkv, H / Hkv * L, W].
_GROUP_SHAPES = """
    group_shape = Concat <axis = 0> (zero, kv_heads_1d, rest, zero)
    ungroup_shape = Concat <axis = 0> (zero, heads_1d, rest, zero)
"""
_JOIN_HEADS = """
    found_rows = Transpose <perm = [0, 2, 1, 3]> (found_heads)
    y_shape = Constant <value_ints = [0, 0, -1]> ()
    y = Reshape (found_rows, y_shape)
"""
_TENSOR_SCATTER = """
    present_key = TensorScatter <axis = 2, mode = "linear"> (past_key, key, position)
    present_value = TensorScatter <axis = 2, mode = "linear"> (past_value, value, position)
"""
_ATTENTION = """
    found_heads = Attention <scale: float = @scale> (query, present_key, present_value, mask)
"""


def cached_attention(opset: int, mask: Mask = "bool", given: Given = ()) -> FunctionProto:
    """`CachedAttention(qkv [B, L, 3 H D], past_key, past_value, position, mask) -> y [B, L, H D], present_key, present_value`.

    `kv_heads`, if given, says how many heads the caches have: `qkv` is `[B, L, (H + 2 Hkv) D]`, and head i of the queries reads
    head `i * Hkv // H`, which `Attention` does by itself. `window`, if given, says what the mask hides.

    The form both ONNX Runtime and TensorRT read right: the caches are graph inputs, TensorScatter writes the new rows and its
    results are graph outputs directly, and the mask is an input (never is_causal, which TensorRT aligns to the upper left):
    boolean, or in fp16 stages added to the scores (`export/write_fp16.py` says why). `Attention` takes either.
    """
    return _portable_attention(_TENSOR_SCATTER + _ATTENTION, opset, given)


# Where the rows `{rows}` [B, H, L, Dh] go, from index `{first}` on: (sequence, head, row). With one index into caches flattened
# to [B H S, Dh] TensorRT-RTX copies every cache three times; so, it copies it once and writes the rows into the copy.
_PLACES = """
    zero_0d = Constant <value_int = 0> ()
    one_0d = Constant <value_int = 1> ()
    one = Constant <value_ints = [1]> ()
    after_sequence = Constant <value_ints = [1, 2, 3]> ()
    around_head = Constant <value_ints = [0, 2, 3]> ()
    around_row = Constant <value_ints = [1, 3]> ()
    batch_1d = Shape <start = 0, end = 1> ({rows})
    batch = Squeeze (batch_1d, zero)
    head_count_1d = Shape <start = 1, end = 2> ({rows})
    head_count = Squeeze (head_count_1d, zero)
    new_rows_1d = Shape <start = 2, end = 3> ({rows})
    new_rows = Squeeze (new_rows_1d, zero)
    sequence_range = Range (zero_0d, batch, one_0d)
    head_range = Range (zero_0d, head_count, one_0d)
    row_range = Range (zero_0d, new_rows, one_0d)
    first_row = Unsqueeze ({first}, one)
    row_numbers = Add (first_row, row_range)
    sequence_column = Unsqueeze (sequence_range, after_sequence)
    head_column = Unsqueeze (head_range, around_head)
    row_column = Unsqueeze (row_numbers, around_row)
    column_shape = Concat <axis = 0> (batch_1d, head_count_1d, new_rows_1d, one)
    sequence_places = Expand (sequence_column, column_shape)
    head_places = Expand (head_column, column_shape)
    row_places = Expand (row_column, column_shape)
    places = Concat <axis = 3> (sequence_places, head_places, row_places)
"""
_SCATTER = (
    _PLACES.format(rows="key", first="position")
    + """
    present_key = ScatterND (past_key, places, key)
    present_value = ScatterND (past_value, places, value)
"""
)
# The query is scaled before the product, which could leave the range of fp16 if it were scaled after it.
_SCALED = """
    scale = Constant <value_float: float = @scale> ()
    scale_like = CastLike (scale, query)
    {scaled} = Mul (query, scale_like)
"""
_SCORES = """
    key_columns = Transpose <perm = [0, 1, 3, 2]> (present_key)
    {scores} = MatMul (scaled_query, key_columns)
"""
_MASKS = {
    "bool": """
    hidden = Constant <value_float = -3.4028234e38> ()
    hidden_like = CastLike (hidden, scores)
    masked = Where (mask, scores, hidden_like)
""",
    "added": "masked = Add (scores, mask)",
}
_SHARES = "{shares} = Softmax <axis = -1> (masked)"
_FOUND = "{found} = MatMul (shares, present_value)"


def spelled_attention(opset: int, mask: Mask, given: Given = ()) -> FunctionProto:
    """As `cached_attention`, in ops that TensorRT 10.3 parses: ScatterND for TensorScatter, MatMul and Softmax for Attention.

    The caches are written to new memory, not in place. ScatterND has no `reduction`, which that parser refuses even as "none".
    """
    return _portable_attention(_SCATTER + _spelled(_SCALED, _SCORES, _FOUND, mask, "kv_heads" in given), opset, given)


def _spelled(scaled: str, scores: str, found: str, mask: Mask, grouped: bool) -> str:
    """Attention step by step; heads that read the same keys are rows of one product, so that no key is read twice."""
    if not grouped:
        body = scaled.format(scaled="scaled_query") + scores.format(scores="scores") + _MASKS[mask]
        return body + _SHARES.format(shares="shares") + found.format(found="found_heads")
    body = _GROUP_SHAPES + scaled.format(scaled="scaled_heads")
    body += "scaled_query = Reshape (scaled_heads, group_shape)" + scores.format(scores="group_scores")
    body += "scores = Reshape (group_scores, ungroup_shape)" + _MASKS[mask] + _SHARES.format(shares="head_shares")
    body += "shares = Reshape (head_shares, group_shape)" + found.format(found="found_groups")
    return body + "found_heads = Reshape (found_groups, ungroup_shape)"


# Products of [B, H, L, D] and [B, H, S, D], as sums over element-wise ones.
_SUMMED_SCALED = """
    scale = Constant <value_float: float = @scale> ()
    {scaled} = Mul (query, scale)
"""
_SUMMED_SCORES = """
    axis2 = Constant <value_ints = [2]> ()
    axis3 = Constant <value_ints = [3]> ()
    axis4 = Constant <value_ints = [4]> ()
    query_rows = Unsqueeze (scaled_query, axis3)
    key_rows = Unsqueeze (present_key, axis2)
    matches = Mul (query_rows, key_rows)
    {scores} = ReduceSum <keepdims = 0> (matches, axis4)
"""
_SUMMED_FOUND = """
    share_rows = Unsqueeze (shares, axis4)
    value_rows = Unsqueeze (present_value, axis2)
    weighted = Mul (share_rows, value_rows)
    {found} = ReduceSum <keepdims = 0> (weighted, axis3)
"""


def summed_attention(opset: int, mask: Mask, in_place: bool, given: Given = ()) -> FunctionProto:
    """As `cached_attention` in fp32 (`in_place`) or `spelled_attention`, for compilers that have no fp32 matrix product."""
    scatter = _TENSOR_SCATTER if in_place else _SCATTER
    body = scatter + _spelled(_SUMMED_SCALED, _SUMMED_SCORES, _SUMMED_FOUND, mask, "kv_heads" in given)
    return _portable_attention(body, opset, given)


def _portable_attention(body: str, opset: int, given: Given) -> FunctionProto:
    inputs = ("qkv", "past_key", "past_value", "position", "mask")
    outputs = "y, present_key, present_value"
    split = _SPLIT_GROUPED if "kv_heads" in given else _SPLIT_HEADS
    return _function("CachedAttention", _attributes(given), inputs, outputs, split + body + _JOIN_HEADS, opset)


def _attributes(given: Given) -> str:
    return ", ".join(("heads", "scale", *given))


_WRITE = """
    present = TensorScatter <axis = 2, mode = "linear"> (past, rows, start)
"""


def write_rows(opset: int) -> FunctionProto:
    """`WriteRows(past [B, H, S, W], rows [B, H, n, W], start [B]) -> present [B, H, S, W]`: rows from index `start` are new."""
    return _function("WriteRows", "", ("past", "rows", "start"), "present", _WRITE, opset)


def spelled_write_rows(opset: int) -> FunctionProto:
    """As `write_rows`, with ScatterND; TensorRT writes the whole cache to new memory, ONNX Runtime the new rows in place."""
    body = "zero = Constant <value_ints = [0]> ()" + _PLACES.format(rows="rows", first="start")
    body += "present = ScatterND (past, places, rows)"
    return _function("WriteRows", "", ("past", "rows", "start"), "present", body, opset)


_APPEND = """
    axis1 = Constant <value_ints = [1]> ()
    head = Unsqueeze (appended, axis1)
    present = TensorScatter <axis = 2, mode = "linear"> (log, head, start)
"""


def append_rows(opset: int) -> FunctionProto:
    """`AppendRows(log [B, 1, R, D], appended [B, L, D], start [B]) -> present [B, 1, R, D]`: new rows from index `start`."""
    return _function("AppendRows", "", ("log", "appended", "start"), "present", _APPEND, opset)


def spelled_append_rows(opset: int) -> FunctionProto:
    """As `append_rows`, with ScatterND; into new memory, not in place."""
    body = """
    zero = Constant <value_ints = [0]> ()
    axis1 = Constant <value_ints = [1]> ()
    head = Unsqueeze (appended, axis1)
"""
    body += _PLACES.format(rows="head", first="start") + "present = ScatterND (log, places, head)"
    return _function("AppendRows", "", ("log", "appended", "start"), "present", body, opset)


_LENGTHS = "last_row, total"


def _kernel(given: Given) -> str:
    """Name and attributes that all uses of the kernel share, without the end of the list; its window counts the row too."""
    kv_heads = "kv_heads" if "kv_heads" in given else "heads"
    window = ", local_window_size: int = @window" if "window" in given else ""
    shared = f"num_heads: int = @heads, kv_num_heads: int = @{kv_heads}, scale: float = @scale{window}"
    return f"com.microsoft.GroupQueryAttention <{shared}"


# [B, L, n H Dh] <-> [B, L, n H, Dh], heads widened with zeros or cut again; and where queries, keys and values part.
_HEAD_SHAPES = (
    _CONSTANTS
    + _one_d("heads")
    + """
    three = Constant <value_ints = [3]> ()
    three_heads = Mul (heads_1d, three)
    qkv_head_shape = Concat <axis = 0> (zero, zero, three_heads, rest)
    head_shape = Concat <axis = 0> (zero, zero, heads_1d, rest)
    flat_shape = Constant <value_ints = [0, 0, -1]> ()
"""
)
_GROUPED_HEAD_SHAPES = (
    _CONSTANTS
    + _one_d("heads")
    + _one_d("kv_heads")
    + _ALL_HEADS
    + """
    qkv_head_shape = Concat <axis = 0> (zero, zero, query_key_value, rest)
    head_shape = Concat <axis = 0> (zero, zero, heads_1d, rest)
    kv_head_shape = Concat <axis = 0> (zero, zero, kv_heads_1d, rest)
    flat_shape = Constant <value_ints = [0, 0, -1]> ()
    head_width = Constant <value_ints = [{width}]> ()
    all_parts = Concat <axis = 0> (heads_1d, kv_heads_1d, kv_heads_1d)
    part_widths = Mul (all_parts, head_width)
"""
)
_PAD_HEADS = """
    narrow = Reshape (qkv, qkv_head_shape)
    padding = Constant <value = int64[8] {{0, 0, 0, 0, 0, 0, 0, {padding}}}> ()
    padded = Pad (narrow, padding)
    wide_qkv = Reshape (padded, flat_shape)
"""
_CUT_HEADS = """
    y_heads = Reshape (wide_y, head_shape)
    start = Constant <value_ints = [0]> ()
    end = Constant <value_ints = [{head_dim}]> ()
    last_axis = Constant <value_ints = [3]> ()
    y_cut = Slice (y_heads, start, end, last_axis)
    y = Reshape (y_cut, flat_shape)
"""


def group_query_attention(head_dim: int, padded_head_dim: int, opset: int, given: Given = ()) -> FunctionProto:
    """`CachedAttention` by ONNX Runtime's own kernel, heads widened with zeros where the kernel's step of 8 asks for it.

    It costs by the length used, reads packed projections and writes the new cache rows in place.
    """
    call = f"{{y}}, present_key, present_value = {_kernel(given)}> ({{qkv}}, , , past_key, past_value, {_LENGTHS})"
    inputs = ("qkv", "past_key", "past_value", "last_row", "total")
    return _attention(call, inputs, head_dim, padded_head_dim, opset, given, needs_shapes=False)


# A chunk of many rows attends in fp32: the kernel widens the integers anew for every row. The new rows take the way through
# int8 too, so that a row sees the same keys and values however the sequence is cut.
_APPEND_INT8 = """
    {part}_scale_0d = Squeeze ({part}_scale)
    {part}_int8 = QuantizeLinear ({part}, {part}_scale_0d, zero_point)
    {part}_int8_rows = Reshape ({part}_int8, {head_shape})
    {part}_int8_heads = Transpose <perm = [0, 2, 1, 3]> ({part}_int8_rows)
    chunk_{part} = TensorScatter <axis = 2, mode = "linear"> (past_{part}, {part}_int8_heads, position)
    {part}_rounded = DequantizeLinear ({part}_int8, {part}_scale_0d, zero_point)
    {part}_used = Slice (past_{part}, zero, position, axis2)
    {part}_past = DequantizeLinear ({part}_used, {part}_scale_0d, zero_point)
"""


def _int8_chunk(given: Given) -> str:
    is_grouped = "kv_heads" in given
    split = "Split <axis = -1> ({qkv}, part_widths)" if is_grouped else "Split <axis = -1, num_outputs = 3> ({qkv})"
    appended = [_APPEND_INT8.format(part=part, head_shape="kv_head_shape" if is_grouped else "head_shape") for part in _PARTS]
    return f"""
    query, key, value = {split}
    axis2 = Constant <value_ints = [2]> ()
    zero_point = Constant <value = int8 {{{{0}}}}> ()
    {appended[0]}
    {appended[1]}
    chunk_y, all_keys, all_values = {_kernel(given)}>
        (query, key_rounded, value_rounded, key_past, value_past, {_LENGTHS})
"""


_PARTS = ("key", "value")


# A sink that takes nothing changes no number, but which of its two ways over int8 ONNX Runtime goes: the other one ("flash")
# sums up in memory that does not begin at a cache line, and takes 1.4 times as long for a row (docs/adr/0006).
def _int8_rows(given: Given) -> str:
    kernel = f'{_kernel(given)}, k_quant_type = "PER_TENSOR", v_quant_type = "PER_TENSOR", kv_cache_bit_width = 8>'
    return f"""
    no_sink = ConstantOfShape <value = float[1] {{{{-3.4028234e38}}}}> (heads_1d)
    rows_y, rows_key, rows_value = {kernel}
        ({{qkv}}, , , past_key, past_value, {_LENGTHS}, , , , , no_sink, key_scale, value_scale)
"""


def int8_cache_attention(head_dim: int, padded_head_dim: int, opset: int, given: Given = ()) -> FunctionProto:
    """As `group_query_attention`, over int8 caches: a quarter of the bytes to keep and to read.

    Both branches append to the same caches in place. Source: `k_scale` of GroupQueryAttention (ONNX Runtime contrib operators).
    """
    call = f"""{{y}}, present_key, present_value = If (is_chunk) <
        then_branch = chunk () => (chunk_y, chunk_key, chunk_value) {{{{ {_int8_chunk(given)} }}}},
        else_branch = rows () => (rows_y, rows_key, rows_value) {{{{ {_int8_rows(given)} }}}}
    >"""
    inputs = (
        *("qkv", "past_key", "past_value", "last_row", "total", "position", "is_chunk"),
        *("key_scale", "value_scale"),
    )
    return _attention(call, inputs, head_dim, padded_head_dim, opset, given, needs_shapes=True)


def _attention(
    call: str, inputs: tuple[str, ...], head_dim: int, padded_head_dim: int, opset: int, given: Given, needs_shapes: bool
) -> FunctionProto:
    """Wrap a kernel's call, with the places `{qkv}` and `{y}`, in what widens its heads."""
    shapes = _GROUPED_HEAD_SHAPES.format(width=padded_head_dim) if "kv_heads" in given else _HEAD_SHAPES
    if padded_head_dim == head_dim:
        body = (shapes if needs_shapes else "") + call.format(qkv="qkv", y="y")
    else:
        body = shapes + _PAD_HEADS.format(padding=padded_head_dim - head_dim)
        body += call.format(qkv="wide_qkv", y="wide_y") + _CUT_HEADS.format(head_dim=head_dim)
    outputs = "y, present_key, present_value"
    return _function("CachedAttention", _attributes(given), inputs, outputs, body, opset, '"com.microsoft" : 1')


def _function(
    name: str, attributes: str, inputs: tuple[str, ...], outputs: str, body: str, opset: int, extra_import: str = ""
) -> FunctionProto:
    imports = f'"" : {opset}' + (f", {extra_import}" if extra_import else "")
    text = f"""<domain: "{DOMAIN}", opset_import: [{imports}]>
    {name} {f"<{attributes}>" if attributes else ""} ({", ".join(inputs)}) => ({outputs}) {{ {body} }}"""
    return _named(onnx.parser.parse_function(text))


def _named(function: FunctionProto) -> FunctionProto:
    for node in function.node:
        node.name = f"{function.name}/{node.output[0]}"
    return function
