"""Build a stage graph with TensorRT-RTX, for every RTX GPU since Ampere. Needs no GPU, and makes no bundle."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import onnx

from ..errors import BackendUnavailable, BuildError
from .rtx_layers import Kernel, read_kernels


class Sizes(NamedTuple):
    """What an engine is built for: minimum, optimum and maximum of batch and of rows per call, and the caches' capacity."""

    batch: tuple[int, int, int] = (1, 2, 4)
    rows: tuple[int, int, int] = (1, 8, 32)
    capacity: int = 64


class BuiltStage(NamedTuple):
    """What the compiler made of a stage graph.

    Attributes:
        engine: the serialised engine.
        seconds: that building took, parsing aside.
        inputs: names of the network's inputs.
        layers: name and type of every layer of the network as it was parsed.
        kernels: of the engine, in the order they run.
        complaints: the compiler's warnings and errors.
    """

    engine: bytes
    seconds: float
    inputs: tuple[str, ...]
    layers: tuple[tuple[str, str], ...]
    kernels: tuple[Kernel, ...]
    complaints: tuple[str, ...]


def import_tensorrt_rtx() -> Any:
    """The tensorrt_rtx module; raises BackendUnavailable with the line that installs it."""
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise BackendUnavailable(
            f"tensorrt_rtx can't be imported ({error}); building its engines needs it: pip install 'foveal[rtx]'"
        ) from error
    return tensorrt_rtx


def build_stage(graph: Path, sizes: Sizes | None = None) -> BuiltStage:
    """Parse a stage graph, strongly typed, and build its engine.

    Raises:
        BackendUnavailable: tensorrt_rtx is not installed.
        BuildError: the graph is not parsed or built, with the compiler's words; or its list of kernels can't be read.
    """
    trt, log, sizes = import_tensorrt_rtx(), _recorder(), sizes or Sizes()
    log.messages.clear()
    model = onnx.load(graph)
    _fix_capacity(model, sizes.capacity)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BuildError(
            f"TensorRT-RTX {trt.__version__} does not parse {graph}: {'; '.join(errors)}; report it with the graph"
        )
    _let_attention_decompose(trt, network)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the log says nothing of types and nodes
    config.add_optimization_profile(_profile(builder, model, sizes))
    began = perf_counter()
    engine = builder.build_serialized_network(network, config)
    seconds = perf_counter() - began
    complaints = [text for severity, text in log.messages if severity <= trt.ILogger.Severity.WARNING]
    if engine is None:
        raise BuildError(
            f"TensorRT-RTX {trt.__version__} does not build {graph}: {'; '.join(complaints)}; report it with the graph"
        )
    return BuiltStage(
        engine=bytes(engine),
        seconds=seconds,
        inputs=tuple(network.get_input(index).name for index in range(network.num_inputs)),
        layers=tuple((layer.name, layer.type.name) for layer in _layers(network)),
        kernels=read_kernels(text for _, text in log.messages),
        complaints=tuple(complaints),
    )


@functools.cache
def _recorder() -> Any:
    """The logger of this process: TensorRT keeps the first it is given."""
    trt = import_tensorrt_rtx()

    class Recorder(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps what the compiler says, with how severe it is."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the binding's own; it warns of super()
            self.messages: list[tuple[Any, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self.messages.append((severity, text))

    return Recorder()


def _fix_capacity(model: onnx.ModelProto, capacity: int) -> None:
    """TensorRT updates caches in place only where their length is static."""
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == "S":
                dimension.dim_value = capacity


def _let_attention_decompose(trt: Any, network: Any) -> None:
    """There is no fused kernel for fp32 and several rows, and ONNX has no attribute that allows others."""
    for layer in _layers(network):
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _profile(builder: Any, model: onnx.ModelProto, sizes: Sizes) -> Any:
    profile = builder.create_optimization_profile()
    for value in model.graph.input:
        profile.set_shape(value.name, *(_shape_at(value, sizes, step) for step in range(3)))
    return profile


def _shape_at(value: onnx.ValueInfoProto, sizes: Sizes, step: int) -> list[int]:
    """An input's shape at the minimum, optimum or maximum; its letters are those of `contract.py`."""
    letters, shape = {"B": sizes.batch[step], "L": sizes.rows[step], "N": sizes.rows[step]}, []
    for dimension in value.type.tensor_type.shape.dim:
        factor, _, letter = dimension.dim_param.rpartition("*")
        shape.append(dimension.dim_value or int(factor or 1) * letters[letter])
    return shape
