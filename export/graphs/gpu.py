"""A stage graph as compilers for GPUs are given it: in a dialect they read, resident, with every size fixed that can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx_ir as ir

from ...bundle import SAMPLER, ModelInfo
from ...calibration.graph_files import load_graph
from ...contract import Contract, Limits, StageSpec, leads_of, resident_contract_of, sampler_contract, size_of, sizes_of
from .change_dialect import change_dialect
from .dialect import Dialect
from .resident import make_resident
from .sampler import sampler_graph


@dataclass(frozen=True)
class DeviceFamily:
    """All engines of one model on a device: its stages in dataflow order, their largest shapes, and their dialect."""

    model: ModelInfo
    stages: tuple[StageSpec, ...]
    limits: Limits
    dialect: Dialect


class LoweredStage(NamedTuple):
    """A stage graph that is ready to be parsed.

    Attributes:
        spec: the stage.
        graph: the portable graph it was made of, beside which its weights are.
        model: serialised ONNX; its weights are where those of `graph` are.
        contract: its inputs and outputs.
        sizes: what the letters of the contract's fixed dimensions stand for.
    """

    spec: StageSpec
    graph: Path
    model: bytes
    contract: Contract
    sizes: dict[str, int]


def weight_files(stage: LoweredStage) -> list[Path]:
    """The files beside its graph that a lowered stage has its weights in."""
    initializers = onnx.load_model_from_string(stage.model).graph.initializer
    entries = [entry for tensor in initializers for entry in tensor.external_data if entry.key == "location"]
    return [stage.graph.parent / name for name in sorted({entry.value for entry in entries})]


def lower(graph: Path, spec: StageSpec, family: DeviceFamily) -> LoweredStage:
    """Give a portable stage graph the form that compilers for GPUs build best.

    Raises:
        ExportError: the graph can't be said in the family's dialect.
    """
    model = load_graph(graph)
    change_dialect(model, family.dialect)
    make_resident(model, spec, leads_of(family.stages), family.dialect)
    sizes, proto = sizes_of(family.limits, family.stages, spec.name), ir.to_proto(model)
    _fix_sizes(proto, sizes)
    contract = resident_contract_of(spec)
    return LoweredStage(spec, graph, proto.SerializeToString(deterministic=True), contract, sizes)


def _fix_sizes(model: onnx.ModelProto, sizes: dict[str, int]) -> None:
    """TensorRT updates caches and logs in place only where their length is static."""
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            size = size_of(dimension.dim_param, sizes) if dimension.dim_param else -1
            if size >= 0:
                dimension.dim_value = size


def lower_sampler(graph: Path, family: DeviceFamily) -> LoweredStage:
    """The sampler of a model, as if it were a stage without state; `graph` is where it would be."""
    count, vocab_size = len(family.stages), family.model.vocab_size
    model = ir.to_proto(sampler_graph(count, vocab_size)).SerializeToString(deterministic=True)
    return LoweredStage(_SAMPLER_SPEC, graph, model, sampler_contract(count, vocab_size), {})


_SAMPLER_SPEC = StageSpec(name=SAMPLER, stride=1, inputs=(), output="logits", width=1, layers=0, parameters=0)
