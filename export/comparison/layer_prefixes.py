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

from ...calibration.graph_files import load_graph
from ...contract import CacheSpec, StageSpec
from ...errors import ConfigError
from ..cpu.attention import is_kept_by_layer
from ..graphs.nodes import caches_of
from ..graphs.saving import save_graph

_TIME_MAJOR = (1, 0, 2)


class Cut(NamedTuple):
    """Where a stage is cut: `node` reads the value (`reads`) or gives it; `layers` of the stage's are in front of it."""

    name: str
    node: str
    reads: bool
    layers: int


def cuts_of(spec: StageSpec, graph: Path) -> list[Cut]:
    """The cuts of a stage in dataflow order, named after places in its graph; its end is not one of them.

    Raises:
        ConfigError: the graph is not that of a stack of layers, each of which hands what it gives to the next (`StackStage`).
    """
    cuts = list(_cuts(spec))
    names = {node.name for node in load_graph(graph).graph}
    if any(cut.node not in names for cut in cuts) or not all(map(is_kept_by_layer, map(_growing, spec.caches))):
        raise ConfigError(f'stage "{spec.name}" can\'t be cut: it is not a stack of layers; compare whole stages, without cuts')
    return cuts


def _growing(cache: CacheSpec) -> CacheSpec:
    """The caches of a stage that resets are those of layers all the same."""
    return msgspec.structs.replace(cache, keeps=None)


def _cuts(spec: StageSpec) -> Iterator[Cut]:
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
    model = load_graph(source)
    graph = model.graph
    width = _end_with(graph, _value(model, cut))
    kept = tuple(cache for cache in spec.caches if int(cache.name.partition(".")[0]) < cut.layers)
    names = {f"{kind}.{cache.name}" for kind in ("past_key_values", "present") for cache in kept}
    dropped = [value for value in caches_of(model) if value.name not in names]
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
        width=width,
        layers=cut.layers,
        caches=kept,
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


def _end_with(graph: ir.Graph, value: ir.Value) -> int:
    """Make rows `[B, L, D]` the graph's first output, time-major as between all stages; returns D."""
    old = graph.outputs[0]
    end = ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", _TIME_MAJOR)], name="cut/Transpose")
    (hidden,) = end.outputs
    old.name, hidden.name = f"{old.name}_of_the_stage", "hidden"
    width = value.shape[-1] if value.shape is not None else None
    if not isinstance(width, int):
        raise TypeError(f"expected rows of a fixed width at a cut, got {width} in {value.name}")
    hidden.shape, hidden.type = ir.Shape(["L", "B", width]), ir.TensorType(ir.DataType.FLOAT)
    graph.append(end)
    graph.outputs[0] = hidden
    return width


def _measure_kept_cache(graph: ir.Graph, dropped: list[ir.Value]) -> None:
    """All caches are equally long, so what asks a dropped one for its length asks the first layer's."""
    first = next((value for value in graph.inputs if value.name == "past_key_values.0.key"), None)
    for value in dropped:
        for node, index in list(value.uses()):
            if node.op_type == "Shape" and first is not None:
                node.replace_input_with(index, first)
