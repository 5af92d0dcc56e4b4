"""How fast weights are read out of a cache and out of memory, how large that cache is, and what a product takes beside that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..product_graphs import ProductGraph
from .cache_size import Split, split
from .native_products import MappedFile, NativeProducts
from .timed import Timed

MEGABYTES = (4, 20, 30, 44, 64, 160)
"""Of all matrices of a chain, read over and over: within caches, around their sizes, and far beyond them."""
TINY = ((32, 32),)
_TINY_COUNT, _PAIR_MEGABYTES = 64, 6
FILE_BYTES = 192 << 20


def layer_shapes(width: int) -> tuple[tuple[int, int], ...]:
    """Matrices `[K, N]` of a layer: queries, keys and values; the way back; up; down."""
    return (width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)


SMALL, LARGE = layer_shapes(256), layer_shapes(512)
"""Layers whose difference tells what a product takes apart from its bytes."""


@dataclass
class _Chain:
    timed: Timed
    products: int
    bytes: int

    @property
    def each(self) -> float:
        """Seconds of one product."""
        return self.timed.seconds / self.products


class ProductRates:
    """Of one format, by native steps (with a file for weights) or by ONNX Runtime's operators (None)."""

    def __init__(self, name: str, threads: int, file: MappedFile | None) -> None:
        self._name, self._threads, self._file = name, threads, file
        self._tiny = self._chain(TINY, _TINY_COUNT)
        small, large = self._chain(SMALL, 1).bytes, self._chain(LARGE, 1).bytes
        self._small = self._chain(SMALL, max(round(_PAIR_MEGABYTES * 1e6 / small), 1))
        self._middle = self._chain(LARGE, max(round(_PAIR_MEGABYTES * 1e6 / large), 1))
        counts = sorted({max(round(megabytes * 1e6 / large), 1) for megabytes in MEGABYTES})
        self._large = [self._chain(LARGE, count) for count in counts]

    def chains(self) -> Iterator[Timed]:
        """All that are to be timed."""
        yield from (chain.timed for chain in (self._tiny, self._small, self._middle, *self._large))

    @property
    def product_s(self) -> float:
        """What a product takes that is large enough for threads to share, beyond its bytes and what a tiny one takes."""
        small, middle = self._small, self._middle
        each = small.bytes / small.products, middle.bytes / middle.products
        per_byte = (middle.each - small.each) / (each[1] - each[0])
        return max(small.each - per_byte * each[0] - self._tiny.each, 0.0)

    @property
    def split(self) -> Split:
        """Rates of the cache and of memory, and the size of the cache."""
        beside = self.product_s + self._tiny.each
        seconds = [(chain.each - beside) * chain.products / chain.bytes for chain in self._large]
        return split([chain.bytes for chain in self._large], seconds)

    def _chain(self, shapes: Sequence[tuple[int, int]], count: int) -> _Chain:
        if self._file is None:
            graph = ProductGraph(self._name, shapes, count, self._threads)
            return _Chain(Timed(graph.call(1)), count * len(shapes), graph.bytes)
        products = NativeProducts(self._file, self._name, shapes, count, self._threads)
        return _Chain(Timed(products), count * len(shapes), products.bytes)
