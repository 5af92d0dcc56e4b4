"""Lower a portable stage graph to what ONNX Runtime's CPU provider runs best.

The portable form of cached attention costs by the capacity of the cache: ONNX Runtime's `Attention` reads every row, masked
or not. Its own `GroupQueryAttention` costs by the length used and writes the new rows in place. Lowering swaps the body of
`foveal::CachedAttention` for that kernel and drops the mask (docs/adr/0003 has the measurements and the ways not taken).
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..contract import StageSpec
from ..errors import BuildError
from . import functions
from .cpu_products import lower_products
from .edit import insert_before
from .graph import save_graph

# ONNX Runtime 1.23, the newest for Python 3.10, loads no later opset. Nothing that is left in a lowered graph changed after it.
OPSET = 23
KERNEL_STEP = 8  # GroupQueryAttention on CPU: "head_size must be a multiple of 8"


def padded_head_dim(head_dim: int) -> int:
    """The head width the kernel takes: rounded up to its step."""
    return -(-head_dim // KERNEL_STEP) * KERNEL_STEP


def lower(source: Path, target: Path, stage: StageSpec) -> None:
    """Write the CPU form of the stage graph `source` to `target`; same inputs and outputs, caches possibly wider.

    Raises:
        BuildError: the graph has other attention than the stage declares.
    """
    model = ir.load(source)
    calls = [node for node in model.graph if (node.domain, node.op_type) == (functions.DOMAIN, "CachedAttention")]
    if len(calls) != stage.layers:
        raise BuildError(
            f'stage "{stage.name}" has {len(calls)} CachedAttention nodes, expected one for each of its {stage.layers} layers; '
            "convert the checkpoint again"
        )
    _stamp_opset(model)
    lower_products(model)
    if calls:
        if stage.cache_dtype == "float16":
            _widen_attention(calls)
        _swap_attention(model, calls, stage.head_dim)
        _restate_caches(model, padded_head_dim(stage.head_dim))
    RemoveUnusedNodesPass()(model)
    save_graph(model, target)


def _stamp_opset(model: ir.Model) -> None:
    model.opset_imports[""] = OPSET
    for function in model.functions.values():
        function.opset_imports[""] = OPSET


def _swap_attention(model: ir.Model, calls: list[ir.Node], head_dim: int) -> None:
    """Give `CachedAttention` its new body, and the used length (counted once, by the first layer) in place of the mask."""
    swapped = functions.group_query_attention(head_dim, padded_head_dim(head_dim), OPSET)
    for function in map(ir.serde.deserialize_function, (swapped, functions.used_length(OPSET))):
        model.functions[function.identifier()] = function
    model.opset_imports["com.microsoft"] = 1
    qkv, _, _, position, _ = calls[0].inputs
    used_length = ir.Node(functions.DOMAIN, "UsedLength", [qkv, position], num_outputs=2, name="UsedLength")
    model.graph.insert_before(calls[0], used_length)
    for node in calls:
        for index, output in enumerate(used_length.outputs):
            node.replace_input_with(3 + index, output)


def _widen_attention(calls: list[ir.Node]) -> None:
    """Attend in fp32, caches included: the kernel takes fp16 too, but at less than half the speed."""
    for node in calls:
        qkv, y = node.inputs[0], node.outputs[0]
        (wide,) = insert_before(node, "Cast", [qkv], f"{node.name}/fp32", {"to": ir.DataType.FLOAT})
        node.replace_input_with(0, wide)
        readers = list(y.uses())
        (narrow,) = insert_before(readers[0][0], "Cast", [y], f"{node.name}/fp16", {"to": ir.DataType.FLOAT16})
        for reader, index in readers:
            reader.replace_input_with(index, narrow)
        for value in node.outputs:
            value.dtype = ir.DataType.FLOAT


def _restate_caches(model: ir.Model, head_dim: int) -> None:
    for value in (*model.graph.inputs, *model.graph.outputs):
        is_cache = (value.name or "").startswith(("past_key_values.", "present."))
        if is_cache and value.shape is not None:
            value.shape = ir.Shape([*value.shape[:-1], head_dim])
            value.dtype = ir.DataType.FLOAT
