"""The prefixes of a stage: its graph up to the residual stream after each layer's attention and feed forward.

A prefix is a stage of its own, whose output is what would be an intermediate value. So nothing is marked as an output in the
middle of a graph, which keeps compilers from fusing there, and a prefix is built and run as every stage is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..contract import StageSpec
from ..errors import ConfigError
from .edit import caches_of
from .saving import save_graph

_TIME_MAJOR = (1, 0, 2)


class Cut(NamedTuple):
    """Where a stage is cut: `node` reads the value (`reads`) or gives it; `layers` of the stage's are in front of it."""

    name: str
    node: str
    reads: bool
    layers: int


def cuts_of(spec: StageSpec) -> Iterator[Cut]:
    """The cuts of a stage in dataflow order, named after places in its graph; its end is not one of them."""
    for layer in range(spec.layers):
        place = f"{spec.name}/stack/layers/{layer}"
        if layer == 0:
            yield Cut(f"{spec.name}/entry", f"{place}/norm/LayerNormalization", True, 0)
        yield Cut(f"{place}/attention", f"{place}/feed_forward/norm/LayerNormalization", True, layer + 1)
        if layer < spec.layers - 1:
            yield Cut(f"{place}/feed_forward", f"{spec.name}/stack/layers/{layer + 1}/norm/LayerNormalization", True, layer + 1)
        else:
            yield Cut(f"{place}/feed_forward", f"{place}/feed_forward/Add", False, layer + 1)


def write_prefix(source: Path, target: Path, spec: StageSpec, cut: Cut) -> tuple[StageSpec, frozenset[str]]:
    """Write the part of the stage graph `source` in front of a cut to `target`.

    Returns:
        What the prefix is as a stage, and the names of its nodes.

    Raises:
        ConfigError: the graph has no such place.
    """
    model = ir.load(source)
    graph = model.graph
    _end_with(graph, _value(model, cut))
    caches = {f"{kind}.{layer}" for kind in ("past_key_values", "present") for layer in range(cut.layers)}
    dropped = [value for value in caches_of(model) if (value.name or "").rpartition(".")[0] not in caches]
    _measure_kept_cache(graph, dropped)
    for value in dropped:
        (graph.inputs if value.is_graph_input() else graph.outputs).remove(value)
    RemoveUnusedNodesPass()(model)
    for value in [value for value in graph.inputs if value.name in ("position", "logit_rows") and not list(value.uses())]:
        graph.inputs.remove(value)
    save_graph(model, target)
    prefix = msgspec.structs.replace(
        spec,
        output="hidden",
        output_rows=1,
        layers=cut.layers,
        uses_position=any(value.name == "position" for value in graph.inputs),
    )
    return prefix, frozenset(node.name or "" for node in graph)


def _value(model: ir.Model, cut: Cut) -> ir.Value:
    for node in model.graph:
        if node.name == cut.node:
            value = node.inputs[0] if cut.reads else node.outputs[0]
            if value is not None:
                return value
    raise ConfigError(
        f'the stage graph has no node "{cut.node}", so it can\'t be cut at {cut.name}; convert the checkpoint again'
    )


def _end_with(graph: ir.Graph, value: ir.Value) -> None:
    """Make rows `[B, L, D]` the graph's first output, time-major as between all stages."""
    old = graph.outputs[0]
    end = ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", _TIME_MAJOR)], name="cut/Transpose")
    (hidden,) = end.outputs
    old.name, hidden.name = f"{old.name}_of_the_stage", "hidden"
    width = value.shape[-1] if value.shape is not None else None
    hidden.shape, hidden.type = ir.Shape(["L", "B", width]), ir.TensorType(ir.DataType.FLOAT)
    graph.append(end)
    graph.outputs[0] = hidden


def _measure_kept_cache(graph: ir.Graph, dropped: list[ir.Value]) -> None:
    """All caches are equally long, so what asks a dropped one for its length asks the first layer's."""
    first = next((value for value in graph.inputs if value.name == "past_key_values.0.key"), None)
    for value in dropped:
        for node, index in list(value.uses()):
            if node.op_type == "Shape" and first is not None:
                node.replace_input_with(index, first)
