"""The bodies of `CachedAttention`: however it is spelled, and whichever attributes its nodes have, it means the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import FunctionProto
from precisions import needs_opset_24

from foveal.export.graphs.attentions import given_attributes
from foveal.export.graphs.functions import Given, Mask, cached_attention, spelled_attention, summed_attention

HEADS, WIDTH, CAPACITY, ROWS, BATCH = 4, 8, 12, 3, 2
POSITIONS = np.array([5, 2])
Body = Callable[[int, Mask, Given], FunctionProto]
BODIES: dict[str, Body] = {
    "modern": cached_attention,
    "classic": spelled_attention,
    "summed": lambda opset, mask, given: summed_attention(opset, mask, True, given),
    "summed to new memory": lambda opset, mask, given: summed_attention(opset, mask, False, given),
}


def model(kv_heads: list[int | None], mask: Mask) -> ir.Model:
    """A graph with so many attentions of the same caches and rows, without a body."""
    some = next((heads for heads in kv_heads if heads), HEADS)
    cache, rows = f"float[{BATCH},{some},{CAPACITY},{WIDTH}]", f"float[{BATCH},{ROWS},{(HEADS + 2 * some) * WIDTH}]"
    kind = "bool" if mask == "bool" else "float"
    calls, outputs = "", []
    for index, heads in enumerate(kv_heads):
        extra = f", kv_heads = {heads}" if heads else ""
        calls += f"y{index}, key{index}, value{index} = foveal.CachedAttention <heads = {HEADS}, scale = 0.4{extra}> "
        calls += "(qkv, past_key, past_value, position, mask)\n"
        outputs += [f"float[{BATCH},{ROWS},{HEADS * WIDTH}] y{index}", f"{cache} key{index}", f"{cache} value{index}"]
    text = f"""<ir_version: 10, opset_import: ["" : 24, "foveal" : 1]>
    stage ({rows} qkv, {cache} past_key, {cache} past_value, int64[{BATCH}] position, {kind}[{BATCH},1,{ROWS},{CAPACITY}] mask)
        => ({", ".join(outputs)}) {{ {calls} }}"""
    return ir.from_proto(onnx.parser.parse_model(text))


def run(graph: ir.Model, body: FunctionProto, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    function = ir.serde.deserialize_function(body)
    graph.functions[function.identifier()] = function
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)


@needs_opset_24
@pytest.mark.parametrize("mask", ["bool", "added"])
@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("name", BODIES)
def test_every_body_is_the_definition(name: str, kv_heads: int | None, mask: Mask) -> None:
    """Rows behind the past of each sequence, heads that share keys and values, and a mask with a window of 4."""
    few = kv_heads or HEADS
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((BATCH, ROWS, (HEADS + 2 * few) * WIDTH), np.float32)
    past_key, past_value = (rng.standard_normal((BATCH, few, CAPACITY, WIDTH), np.float32) for _ in range(2))
    ago = (POSITIONS[:, None] + np.arange(ROWS))[:, None, :, None] - np.arange(CAPACITY)
    seen = (ago >= 0) & (ago < 4)
    graph = model([kv_heads], mask)
    body = BODIES[name](24, mask, given_attributes(graph))
    shown = seen if mask == "bool" else np.where(seen, 0, -30_000).astype(np.float32)
    given = {"qkv": qkv, "past_key": past_key, "past_value": past_value, "position": POSITIONS, "mask": shown}
    y, keys, values = run(graph, body, given)
    heads = qkv.reshape(BATCH, ROWS, -1, WIDTH).transpose(0, 2, 1, 3)
    query, key, value = np.split(heads, [HEADS, HEADS + few], axis=1)
    for b, first in enumerate(POSITIONS):
        past_key[b, :, first : first + ROWS], past_value[b, :, first : first + ROWS] = key[b], value[b]
    np.testing.assert_array_equal(keys, past_key)
    np.testing.assert_array_equal(values, past_value)
    all_keys, all_values = (np.repeat(part, HEADS // few, 1) for part in (past_key, past_value))
    scores = np.where(seen, query @ all_keys.transpose(0, 1, 3, 2) * 0.4, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    found = (shares / shares.sum(-1, keepdims=True)) @ all_values
    np.testing.assert_allclose(y, found.transpose(0, 2, 1, 3).reshape(y.shape), atol=2e-6)


def test_a_graph_without_such_attributes_has_the_body_it_always_had() -> None:
    assert given_attributes(model([None, None], "bool")) == ()
    assert list(cached_attention(24).attribute) == ["heads", "scale"]


def test_nodes_that_share_a_body_all_have_its_attributes() -> None:
    """A node says what differs from attention over all rows with as many heads; beside others that say it, it says so too."""
    graph = model([HEADS, None], "bool")
    first, second = list(graph.graph)
    first.attributes["window"] = ir.AttrInt64("window", 4)
    assert given_attributes(graph) == ("kv_heads", "window")
    assert [second.attributes[name].as_int() for name in ("kv_heads", "window")] == [HEADS, -1]
