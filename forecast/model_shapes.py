"""Shapes of hierarchies that nobody has built: the model's own modules, without memory for their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..contract import layer_caches
from ..errors import ConfigError
from ..hierarchy import Hierarchy
from ..models.architecture import Architecture, Stage
from ..models.architectures import build_model
from ..models.sizes import Sizes
from ..precision import check_precision
from .product_bytes import product_bytes
from .shapes import Shape, StageShape, cache_item_bytes

LONGEST_STRIDE = 2**16


def shape_of_hierarchy(hierarchy: str, sizes: Sizes, precision: str = "fp32", on_gpu: bool = False) -> Shape:
    """The shape of a model of foveal's own.

    Args:
        hierarchy: `"2@1 8@4 2@1"`; which architecture has such levels follows from their order.
        sizes: of all layers.
        precision: of all products; keys and values are int8 on the CPU where products are integers.
        on_gpu: whether as engines for GPUs hold it.

    Raises:
        ConfigError: an unknown precision, a malformed hierarchy, or sizes that contradict each other.
    """
    check_precision(precision)
    _require_strides(hierarchy)
    config = sizes.config(hierarchy)
    with torch.device("meta"), _Unfilled():
        model = build_model(config)
    return shape_of_model(model, precision, on_gpu, widest=max(config.ff_dim, 3 * config.heads * config.head_dim))


def _require_strides(hierarchy: str) -> None:
    """A forecast looks at every step of a period of firing."""
    longest = max((level.tokens_per_vector for level in Hierarchy.parse(hierarchy).levels), default=1)
    if longest > LONGEST_STRIDE:
        raise ConfigError(f'"{hierarchy}" has the stride {longest:,.0f}, expected at most {LONGEST_STRIDE:,} in a forecast')


class _Unfilled(TorchFunctionMode):
    """Leaves weights as they are that would be filled in place: there are none, and filling none takes torch seconds."""

    def __torch_function__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        name: str = getattr(function, "__name__", "")
        is_filled = name.endswith("_") and not name.endswith("__") and given and isinstance(given[0], Tensor)
        return given[0] if is_filled else function(*given, **(named or {}))


def shape_of_model(model: Architecture, precision: str, on_gpu: bool, widest: int) -> Shape:
    """The shape of any model that can be cut into stages."""
    described = model.describe()
    levels = Hierarchy.parse(described.hierarchy)
    return Shape(
        name=str(levels),
        hierarchy=str(levels),
        precision=precision,
        dim=described.dim,
        widest=widest,
        context=described.context,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layer_equivalents=levels.layer_equivalents,
        on_gpu=on_gpu,
        stages=tuple(_stage(stage, precision, on_gpu) for stage in model.stages()),
    )


def _stage(stage: Stage, precision: str, on_gpu: bool) -> StageShape:
    tables, matrices, rest = _weights(stage.module, is_shared=precision == "fp32")
    item = cache_item_bytes(precision, on_gpu)
    return StageShape(
        spec=stage.spec,
        products=len(matrices),
        multiplied=sum(rows * columns for rows, columns in matrices),
        weight_bytes=sum(product_bytes(rows, columns, precision, on_gpu) for rows, columns in matrices) + 4.0 * rest,
        table_bytes=4.0 * tables,
        row_bytes={cache.name: cache.heads * cache.width * item for cache in stage.spec.caches},
    )


def _weights(module: nn.Module, is_shared: bool) -> tuple[int, list[tuple[int, int]], int]:
    """Numbers in tables, matrices `[rows, columns]` as rows are multiplied by them, and numbers in all else.

    `is_shared`: a table that rows are multiplied by, too, is there once, as a matrix; in other precisions they are two.
    """
    tables, matrices, rest = 0, [], 0
    multiplied = {part.weight for part in module.modules() if isinstance(part, nn.Linear)}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if isinstance(part, nn.Embedding):
                tables += 0 if is_shared and parameter in multiplied else parameter.numel()
            elif parameter.dim() == 2 and isinstance(part, nn.Linear):
                columns, rows = parameter.shape
                matrices.append((rows, columns))
            else:
                rest += parameter.numel()
    return tables, matrices, rest


@dataclass(frozen=True)
class Growing:
    """The shape of a hierarchy for any numbers of layers at the same strides, from those of one and of two at each level.

    All that a stage is made of grows by the same with every layer, so that a search need not build each model.
    """

    one: Shape
    two: Shape
    levels_of: tuple[int, ...]
    """Of each stage, the level whose layers it has; -1: of none."""

    @classmethod
    def of(cls, strides: tuple[int, ...], sizes: Sizes, precision: str, on_gpu: bool) -> Growing:
        """Of levels at these strides."""
        one, two = (
            shape_of_hierarchy(" ".join(f"{layers}@{stride}" for stride in strides), sizes, precision, on_gpu)
            for layers in (1, 2)
        )
        with_layers = iter(range(len(strides)))
        levels = tuple(next(with_layers) if stage.spec.layers else -1 for stage in one.stages)
        return cls(one, two, levels)

    def parameters_at(self, layers: tuple[int, ...]) -> int:
        """Of a model with so many layers at each level."""
        per_layer = (self.two.parameters - self.one.parameters) // len(layers)
        return self.one.parameters + per_layer * (sum(layers) - len(layers))

    def at(self, layers: tuple[int, ...]) -> Shape:
        """Of so many layers at each level."""
        stages = tuple(
            stage if level < 0 else _grown(stage, more, layers[level])
            for stage, more, level in zip(self.one.stages, self.two.stages, self.levels_of, strict=True)
        )
        strides = [level.stride for level in Hierarchy.parse(self.one.hierarchy).levels]
        name = " ".join(f"{count}@{stride}" for count, stride in zip(layers, strides, strict=True))
        return msgspec.structs.replace(
            self.one,
            name=name,
            hierarchy=name,
            parameters=self.parameters_at(layers),
            layer_equivalents=sum(count / stride for count, stride in zip(layers, strides, strict=True)),
            stages=stages,
        )


def _grown(one: StageShape, two: StageShape, layers: int) -> StageShape:
    """A stage with so many layers, of those with one and with two."""
    more, spec = layers - 1, one.spec
    key = spec.caches[0]
    caches = layer_caches(layers, key.heads, key.width, key.keeps)
    parameters = spec.parameters + more * (two.spec.parameters - spec.parameters)
    row = next(iter(one.row_bytes.values()))
    return StageShape(
        spec=msgspec.structs.replace(spec, layers=layers, parameters=parameters, caches=caches),
        products=one.products + more * (two.products - one.products),
        multiplied=one.multiplied + more * (two.multiplied - one.multiplied),
        weight_bytes=one.weight_bytes + more * (two.weight_bytes - one.weight_bytes),
        table_bytes=one.table_bytes,
        row_bytes=dict.fromkeys((cache.name for cache in caches), row),
    )
