"""Lower cached attention to ONNX Runtime's CPU kernel, with fp32 or int8 caches.

The portable form costs by the capacity of the cache: ONNX Runtime's `Attention` reads every row, masked or not. Its own
`GroupQueryAttention` costs by the length used and writes the new rows in place. Lowering swaps the body of
`foveal::CachedAttention` for that kernel and drops the mask (docs/adr/0003 has the measurements and the ways not taken).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from ...calibration.products import cached_attentions
from ...contract import CacheSpec, StageSpec
from ...errors import BuildError
from ...precision import CacheScale
from ..graphs import functions
from ..graphs.attentions import given_attributes
from ..graphs.functions import MASK
from ..graphs.nodes import caches_of, constant, insert_before
from .counters import counter

KERNEL_STEP = 8  # GroupQueryAttention on CPU: "head_size must be a multiple of 8"


def padded_head_dim(head_dim: int) -> int:
    """The head width the kernel takes: rounded up to its step."""
    return -(-head_dim // KERNEL_STEP) * KERNEL_STEP


def uses_kernel(stage: StageSpec) -> bool:
    """Whether the attention of a stage is the kernel's: it has some, and its caches grow with the text.

    Other caches that the stage has are written and read as those of a stage without the kernel.
    """
    return any(is_of_kernel(stage, cache) for cache in stage.caches)


def is_of_kernel(stage: StageSpec, cache: CacheSpec) -> bool:
    """Whether a cache of a stage is written and read by the kernel."""
    return stage.resets is None and is_kept_by_layer(cache)


def is_kept_by_layer(cache: CacheSpec) -> bool:
    """Whether a cache is the keys or the values of a layer, all of them."""
    layer, _, part = cache.name.partition(".")
    return layer.isdigit() and part in ("key", "value") and cache.keeps is None and not cache.recurrent


def cache_widths(stage: StageSpec) -> tuple[int, ...]:
    """Widths of a stage's caches in its CPU engine: the kernel's are padded."""
    return tuple(padded_head_dim(cache.width) if is_of_kernel(stage, cache) else cache.width for cache in stage.caches)


def lower_attention(model: ir.Model, stage: StageSpec, opset: int, scales: Sequence[CacheScale] = ()) -> None:
    """Give every `CachedAttention` the kernel's body, and the used length in place of the mask.

    Raises:
        BuildError: the graph has other attention than the stage declares, or heads of several widths.
    """
    calls, caches = cached_attentions(model), [cache for cache in stage.caches if is_of_kernel(stage, cache)]
    if 2 * len(calls) != len(caches):
        raise BuildError(
            f'stage "{stage.name}" has {len(calls)} CachedAttention nodes, expected one for each of the '
            f"{len(caches) // 2} layers whose keys and values are caches; convert the checkpoint again, and if the stage "
            "writes keys and values itself, give those caches names that don't begin with a number"
        )
    if not calls:
        return
    head_dim = _only_width(stage, caches)
    width = padded_head_dim(head_dim)
    body = functions.int8_cache_attention if scales else functions.group_query_attention
    function = ir.serde.deserialize_function(body(head_dim, width, opset, given_attributes(model)))
    model.functions[function.identifier()] = function
    model.opset_imports["com.microsoft"] = 1
    _rewire(model, calls, scales)
    _declare_caches(model, {cache.name for cache in caches}, width, ir.DataType.INT8 if scales else ir.DataType.FLOAT)


def _only_width(stage: StageSpec, caches: Sequence[CacheSpec]) -> int:
    widths = sorted({cache.width for cache in caches})
    if len(widths) > 1:
        raise BuildError(
            f'stage "{stage.name}" has heads of {" and ".join(map(str, widths))} columns, expected one width: all attentions '
            "share the body of a kernel; make a stage of each"
        )
    return widths[0]


def _rewire(model: ir.Model, calls: list[ir.Node], scales: Sequence[CacheScale]) -> None:
    """Replace the inputs `qkv, past_key, past_value, position, mask` by those that the new body takes."""
    for index, node in enumerate(calls):
        qkv, past_key, past_value, position, _ = node.inputs
        given = [qkv, past_key, past_value, counter(model, "last_row"), counter(model, "total")]
        if scales:
            of_layer = (("key", scales[index].key), ("value", scales[index].value))
            given += [position, counter(model, "is_chunk")]
            given += [constant(node, f"{node.name}/{part}_scale", np.array([scale], np.float32)) for part, scale in of_layer]
        node.resize_inputs(len(given))
        for place, value in enumerate(given):
            node.replace_input_with(place, value)


def widen_attention(model: ir.Model) -> None:
    """Attend in fp32, caches included: ONNX Runtime has no fp16 arithmetic for x86."""
    for node in cached_attentions(model):
        y = node.outputs[0]
        for index, part in ((0, "qkv"), (MASK, "mask")):
            (wide,) = insert_before(node, "Cast", [node.inputs[index]], f"{node.name}/{part}_fp32", {"to": ir.DataType.FLOAT})
            node.replace_input_with(index, wide)
        readers = list(y.uses())
        (narrow,) = insert_before(readers[0][0], "Cast", [y], f"{node.name}/fp16", {"to": ir.DataType.FLOAT16})
        for reader, index in readers:
            reader.replace_input_with(index, narrow)
        for value in node.outputs:
            value.dtype = ir.DataType.FLOAT
    for cache in caches_of(model):
        cache.dtype = ir.DataType.FLOAT


def _declare_caches(model: ir.Model, names: Collection[str], head_dim: int, dtype: ir.DataType) -> None:
    for cache in caches_of(model):
        if cache.shape is not None and (cache.name or "").partition(".")[2] in names:
            cache.shape = ir.Shape([*cache.shape[:-1], head_dim])
            cache.dtype = dtype
