"""Are the weights of a graph those of the model? Compared number by number, where runs see only what they use.

A graph holds weights as they are, or with their dimensions permuted. What it holds otherwise (a mask or a scale worked into a
weight when it was exported) is compared with a second export. Constants that come from no weight are left to runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...calibration.graph_files import load_graph
from ...contract import StageSpec
from ...errors import FovealError
from ...files import scratch_directory
from ...models.architecture import Stage
from ...runtime.rows import Array
from ..cpu.lower import lower as lower_for_cpu
from ..graphs.dialect import Dialect
from ..graphs.export_stage import export_stage

_DIMENSIONS = 4
"""The most that are permuted: a matrix has two, the kernel of a convolution three or four."""
_EXPORTED = "module."
"""What stands in front of a weight's name in a graph."""


class Difference(NamedTuple):
    """The first number of a graph's tensor that is not the weight's."""

    tensor: str
    place: tuple[int, ...]
    got: float
    expected: float
    largest: float

    def __str__(self) -> str:
        return f"tensor {self.tensor}{list(self.place)}: got {self.got:.6g}, expected {self.expected:.6g}"


class Weighed(NamedTuple):
    """What was compared of a graph.

    Attributes:
        numbers: in the graph's weights; sizes, indices and single scales of its own are none.
        compared: of these, those that were compared with a weight of the model.
        unknown: tensors for which the model has no weight, so that only runs tell.
        wrong: the first tensor that is a weight in which some numbers are others.
    """

    numbers: int
    compared: int
    unknown: tuple[str, ...]
    wrong: Difference | None


def weigh_graph(stage: Stage, graph: Path, dialect: Dialect) -> Weighed:
    """Compare the portable graph of a stage with the stage's parameters and buffers."""
    module = stage.module
    tensors = (*module.named_parameters(), *module.named_buffers())
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in tensors}
    held = _initializers(graph)
    weighed = {name: tensor for name, tensor in held.items() if _is_weight(name, tensor, weights)}
    if doubtful := [name for name in _unmatched(weighed, weights) if _named(name, held[name], weights) is None]:
        again = _exported_again(stage, dialect)
        weights |= {name: again[name] for name in doubtful if name in again and again[name].shape == held[name].shape}
    return _weigh(held, weights)


def weigh_engine(spec: StageSpec, graph: Path, engine: Path, target: str) -> Weighed:
    """Compare an engine that is a graph with the portable graph: lowered once more for `cpu`, as it is for `cuda`."""
    weights = _floats(graph)
    if target == "cpu":
        with scratch_directory() as directory:
            again = directory / engine.name
            lower_for_cpu(graph, again, spec)
            weights |= _initializers(again)
    return _weigh(_initializers(engine), weights)


def _weigh(held: Mapping[str, Array], weights: Mapping[str, Array]) -> Weighed:
    held = {name: tensor for name, tensor in held.items() if _is_weight(name, tensor, weights)}
    unmatched, unknown = _unmatched(held, weights), []
    wrong: Difference | None = None
    for name in unmatched:
        nearest = _nearest(name, held[name], weights)
        if nearest is None:
            unknown.append(name)
        elif wrong is None:
            wrong = _difference(name, held[name], nearest)
    numbers = sum(tensor.size for tensor in held.values())
    return Weighed(numbers, numbers - sum(held[name].size for name in unknown), tuple(unknown), wrong)


def _initializers(graph: Path) -> dict[str, Array]:
    """The tensors of a graph file, copied: the file may go away."""
    values = load_graph(graph).graph.initializers.items()
    return {name: value.const_value.numpy().copy() for name, value in values if value.const_value is not None}


def _floats(graph: Path) -> dict[str, Array]:
    return {name: tensor for name, tensor in _initializers(graph).items() if tensor.dtype.kind == "f"}


def _named(name: str, tensor: Array, weights: Mapping[str, Array]) -> Array | None:
    """The weight of a tensor's name and shape."""
    same = weights.get(name, weights.get(name.removeprefix(_EXPORTED)))
    return same if same is not None and same.shape == tensor.shape else None


def _is_weight(name: str, tensor: Array, weights: Mapping[str, Array]) -> bool:
    """Single numbers and integers that have no weight's name are the graph's own: sizes, indices, scales."""
    return (tensor.size > 1 and tensor.dtype.kind == "f") or _named(name, tensor, weights) is not None


def _exported_again(stage: Stage, dialect: Dialect) -> dict[str, Array]:
    with scratch_directory() as directory:
        path = directory / "again.onnx"
        try:
            export_stage(stage, path, dialect)
        except FovealError:  # what it was converted with could; what is unmatched stays unknown
            return {}
        return _initializers(path)


def _unmatched(held: Mapping[str, Array], weights: Mapping[str, Array]) -> list[str]:
    """Tensors that equal no weight: of that name, if there is one, else any."""
    found = []
    for name, tensor in held.items():
        if (same := _named(name, tensor, weights)) is not None:
            is_equal = _equal(tensor, same)
        else:
            is_equal = any(_equal(tensor, layout) for weight in weights.values() for layout in _layouts(weight, tensor.shape))
        if not is_equal:
            found.append(name)
    return found


def _equal(a: Array, b: Array) -> bool:
    """Bit by bit but for the signs of zeros; most that differ do so in their first rows."""
    first = (0,) * max(a.ndim - 1, 0)
    return bool(np.array_equal(a[first], b[first], equal_nan=True) and np.array_equal(a, b, equal_nan=True))


def _layouts(weight: Array, shape: Sequence[int]) -> Iterator[Array]:
    """A weight as a graph may hold it in a tensor of that shape: split or joined, or its dimensions permuted."""
    if weight.size != int(np.prod(shape)):
        return
    yield weight.reshape(shape)
    squeezed, wanted = weight.squeeze(), tuple(size for size in shape if size != 1)
    if 2 <= squeezed.ndim <= _DIMENSIONS:
        for order in list(permutations(range(squeezed.ndim)))[1:]:
            permuted = squeezed.transpose(order)
            if permuted.shape == wanted:
                yield permuted.reshape(shape)


def _nearest(name: str, tensor: Array, weights: Mapping[str, Array]) -> Array | None:
    """The weight that a tensor should be: that of its name, else the one most of whose numbers it has."""
    if (same := _named(name, tensor, weights)) is not None:
        return same
    layouts = [layout for weight in weights.values() if weight.std() > 0 for layout in _layouts(weight, tensor.shape)]
    shares = [float((layout == tensor).mean()) for layout in layouts]
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    return layouts[best] if best is not None and shares[best] > 0.5 else None


def _difference(name: str, got: Array, expected: Array) -> Difference:
    off = np.abs(got.astype(np.float64) - expected)
    place = tuple(int(index) for index in np.argwhere(~(off == 0))[0])
    return Difference(name, place, float(got[place]), float(expected[place]), float(np.nan_to_num(off, nan=np.inf).max()))
