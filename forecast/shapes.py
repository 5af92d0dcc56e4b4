"""What a forecast knows of a model: when its stages fire, and what each firing reads and multiplies.

A shape comes from a bundle, whose files say it, or from a hierarchy and sizes (`model_shapes.py`), of which nothing is built.
"""

from __future__ import annotations

import msgspec

from ..bundle import Bundle, StageEntry
from ..contract import StageSpec, vocab_size_of
from ..precision import INTEGERS, ProductPrecision

PRODUCTS_OF_A_LAYER = 4
"""Matrix products: queries, keys and values in one; the way back; up; down."""
_TABLE_ITEM = {"fp32": 4, "fp16": 2}


class StageShape(msgspec.Struct, frozen=True, kw_only=True):
    """One stage.

    Attributes:
        products: matrix products of a firing.
        multiplied: numbers of the matrices that each row is multiplied by.
        weight_bytes: what a firing reads whole; `table_bytes`: what it looks up row by row.
        row_bytes: of a row of each of its caches, all heads.
    """

    spec: StageSpec
    products: int
    multiplied: int
    weight_bytes: float
    table_bytes: float
    row_bytes: dict[str, int]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A model in one precision, as engines for `cpu` or for a GPU hold it.

    Attributes:
        name: for people: the hierarchy, or the bundle.
        widest: columns of its widest matrix but the head.
        parameters: of all stages; those that two of them share count once.
        on_gpu: whether it is as engines for GPUs hold it, whose caches and fp16 differ from the CPU's.
    """

    name: str
    hierarchy: str
    precision: str
    dim: int
    widest: int
    context: int
    parameters: int
    layer_equivalents: float
    on_gpu: bool
    stages: tuple[StageShape, ...]

    @property
    def specs(self) -> list[StageSpec]:
        """Of the stages, in dataflow order."""
        return [stage.spec for stage in self.stages]

    @property
    def vocab_size(self) -> int:
        """Token ids."""
        return vocab_size_of(self.specs)

    @property
    def columns(self) -> int:
        """Of the rows between layers, and of the widest within one: what norms and activations go through."""
        return self.dim + self.widest


def shape_of_bundle(bundle: Bundle, on_gpu: bool) -> Shape:
    """What the manifest and the sidecars of a bundle say.

    Args:
        bundle: opened; engines for a GPU need not be there for a forecast of one.
        on_gpu: whether as engines for GPUs hold it.
    """
    manifest, model = bundle.manifest, bundle.manifest.model
    stages = tuple(_stage(bundle, entry, on_gpu) for entry in manifest.stages)
    columns = [product.columns for stage in stages for product in _products_of(bundle, stage.spec.name)[:-1]]
    return Shape(
        name=bundle.name,
        hierarchy=model.hierarchy,
        precision=manifest.precision,
        dim=model.dim,
        widest=max(columns, default=4 * model.dim),
        context=model.context,
        parameters=model.parameters,
        layer_equivalents=model.layer_equivalents,
        on_gpu=on_gpu,
        stages=stages,
    )


def _products_of(bundle: Bundle, stage: str) -> tuple[ProductPrecision, ...]:
    """What a sidecar lists; fp32 engines list nothing."""
    targets = bundle.manifest.engines
    return bundle.sidecar(next(iter(targets)), stage).products if targets else ()


def _stage(bundle: Bundle, entry: StageEntry, on_gpu: bool) -> StageShape:
    spec, precision = entry.spec, bundle.manifest.plan.of_stage(entry.spec.name)
    listed = _products_of(bundle, spec.name)
    item = _TABLE_ITEM.get(precision, 1) if bundle.manifest.plan.embedding else 4
    in_products = sum(one.rows * one.columns for one in listed)  # a tied head is one, and its table is there beside it
    multiplied = max(spec.parameters - round(entry.table_bytes / item), in_products)
    read = float(entry.weight_bytes - entry.table_bytes)
    if precision == "fp16" and not on_gpu:  # onnxruntime widens half-precision weights as it loads them
        read = 4.0 * multiplied
    return StageShape(
        spec=spec,
        products=len(listed) or PRODUCTS_OF_A_LAYER * spec.layers + (spec.output == "logits"),
        multiplied=multiplied,
        weight_bytes=read,
        table_bytes=float(entry.table_bytes),
        row_bytes=_row_bytes(bundle, spec, on_gpu),
    )


def _row_bytes(bundle: Bundle, spec: StageSpec, on_gpu: bool) -> dict[str, int]:
    """Of the engines that are there; else as the portable graph has them."""
    target = next((name for name in bundle.manifest.engines if (name != "cpu") == on_gpu), None)
    if target is not None:
        return bundle.cache_row_bytes(target, spec)
    item = {"float32": 4, "float16": 2}[spec.cache_dtype]
    return {cache.name: cache.heads * cache.width * item for cache in spec.caches}


def cache_item_bytes(precision: str, on_gpu: bool) -> int:
    """Bytes of a number of keys and values, as engines of a precision usually keep them (`foveal.precision`).

    int8 on the CPU where weights are integers and there was text to calibrate on; fp16 on GPUs in fp16; else fp32.
    """
    if on_gpu:
        return 2 if precision == "fp16" else 4
    return 1 if precision in INTEGERS else 4
