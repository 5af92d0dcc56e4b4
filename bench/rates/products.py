"""How fast weights are read, by how many are read over and over, and what a product takes beside that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...forecast.rates import Curve
from ..product_graphs import ProductGraph, product_bytes
from .native_products import MappedFile, NativeProducts
from .timed import Timed

MEGABYTES = (4, 13, 19, 26, 36, 56, 90, 160)
"""Of all matrices of a chain: around the sizes of caches, and far beyond them."""
TINY, SMALL, LARGE = (32, 32), (256, 1024), (1024, 2048)
"""Products of nothing but overhead; and two sizes whose difference tells that from bytes."""
_TINY_COUNT, _PAIR_BYTES = 64, 6 << 20
FILE_BYTES = 192 << 20


@dataclass
class _Chain:
    timed: Timed
    count: int
    bytes: int

    @property
    def each(self) -> float:
        """Seconds of one product."""
        return self.timed.seconds / self.count


class ProductRates:
    """Of one format, by native steps (with a file for weights) or by ONNX Runtime's operators (None)."""

    def __init__(self, name: str, threads: int, file: MappedFile | None) -> None:
        self._name, self._threads, self._file = name, threads, file
        one = self._bytes_of(LARGE)
        counts = sorted({max(round(megabytes * 1e6 / one), 1) for megabytes in MEGABYTES})
        self._tiny = self._chain(TINY, _TINY_COUNT)
        self._small = self._chain(SMALL, _PAIR_BYTES // self._bytes_of(SMALL))
        self._middle = self._chain(LARGE, max(_PAIR_BYTES // one, 1))
        self._large = [self._chain(LARGE, count) for count in counts]

    def chains(self) -> Iterator[Timed]:
        """All that are to be timed."""
        yield from (chain.timed for chain in (self._tiny, self._small, self._middle, *self._large))

    @property
    def product_s(self) -> float:
        """What a product takes that is large enough for threads to share, beyond its bytes and what a tiny one takes."""
        small, middle = self._small, self._middle
        each = small.bytes / small.count, middle.bytes / middle.count
        per_byte = (middle.each - small.each) / (each[1] - each[0])
        return max(small.each - per_byte * each[0] - self._tiny.each, 0.0)

    @property
    def curve(self) -> Curve:
        """Bytes per second by bytes."""
        beside = self.product_s + self._tiny.each
        found = [(chain.bytes, chain.bytes / chain.count / max(chain.each - beside, 1e-9)) for chain in self._large]
        return Curve([float(size) for size, _ in found], [rate for _, rate in found])

    def _chain(self, shape: tuple[int, int], count: int) -> _Chain:
        if self._file is None:
            graph = ProductGraph(self._name, shape, count, self._threads)
            return _Chain(Timed(graph.call(1)), count, graph.bytes)
        products = NativeProducts(self._file, self._name, shape, count, self._threads)
        return _Chain(Timed(products), count, count * products.bytes_each)

    def _bytes_of(self, shape: tuple[int, int]) -> int:
        if self._file is None:
            return product_bytes(self._name, shape)
        return NativeProducts(self._file, self._name, shape, 1, self._threads).bytes_each
