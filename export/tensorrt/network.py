"""A lowered stage graph becomes TensorRT's network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...errors import BuildError
from ...runtime.engines.tensorrt_library import Library, Message
from ..graphs.gpu import LoweredStage

NETWORK_FORMAT = 1
"""Raise it when `parse` changes networks otherwise: engines that were built before are then built again."""


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
