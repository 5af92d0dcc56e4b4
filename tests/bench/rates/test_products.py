"""Chains of products: they run, count their bytes, and tell a product's own time from that of its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foveal.bench.product_graphs import ProductGraph, product_bytes
from foveal.bench.rates.native_products import MappedFile, NativeProducts, weight_bytes
from foveal.bench.rates.products import ProductRates, layer_shapes
from foveal.bench.rates.timed import Timed
from foveal.errors import BackendUnavailable
from foveal.runtime.engines.native_library import native_library

FORMATS = "fp32", "int8", "w8", "w4"
SHAPES = layer_shapes(32)


@pytest.mark.parametrize("name", FORMATS)
def test_graphs_run_for_any_number_of_rows(name: str) -> None:
    """Twice the matrices of a layer: 12 of 32 x 32 each."""
    graph = ProductGraph(name, SHAPES, 2, 1)
    assert graph.bytes == 2 * sum(product_bytes(name, shape) for shape in SHAPES)
    for rows in (1, 5):
        graph.call(rows)()
    if name == "fp32":
        assert graph.bytes == 2 * 12 * 32 * 32 * 4


@pytest.mark.parametrize("name", FORMATS)
def test_native_chains_run_from_a_mapped_file(name: str, tmp_path: Path) -> None:
    """As large as they say."""
    try:
        native_library()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    file = MappedFile(tmp_path / "weights", 1 << 18)
    chain = NativeProducts(file, name, SHAPES, 2, 1)
    chain()
    assert chain.bytes == 2 * sum(weight_bytes(name, shape) for shape in SHAPES)
    with pytest.raises(AssertionError, match="as large as the largest chain"):
        NativeProducts(file, name, SHAPES, 60, 1)


def test_a_products_own_time_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny ones take 1 s, all others 3 s and a second for every 100,000 bytes: 2 s are theirs, beyond a tiny one's."""
    graphs: list[ProductGraph] = []

    def chain(self: object, shapes: tuple[tuple[int, int], ...], count: int, _threads: int) -> None:
        graphs.append(self)  # type: ignore[arg-type]
        self.bytes = count * sum(4 * k * n for k, n in shapes)  # type: ignore[attr-defined]
        self.products = count * len(shapes)  # type: ignore[attr-defined]

    class Clock:
        def __init__(self, call: Callable[[], float]) -> None:
            self.seconds = call()

    def call(self: object, _rows: int) -> Callable[[], float]:
        products, size = self.products, self.bytes  # type: ignore[attr-defined]
        return lambda: products * (1.0 if size / products < 5000 else 3.0 + size / products / 1e5)

    monkeypatch.setattr(ProductGraph, "__init__", lambda self, name, *rest: chain(self, *rest))
    monkeypatch.setattr(ProductGraph, "call", call)
    monkeypatch.setattr("foveal.bench.rates.products.Timed", Clock)
    rates = ProductRates("fp32", 1, None)
    assert rates.product_s == pytest.approx(2.0)
    assert rates.split.memory == pytest.approx(1e-5)


def test_a_call_is_timed_by_the_median() -> None:
    """After one that does not count."""
    calls = []
    timed = Timed(lambda: calls.append(0))
    timed.sample()
    assert len(calls) > 3
    assert 0 < timed.seconds < 1
