"""An engine beside the one it should agree with, fed with the same rows and compared after every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...contract import CacheSpec, StageSpec
from ...errors import EngineMismatchError, EquivalenceError, FovealError, reason_of
from ...runtime.engines.base import BoundStage, Engine
from ...runtime.rows import Array, Block
from ..graphs.own_modules import line_of
from .errors import Comparison


class RunError(EquivalenceError):
    """An engine could not be run: its stage, the token and the cause."""


@dataclass
class NamedEngine:
    """An engine whose failing runs name its stage."""

    engine: Engine
    spec: StageSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.engine.spec

    def bind(self, batch: int, firings: int) -> NamedStage:
        """As `Engine.bind`."""
        return NamedStage(self.spec, self.engine.bind(batch, firings))


@dataclass
class NamedStage:
    """A `NamedEngine` with its caches."""

    spec: StageSpec
    bound: BoundStage

    @property
    def copied_bytes(self) -> int:
        """As `BoundStage.copied_bytes`."""
        return self.bound.copied_bytes

    @property
    def caches(self) -> Sequence[Array]:
        """As `BoundStage.caches`."""
        return self.bound.caches

    def borrow(self, caches: Sequence[Array]) -> None:
        """As `BoundStage.borrow`."""
        self.bound.borrow(caches)

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`.

        Raises:
            RunError: the engine raised.
        """
        try:
            self.bound.run(first, firings, inputs, output, logit_rows)
        except Exception as error:  # engine libraries' exceptions share no base class, and a model's own code may raise any
            if isinstance(error, FovealError) and not isinstance(error, EngineMismatchError):
                raise
            line = line_of(error)
            raise RunError(
                f'stage "{self.spec.name}", {self.spec.place_of(first)}: the run failed: {reason_of(error)}'
                + (f", at {line}" if line else "")
            ) from error


@dataclass
class PairedEngine:
    """Runs the reference, which the dataflow goes on with, and compares another engine's answer to the same inputs."""

    reference: Engine
    other: Engine
    comparison: Comparison
    spec: StageSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.reference.spec
        self.reference, self.other = NamedEngine(self.reference), NamedEngine(self.other)

    def bind(self, batch: int, firings: int) -> PairedStage:
        """As `Engine.bind`."""
        return PairedStage(self, self.reference.bind(batch, firings), self.other.bind(batch, firings))


@dataclass
class PairedStage:
    """A `PairedEngine` with both engines' caches."""

    engine: PairedEngine
    reference: BoundStage
    other: BoundStage
    copied_bytes: int = 0

    @property
    def caches(self) -> Sequence[Array]:
        """The reference's."""
        return self.reference.caches

    def borrow(self, caches: Sequence[Array]) -> None:
        """Both read the reference's."""
        self.reference.borrow(caches)
        self.other.borrow(caches)

    def fill_caches(self, rng: np.random.Generator) -> None:
        """Let both remember the same random rows; what the other engine pads them with stays."""
        for given, other in zip(self.reference.caches, self.other.caches, strict=True):
            given[...] = rng.standard_normal(given.shape, np.float32)
            other[..., : given.shape[3]] = given

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        self.reference.run(first, firings, inputs, output, logit_rows)
        answer = np.full_like(output.array, np.nan)
        self.other.run(first, firings, inputs, Block.of(answer), logit_rows)
        spec, comparison = self.engine.spec, self.engine.comparison
        axis = 1 if spec.output == "logits" else 0

        def place(row: int) -> str:
            firing = first + row // (spec.output_rows if axis == 0 else 1)
            return f'stage "{spec.name}", {spec.place_of(firing)}, tensor {spec.output}'

        comparison.add(answer, output.array, place, axis)
        for cache, got, expected in zip(spec.caches, self.other.caches, self.reference.caches, strict=True):
            self._compare_cache(cache, got, expected, first, firings)

    def _compare_cache(self, cache: CacheSpec, got: Array, expected: Array, first: int, firings: int) -> None:
        """The rows of these firings; all rows of a cache that writes over old ones."""
        spec, width = self.engine.spec, expected.shape[3]
        begin = first if spec.resets is None else first % spec.resets
        is_appended = cache.keeps is None and not cache.recurrent
        start, stop = (begin * cache.rows, (begin + firings) * cache.rows) if is_appended else (0, expected.shape[2])

        def place(row: int) -> str:
            where = spec.place_of(first + row // cache.rows) if is_appended else f"row {row}"
            return f'stage "{spec.name}", {where}, tensor present.{cache.name}'

        self.engine.comparison.add(got[:, :, start:stop, :width], expected[:, :, start:stop], place, axis=2)
