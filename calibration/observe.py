"""A bundle's engines with the inputs and outputs of every matrix product made visible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ..bundle import Bundle
from ..contract import StageSpec
from ..errors import CalibrationError
from ..runtime.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeStage
from ..runtime.rows import Array, Block
from .graph_files import load_graph
from .products import expose_products, find_attentions, find_products


class Listener(Protocol):
    """What is told of every run of a stage."""

    def hear_product(self, name: str, x: Array, y: Array) -> None:
        """A product's inputs `[rows, K]` and its results `[rows, N]`."""

    def hear_cache(self, name: str, keys: Array, values: Array) -> None:
        """The rows `[rows, H * Dh]` that an attention appends to its caches."""


class ObservedEngine(OnnxRuntimeEngine):
    """An fp32 CPU engine that shows what its products see, to whoever listens."""

    def __init__(self, bundle: Bundle, spec: StageSpec, directory: Path, threads: int, listener: Listener) -> None:
        graph = load_graph(bundle.file(bundle.manifest.engines["cpu"][spec.name]))
        expose_products(graph, spec.name)
        self.products = {product.name: _shown(graph, product.x, product.y) for product in find_products(graph)}
        found = find_attentions(graph, spec.name).items()
        self.attentions = {name: (_shown(graph, packed.qkv)[0], packed.counts) for name, packed in found}
        path = directory / f"{spec.name}.onnx"
        ir.save(graph, path, external_data=f"{path.name}.data")
        super().__init__(spec, path, bundle.sidecar("cpu", spec.name), threads)
        self.listener = listener

    def bind(self, batch: int, firings: int) -> ObservedStage:
        """As `OnnxRuntimeEngine.bind`, for one sequence."""
        return ObservedStage(self, self.new_caches(batch, firings), batch, firings)


class ObservedStage(OnnxRuntimeStage):
    """An `ObservedEngine` with its caches."""

    def __init__(self, engine: ObservedEngine, caches: list[Array], batch: int, firings: int) -> None:
        super().__init__(engine, caches, batch, firings)
        self._observed = engine
        names = [name for pair in engine.products.values() for name in pair]
        self._names = list(dict.fromkeys([*names, *(qkv for qkv, _ in engine.attentions.values())]))

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`; then tells the listener.

        Raises:
            CalibrationError: an activation is NaN or infinite.
        """
        for name in self._names:  # at every run anew, or the last run's memory would have to fit
            self._binding.bind_output(name, "cpu")
        super().run(first, firings, inputs, output, logit_rows)
        # Outputs come in the order in which they were first bound: the caches, these, then the stage's own.
        values = self._binding.get_outputs()[len(self.caches) :]
        shown = {name: _rows(value.numpy()) for name, value in zip(self._names, values, strict=False)}
        for product, (x, y) in self._observed.products.items():
            self._check(product, "input", shown[x])
            self._check(product, "output", shown[y])
            self._observed.listener.hear_product(product, shown[x], shown[y])
        for attention, (qkv, counts) in self._observed.attentions.items():
            self._observed.listener.hear_cache(attention, *counts.keys_and_values(shown[qkv]))

    def _check(self, product: str, side: str, rows: Array) -> None:
        if not np.isfinite(rows).all():
            wrong = rows[~np.isfinite(rows)][0]
            raise CalibrationError(
                f'stage "{self._spec.name}", {side} of {product}: got {wrong}, expected finite numbers; '
                "the checkpoint is broken there, or overflows in fp32"
            )


def _shown(graph: ir.Model, *values: ir.Value) -> tuple[str, ...]:
    for value in values:
        if not value.is_graph_output():
            graph.graph.outputs.append(value)
    return tuple(value.name or "" for value in values)


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])
