"""The sampler as a graph: the next token is drawn where the logits are, and positions count on by themselves.

It draws as `runtime.sampling.Sampler` does, from the `CANDIDATES` likeliest tokens, by the inverse of the cumulative
distribution at one uniform number per token. So the same seed gives the same text as on the host, but for draws that fall on a
border which fp32 rounds to the other side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from ...contract import CANDIDATES, TensorSpec, sampler_contract

_OPSET = 20  # of the dialect classic: all targets read it

_GRAPH = """<ir_version: 10, opset_import: ["" : {opset}]>
sampler ({inputs}) => ({outputs}) {{
    count = Constant <value_ints = [{candidates}]> ()
    last_axis = Constant <value_ints = [-1]> ()
    last_place = Constant <value_int = 2> ()
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    values, ids = TopK <axis = -1> (logits, count)
    in_top_k = Less (ranks, top_k)
    scaled = Mul (values, inverse_temperature)
    highest = ReduceMax (scaled, last_axis)
    shifted = Sub (scaled, highest)
    powers = Exp (shifted)
    nothing = Constant <value_float = 0.0> ()
    weights = Where (in_top_k, powers, nothing)
    weight_sum = ReduceSum (weights, last_axis)
    shares = Div (weights, weight_sum)
    up_to = CumSum (shares, last_place)
    before = Sub (up_to, shares)
    in_top_p = Less (before, top_p)
    likeliest = ReduceMax (shares, last_axis)
    least = Mul (likeliest, min_p)
    in_min_p = GreaterOrEqual (shares, least)
    in_both = And (in_top_p, in_min_p)
    is_kept = And (in_both, in_top_k)
    kept = Where (is_kept, shares, nothing)
    cumulative = CumSum (kept, last_place)
    total = ReduceSum (kept, last_axis)
    draw = Gather <axis = 0> (position_{stages}, zero)
    uniform_row = Gather <axis = 0> (uniform, draw)
    uniform_column = Transpose <perm = [1, 0]> (uniform_row)
    uniform_3d = Unsqueeze (uniform_column, last_axis)
    height = Mul (uniform_3d, total)
    is_passed = LessOrEqual (cumulative, height)
    passed = Cast <to = 7> (is_passed)
    passed_count = ReduceSum (passed, last_axis)
    kept_flags = Cast <to = 7> (is_kept)
    kept_count = ReduceSum (kept_flags, last_axis)
    last_kept = Sub (kept_count, one)
    pick = Min (passed_count, last_kept)
    chosen = GatherElements <axis = 2> (ids, pick)
    next_ids = Squeeze (chosen, last_axis)
    {moves}
}}"""
_MOVE = """
    place_{place} = Constant <value_ints = [{place}]> ()
    step_{place} = Gather <axis = 0> (fired, place_{place})
    next_position_{place} = Add (position_{place}, step_{place})
"""


def sampler_graph(stages: int, vocab_size: int) -> ir.Model:
    """The sampler of a model with so many stages; its tensors are those of `sampler_contract`."""
    contract, candidates = sampler_contract(stages, vocab_size), min(CANDIDATES, vocab_size)
    text = _GRAPH.format(
        opset=_OPSET,
        candidates=candidates,
        stages=stages,
        inputs=_declared(contract.inputs),
        outputs=_declared(contract.outputs),
        moves="".join(_MOVE.format(place=place) for place in range(stages + 1)),
    )
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"sampler/{node.output[0]}"
    constants: dict[str, np.ndarray[Any, Any]] = {
        "ranks": np.arange(candidates),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return ir.from_proto(model)


def _declared(tensors: Sequence[TensorSpec]) -> str:
    kinds = {"float32": "float", "int64": "int64"}
    return ", ".join(f"{kinds[tensor.dtype]}[{','.join(map(str, tensor.shape))}] {tensor.name}" for tensor in tensors)
