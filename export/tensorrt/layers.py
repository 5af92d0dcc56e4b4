"""How an engine runs a stage's matrix products: read from the list of its layers.

TensorRT's engine inspector needs a GPU. But a builder whose profiling is detailed logs the list that the inspector would show:
every kernel with the types of what it reads and writes, and the names of the ONNX nodes it has a part in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ...errors import BuildError, BundleError
from ...json_files import decode
from ...precision import ProductPrecision
from ..precision.write_fp16 import HALVED

_BITS = {"Int4": 4, "Int8": 8, "Half": 16, "Float": 32}
_PRECISIONS = {
    ("Float", "Float"): "fp32",
    ("Half", "Half"): "fp16",
    ("Int8", "Int8"): "int8",
    ("Float", "Int8"): "w8",
    ("Float", "Int4"): "w4",
}


class LayersUnreadable(BuildError):
    """The list of an engine's layers is missing, or says something that is not understood."""


class Tensor(msgspec.Struct, frozen=True):
    """What a kernel reads or writes; -1 in its shape is a size known at run time only."""

    name: str
    shape: tuple[int, ...]
    type: str


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list.

    Attributes:
        name: unique in the engine.
        type: what kind of layer it is, as `"gemm"`.
        tactic: which implementation; TensorRT-RTX chooses that of some on the machine that runs them.
        profile: the optimisation profile it belongs to.
        inputs, constants, outputs: what it reads and writes.
        nodes: the ONNX nodes it has a part in.
    """

    name: str
    type: str = ""
    tactic: str = ""
    profile: int = 0
    inputs: tuple[Tensor, ...] = ()
    constants: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def narrowest(self) -> str:
        """The narrowest type of activations or weights that it reads, single numbers aside; `"other"` if it reads neither."""
        return _narrowest(tensor for tensor in (*self.inputs, *self.constants) if tensor.shape != (1,))

    @property
    def label(self) -> str:
        """For people: what it does, as `"gemv_mha_v1"` or `"ReplCastMulCastFc"`, or the kind of layer, as `"gemm"`."""
        named = self.tactic or (self.name if self.name.startswith("_") else "")
        return self.type if not named or _CHOSEN_LATER in named else _NUMBERS.sub("", named).removeprefix("__myl").strip("_")

    @property
    def tactic_label(self) -> str:
        """For people: the first digits of the implementation's hash, or its name if it has none."""
        if _CHOSEN_LATER in self.tactic or not self.tactic:
            return "chosen later" if self.type in ("gemm", "runtime_fusion") else "-"
        found = re.search(r"_0x([0-9a-f]{8})", self.tactic)
        return found[1] if found else self.tactic


class EngineLayers(msgspec.Struct, frozen=True, kw_only=True):
    """An engine from inside: how many layers its network has of each type, and its kernels in the order they run."""

    network: dict[str, int]
    kernels: tuple[Kernel, ...]

    def of_profile(self, profile: int) -> tuple[Kernel, ...]:
        """The kernels of an optimisation profile."""
        return tuple(kernel for kernel in self.kernels if kernel.profile == profile)


def layers_path(engine: Path) -> Path:
    """Where the list of an engine's layers is."""
    return engine.with_suffix(".layers.json")


def read_layers(engine: Path) -> EngineLayers:
    """The list of an engine's layers; raises BundleError if there is none."""
    path = layers_path(engine)
    try:
        return decode(path.read_bytes(), EngineLayers)
    except (OSError, msgspec.MsgspecError) as error:
        raise BundleError(f"{path} is no list of layers: {error}; build the engines again") from error


class ExecutedProduct(NamedTuple):
    """How a matrix product is run.

    Attributes:
        kernel: the one that multiplies, for people.
        x: type of the activations it multiplies.
        weight: type the weight is stored in.
        widened_by: kernel that widens the weight to memory, every time; empty: it is read as it is stored.
    """

    kernel: str
    x: str
    weight: str
    widened_by: str = ""

    @property
    def precision(self) -> str:
        """In foveal's terms, as `"int8"`; types that none of them stands for are named as they are."""
        return _PRECISIONS.get((self.x, self.weight), f"{self.x} x {self.weight}")

    @property
    def is_fused(self) -> bool:
        """Whether the weight is read as it is stored."""
        return not self.widened_by

    def __str__(self) -> str:
        return self.kernel if self.is_fused else f"{self.widened_by} + {self.kernel}"


_CHOSEN_LATER = "CASK_STUB"  # TensorRT-RTX: a product whose implementation is chosen on the machine that runs it
_NUMBERS = re.compile(r"(_0x[0-9a-f]{8,}\w*|_myl\d+_\d+)$")
_KERNEL = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<type>.*?), "
    r"Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: (?P<tactic>.*?), StreamId: \d+(, EventId: \d+)?, Metadata: ?(?P<metadata>.*)"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[^\]]*)\], .*?Datatype: (?P<type>\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]|]*?)(?: \|[^\]]*)?\]")  # "node", or "node of a function | its call (function)"
_SIZES = "LayerType: ShapeHostToDevice,"
"""Brings sizes of a call to where kernels compute with them; it is no kernel, and is listed in other words."""
_MOST_PADDING = 31
_PROFILE = re.compile(r"\[profile (\d+)\]")
_REGION = re.compile(r"_myl(\d+)(?:_\d+)?$")


def layers_listed(log: Iterable[str]) -> tuple[Kernel, ...]:
    """The kernels of an engine, in the order they run, out of all that was logged while it was built.

    Raises:
        LayersUnreadable: the log has no list of them, or words it in a way unknown here.
    """
    lists = [text for text in log if text.startswith("Layers:\n")]
    if len(lists) != 1:
        raise LayersUnreadable(
            f"the log has {len(lists)} lists of layers, expected 1; "
            "build with a verbose logger and detailed profiling, or teach export/tensorrt/layers.py the log of this version"
        )
    lines = [line for line in lists[0].partition("\n\n")[0].splitlines()[1:] if _SIZES not in line]
    profiles = _profiles_of_regions(lines)
    return tuple(kernel for line in lines if (kernel := _kernel(line, profiles)).outputs)  # others make streams wait


def _profiles_of_regions(lines: Iterable[str]) -> dict[str, int]:
    """Kernels come in regions, each of one profile; all but the first profile are named in some tensors of a region."""
    profiles: dict[str, int] = {}
    for line in lines:
        region = _region(line.partition(", LayerType: ")[0])
        named = [int(number) for number in _PROFILE.findall(line)]
        profiles[region] = max([profiles.get(region, 0), *named])
    return profiles


def _region(name: str) -> str:
    found = _REGION.search(name)
    return found[1] if found else name


def _kernel(line: str, profiles: dict[str, int]) -> Kernel:
    found = _KERNEL.fullmatch(line)
    if found is None:
        raise LayersUnreadable(
            f'the log lists a layer as "{line[:200]}", expected "Name: ..., LayerType: ..., Inputs: [...], ..."; '
            "teach export/tensorrt/layers.py the log of this version"
        )
    return Kernel(
        name=found["name"],
        type=found["type"],
        tactic=found["tactic"],
        profile=profiles[_region(f"Name: {found['name']}")],
        inputs=_tensors(found["inputs"]),
        constants=_tensors(found["constants"]),
        outputs=_tensors(found["outputs"]),
        nodes=tuple(dict.fromkeys(_NODE.findall(found["metadata"]))),
    )


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(found["name"], tuple(int(size) for size in found["shape"].split(",") if size), found["type"])
        for found in _TENSOR.finditer(text)
    )


def executed_products(kernels: Sequence[Kernel], products: Sequence[ProductPrecision]) -> tuple[ExecutedProduct, ...]:
    """How the kernels of one profile run each of a stage's products.

    Raises:
        LayersUnreadable: no kernel multiplies by a product's weight, or several do.
    """
    columns = {_node(product): product.columns for product in products}
    executed = []
    for product in products:
        having = [kernel for kernel in kernels if _node(product) in kernel.nodes]
        found = [(kernel, weight) for kernel in having if (weight := _weight(kernel, product, columns)) is not None]
        if len(found) != 1:
            shape, names = [product.rows, product.columns], ", ".join(kernel.name for kernel in having) or "none"
            raise LayersUnreadable(
                f"{len(found)} kernels multiply by the weight {shape} of {_node(product)}, expected 1 "
                f"of those with a part in it: {names}; teach export/tensorrt/layers.py what became of it"
            )
        executed.append(_executed(kernels, *found[0]))
    return tuple(executed)


def _node(product: ProductPrecision) -> str:
    return f"{product.product}/MatMul"


def _weight(kernel: Kernel, product: ProductPrecision, columns: dict[str, int]) -> Tensor | None:
    """What a kernel reads that has the shape of a product's weight. Kernels that only scale the product have no such thing.

    Products of the same input may be one kernel's: then their weights stand side by side.
    """
    together = sum(columns.get(node, 0) for node in kernel.nodes)
    read = (*kernel.constants, *kernel.inputs)
    for most in (0, _MOST_PADDING):  # as it is before anything like it
        for size in (product.columns, together):
            for tensor in read:
                if _is_matrix(tensor.shape, product.rows, size, most):
                    return tensor
    return None


def _is_matrix(shape: tuple[int, ...], rows: int, columns: int, most_padding: int) -> bool:
    """Weights may be a batch of one, and be padded to what a kernel takes: 41 columns to 42, in fp16 to 48."""
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    return len(shape) == 2 and 0 <= shape[0] - rows <= most_padding and 0 <= shape[1] - columns <= most_padding


def _executed(kernels: Sequence[Kernel], kernel: Kernel, weight: Tensor) -> ExecutedProduct:
    x = _narrowest(tensor for tensor in kernel.inputs if tensor != weight)  # a residual that it adds may be wider
    if weight.type == "Half" and any(node.endswith(HALVED) for node in kernel.nodes):
        x = "Half"  # it reads fp32 and casts that itself, as TensorRT-RTX 1.7 does with a row that it takes from a log
    if weight in kernel.constants:
        return ExecutedProduct(kernel.label, x, weight.type)
    widening = [other for other in kernels if weight.name in {tensor.name for tensor in other.outputs}]
    stored = _narrowest(tensor for other in widening for tensor in other.constants)
    return ExecutedProduct(kernel.label, x, stored, " + ".join(other.label for other in widening) or "unknown")


def _narrowest(tensors: Iterable[Tensor]) -> str:
    return min((tensor.type for tensor in tensors if tensor.type in _BITS), key=_BITS.__getitem__, default="other")
