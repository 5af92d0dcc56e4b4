"""A graph on its way to steps: what its values are, and what the nodes that make steps of them share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir

from ....contract import StageSpec
from ....contract.program import Angles, Copy, Product, ProgramCache, ProgramInput, Weight
from .draft import Draft
from .packing import DataFile
from .tensors import Array, Dimension, Size, Tensor, Unsupported
from .values import B, FirstRow, Ids, L, Places, RowIndex, Sizes, Wanted

_MOST_PIECES = 64
"""Of rows that are copied together."""


class Lowering:
    """Goes through a stage's graph.

    Args:
        stage: what it declares.
        caches: as its engine keeps them.
        data: where weights go.
    """

    def __init__(self, stage: StageSpec, caches: Sequence[ProgramCache], data: DataFile) -> None:
        self.stage, self.caches, self.data, self.draft = stage, caches, data, Draft()
        self.inputs: list[ProgramInput] = []
        self.values: dict[ir.Value, Any] = {}
        self._angles: dict[int, int] = {}

    def copied(self, result: int) -> int:
        """A result of its own."""
        new = self.draft.like(result)
        self.draft.steps.append(Copy(x=result, out=new, width=self.draft.buffers[result].width))
        return new

    def read_inputs(self, model: ir.Model) -> None:
        """Give the graph's inputs the values that they are; raises Unsupported."""
        by_name = {value.name: value for value in model.graph.inputs}
        for name, given in zip(self.stage.names(), self.stage.inputs, strict=True):
            if given.reads == "span":
                raise Unsupported(f"spans of any length ({name})")
            value, factor = by_name.pop(name), Size("L", given.count)
            if given.kind == "tokens":
                self.values[value] = Ids(len(self.inputs), (B, factor))
                self.inputs.append(ProgramInput(name=name, count=given.count))
            else:
                result = self.draft.new(given.count * given.width)
                self.draft.inputs.add(result)
                self.values[value] = Tensor.of(result, (factor, B, given.width))
                self.inputs.append(ProgramInput(name=name, count=given.count, buffer=result))
            if given.reads == "newest":
                if given.count != 1:
                    raise Unsupported(f"several of the newest rows ({name})")
                self.values[by_name.pop(f"{name}.index")] = Places(name)
        known = {"rows": RowIndex((B, L)), "logit_rows": Wanted(), "position": FirstRow()}
        for given_name, value in by_name.items():
            self.values[value] = known.get(given_name or "")
            if given_name and given_name.startswith("past_key_values."):
                self.values[value] = given_name.removeprefix("past_key_values.")

    # What nodes read.

    def value(self, node: ir.Node, index: int) -> Any:
        """An input, followed; a constant is an array."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return None
        if value in self.values:
            return self.values[value]
        if value.const_value is None:
            raise Unsupported(f"{value.name} is not known")
        return value.const_value.numpy()

    def tensor(self, node: ir.Node, index: int) -> Tensor:
        """Rows of firings."""
        value = self.value(node, index)
        if not isinstance(value, Tensor):
            raise Unsupported(f"its input {index} is no rows")
        return value

    def constant(self, node: ir.Node, index: int) -> Array:
        """An array of the graph's own."""
        value = self.value(node, index)
        if isinstance(value, Sizes) and all(isinstance(one, int) for one in value.values):
            return np.array(value.values)
        if not isinstance(value, np.ndarray):
            raise Unsupported(f"its input {index} is not constant")
        return value

    def sizes(self, node: ir.Node, index: int) -> tuple[Dimension, ...]:
        """A shape, or part of one."""
        value = self.value(node, index)
        if isinstance(value, Sizes):
            return value.values
        return tuple(int(one) for one in self.constant(node, index).reshape(-1))

    # What they make.

    def rows(self, value: Any) -> int:
        """The result that holds rows just as they are; parts of another are copied together."""
        if not isinstance(value, Tensor):
            raise Unsupported("what should be rows is none")
        columns = value.columns
        if len(columns) == self.draft.buffers[value.buffer].width and (np.diff(columns) == 1).all():
            return value.buffer
        out = self.draft.like(value.buffer, len(columns))
        starts = [0, *(np.flatnonzero(np.diff(columns) != 1) + 1).tolist(), len(columns)]
        if len(starts) > _MOST_PIECES:
            raise Unsupported("rows whose columns are in another order")
        for first, last in pairwise(starts):
            self.draft.steps.append(Copy(x=value.buffer, out=out, width=last - first, at=int(columns[first]), to=first))
        return out

    def made(self, step: Any, dims: Sequence[Dimension]) -> Tensor:
        """Append a step; its result."""
        self.draft.steps.append(step)
        return Tensor.of(step.out, dims)

    def product(self, x: Tensor, weight: Weight, x_scale: float = 0.0, bias: Array | None = None) -> Tensor:
        """`x @ weight + bias`, x `[..., K]`."""
        if x.dims[-1] != weight.rows:
            raise Unsupported(f"a product of rows of {x.dims[-1]} with {weight.rows}")
        given = self.rows(x)
        count = self.draft.buffers[given].width // weight.rows
        out = self.draft.like(given, count * weight.columns)
        place = None if bias is None else self.data.bias(bias)
        step = Product(x=given, weight=weight, x_scale=x_scale, bias=place, out=out, count=count)
        return self.made(step, (*x.dims[:-1], weight.columns))

    def angles(self, frequencies: int, width: int) -> int:
        """The result that holds the angles of frequencies at that place: made once, first of all."""
        if frequencies not in self._angles:
            self._angles[frequencies] = self.draft.new(width)
            step = Angles(out=self._angles[frequencies], width=width, frequencies=frequencies)
            self.draft.steps.insert(0, step)
        return self._angles[frequencies]
