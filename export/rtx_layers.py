"""What TensorRT-RTX makes of a stage graph: build it, and read from the compiler's log which kernels run its products.

Neither needs a GPU. TensorRT's engine inspector does, but a builder whose profiling is detailed logs the list that the inspector
would show: every kernel with the types of what it reads and writes, and the names of the ONNX nodes in it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import onnx

from ..errors import BackendUnavailable, BuildError
from ..precision import ProductPrecision

WIDTHS = {"Int4": 4, "Int8": 8, "Half": 16, "Float": 32}
"""Bits of the types that activations and weights come in, by TensorRT's names."""
PRECISION_OF = {
    ("Float", "Float"): "fp32",
    ("Half", "Half"): "fp16",
    ("Int8", "Int8"): "int8",
    ("Float", "Int8"): "w8",
    ("Float", "Int4"): "w4",
}
"""The precision of a product whose activations and stored weights have these types."""


class Sizes(NamedTuple):
    """What an engine is built for: minimum, optimum and maximum of batch and of rows per call, and the caches' capacity."""

    batch: tuple[int, int, int] = (1, 2, 4)
    rows: tuple[int, int, int] = (1, 8, 32)
    capacity: int = 64


class Tensor(NamedTuple):
    """A tensor that a kernel reads or writes; -1 in its shape is a size known at run time only."""

    name: str
    shape: tuple[int, ...]
    type: str


class Kernel(NamedTuple):
    """One entry of the compiler's list; `nodes` are the ONNX nodes it computes or has a part in."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: frozenset[str]

    @property
    def narrowest(self) -> str:
        """The narrowest type of activations or weights that it reads, scalars aside; `"other"` if it reads only integers."""
        types = {t.type for t in (*self.inputs, *self.constants) if t.type in WIDTHS and t.shape != (1,)}
        return min(types, key=WIDTHS.__getitem__, default="other")


class ExecutedProduct(NamedTuple):
    """How a matrix product is run.

    Attributes:
        kernel: the one that multiplies.
        x: type of the activations it reads.
        weight: type that the weight is stored in.
        is_fused: whether the kernel reads the weight as it is stored; else another widens it, whole, to memory first.
    """

    kernel: str
    x: str
    weight: str
    is_fused: bool

    @property
    def precision(self) -> str:
        """In foveal's terms, as `"int8"`; a pair of types that none of them means is named as such."""
        return PRECISION_OF.get((self.x, self.weight), f"{self.x} x {self.weight}")


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
    """Parse a stage graph, strongly typed, and build its engine for every RTX GPU since Ampere.

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
        errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise BuildError(f"TensorRT-RTX {trt.__version__} can't parse {graph}: {errors}; report it with the graph")
    _let_attention_decompose(trt, network)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.add_optimization_profile(_profile(builder, model, sizes))
    began = perf_counter()
    engine = builder.build_serialized_network(network, config)
    seconds = perf_counter() - began
    if engine is None:
        errors = "; ".join(log.complaints())
        raise BuildError(f"TensorRT-RTX {trt.__version__} can't build {graph}: {errors}; report it with the graph")
    return BuiltStage(
        engine=bytes(engine),
        seconds=seconds,
        inputs=tuple(network.get_input(index).name for index in range(network.num_inputs)),
        layers=tuple((layer.name, layer.type.name) for layer in _layers(network)),
        kernels=read_kernels(log.texts()),
        complaints=tuple(log.complaints()),
    )


@functools.cache
def _recorder() -> Any:
    """The logger of this process: TensorRT keeps the first it is given."""
    trt = import_tensorrt_rtx()

    class Recorder(trt.ILogger):  # type: ignore[misc]
        """Keeps what the compiler says."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # super() does not reach the binding's constructor
            self.messages: list[tuple[Any, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self.messages.append((severity, text))

        def texts(self) -> list[str]:
            return [text for _, text in self.messages]

        def complaints(self) -> list[str]:
            return [text for severity, text in self.messages if severity <= trt.ILogger.Severity.WARNING]

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


_KERNEL = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>.*?), "
    r"Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: .*?, StreamId: \d+, Metadata: ?(?P<metadata>.*)"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[^\]]*)\], .*?Datatype: (?P<type>\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]|]*?)(?: \|[^\]]*)?\]")  # "node", or "node of a function | its call (function)"


def read_kernels(log: Sequence[str]) -> tuple[Kernel, ...]:
    """The compiler's list of kernels, out of all that it logged during one build.

    Raises:
        BuildError: there is no such list, or it is worded in another way than this module knows.
    """
    lists = [text for text in log if text.startswith("Layers:\n")]
    if len(lists) != 1:
        raise BuildError(
            f"the compiler's log has {len(lists)} lists of kernels, expected 1; "
            "build with a verbose logger and detailed profiling, or teach export/rtx_layers.py this version's log"
        )
    lines = [line for line in lists[0].split("\n\n")[0].splitlines()[1:] if line]
    return tuple(_kernel(line) for line in lines)


def _kernel(line: str) -> Kernel:
    found = _KERNEL.fullmatch(line.strip())
    if found is None:
        raise BuildError(
            f'the compiler\'s log describes a kernel as "{line[:200]}", expected "Name: ..., LayerType: ..., Inputs: [...], ..."; '
            "teach export/rtx_layers.py this version's log"
        )
    inputs, constants, outputs = (_tensors(found[group]) for group in ("inputs", "constants", "outputs"))
    return Kernel(found["name"], found["kind"], inputs, constants, outputs, frozenset(_NODE.findall(found["metadata"])))


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(found["name"], tuple(int(size) for size in found["shape"].split(",") if size), found["type"])
        for found in _TENSOR.finditer(text)
    )


def find_product(kernels: Sequence[Kernel], product: ProductPrecision) -> ExecutedProduct:
    """How the engine runs one of the stage's products.

    The kernel is the one that has the product's node in it and reads a weight of its shape: what scales the result, in an epilogue
    elsewhere, has the node in it too.

    Raises:
        BuildError: there is no such kernel, or several.
    """
    node, shape = f"{product.product}/MatMul", (product.rows, product.columns)
    candidates = [kernel for kernel in kernels if node in kernel.nodes]
    found = [(kernel, weight) for kernel in candidates if (weight := _of_shape(kernel, shape)) is not None]
    if len(found) != 1:
        raise BuildError(
            f"{len(found)} kernels read a weight {list(shape)} for {node}, expected 1; those with the node in them: "
            f"{', '.join(kernel.name for kernel in candidates) or 'none'}; teach export/rtx_layers.py what became of it"
        )
    ((kernel, weight),) = found
    x = next(tensor for tensor in kernel.inputs if tensor != weight and tensor.type in WIDTHS)
    return ExecutedProduct(kernel.name, x.type, _stored(kernels, weight, shape).type, weight in kernel.constants)


def _of_shape(kernel: Kernel, shape: tuple[int, int]) -> Tensor | None:
    return next((tensor for tensor in (*kernel.constants, *kernel.inputs) if tensor.shape == shape), None)


def _stored(kernels: Sequence[Kernel], weight: Tensor, shape: tuple[int, int]) -> Tensor:
    """The weight as the engine stores it: what the kernel that makes it out of constants reads, or the weight itself."""
    for kernel in kernels:
        if weight in kernel.outputs and not kernel.inputs:
            return _of_shape(kernel, shape) or weight
    return weight
