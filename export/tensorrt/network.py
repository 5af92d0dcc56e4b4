"""A stage graph as TensorRT is given it: in a dialect that it parses, resident, and with every size fixed that can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import onnx_ir as ir

from ...contract import Contract, StageSpec, leads_of, resident_contract_of
from ...errors import BuildError
from ...runtime.engines.tensorrt_library import Library, Message
from ..resident import make_resident
from ..restate import restate
from .family import Family

NETWORK_FORMAT = 1
"""Raise it when `parse` changes networks otherwise: engines that were built before are then built again."""


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


class ParsedStage(NamedTuple):
    """A network, with the builder and the parser that it lives in."""

    builder: Any
    parser: Any
    network: Any

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs."""
        return tuple(self.network.get_input(index).name for index in range(self.network.num_inputs))

    def layers(self) -> Iterator[Any]:
        """Its layers in order."""
        return (self.network.get_layer(index) for index in range(self.network.num_layers))

    def kinds(self) -> dict[str, int]:
        """How many layers it has of each type."""
        return dict(sorted(Counter(layer.type.name for layer in self.layers()).items()))


def lower(graph: Path, spec: StageSpec, family: Family) -> LoweredStage:
    """Give a portable stage graph the form that TensorRT builds best.

    Raises:
        ExportError: the graph can't be said in the family's dialect.
    """
    model, info = ir.load(graph), family.model
    restate(model, family.dialect)
    make_resident(model, spec, leads_of(family.stages), info.dim, family.dialect)
    sizes, proto = family.limits.sizes(family.stages, spec.name), ir.to_proto(model)
    _fix_sizes(proto, sizes)
    contract = resident_contract_of(spec, info.dim, info.vocab_size)
    return LoweredStage(spec, graph, proto.SerializeToString(deterministic=True), contract, sizes)


def _fix_sizes(model: onnx.ModelProto, sizes: dict[str, int]) -> None:
    """TensorRT updates caches and logs in place only where their length is static."""
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]


def parse(stage: LoweredStage, library: Library, messages: list[Message]) -> ParsedStage:
    """Parse a graph, strongly typed.

    Args:
        stage: the graph.
        library: TensorRT.
        messages: what it says meanwhile.

    Raises:
        BuildError: it makes no builder, which for `tensorrt` takes a GPU, or does not parse the graph.
    """
    trt = library.module
    try:
        builder = trt.Builder(library.logger)
    except TypeError as error:  # what pybind11 makes of a null pointer
        raise BuildError(
            f"{library} makes no builder: {first_error(messages)}; build on the machine whose GPU is to run the engine"
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse(stage.model, str(stage.graph)):
        errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise BuildError(f'{library} does not parse stage "{stage.spec.name}": {errors}; report it with the graph')
    parsed = ParsedStage(builder, parser, network)
    _let_attention_decompose(trt, parsed)
    return parsed


def _let_attention_decompose(trt: Any, parsed: ParsedStage) -> None:
    """There is no fused kernel for fp32 and several rows, and ONNX has no attribute that allows others.

    The lengths of keys and values, which the parser drops too, are left unset: the mask says what they would, and with them
    TensorRT-RTX 1.7 builds the same kernels, which read the whole cache (docs/adr/0009).
    """
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)  # TensorRT 10 has no attention
    for layer in parsed.layers() if kind is not None else ():
        if layer.type == kind:
            layer.__class__ = trt.IAttentionInputLayer  # get_layer knows no better than ILayer
            layer.attention.decomposable = True


def first_error(messages: list[Message]) -> str:
    """The first error that the library named."""
    return next((message.text for message in messages if message.is_error), "it does not say why")
