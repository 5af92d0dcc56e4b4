"""Is a bundle the model it came from? PyTorch, every ONNX stage and the running system, compared at every phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from ...bundle import Bundle, ModelInfo, open_bundle
from ...contract import CacheSpec, StageSpec
from ...errors import ConfigError, EquivalenceError
from ...files import write_atomically
from ...models.architecture import Architecture
from ...models.readers.loading import load_model
from ...progress import Progress, silent
from ...runtime.backends import open_engines
from ...runtime.decoder import Engines
from ...runtime.engines.base import BoundStage, Engine
from ...runtime.rows import Array, Block
from ...runtime.session import Session
from .chunks import random_chunks, spans
from .errors import TOLERANCE, Comparison
from .portable_engines import portable_engines
from .torch_engine import TorchEngine

_BATCH = 2
_SEED = 20211026


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison; `where` names the first place that differs by more than the tolerance."""

    name: str
    max_abs_error: float
    tolerance: float
    values: int
    where: str | None = None


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` compared (`reports/verify.json`)."""

    bundle: str
    checkpoint: str
    tokens: int
    batch: int
    checks: tuple[Check, ...]

    @property
    def first_failure(self) -> Check | None:
        """The first check that failed, in order from the model to the running system."""
        return next((check for check in self.checks if check.where is not None), None)

    def require_equal(self) -> None:
        """Raise EquivalenceError, naming the first stage, step and tensor that differ, unless everything agrees."""
        failed = self.first_failure
        if failed is not None:
            raise EquivalenceError(
                f"{failed.name} differs from PyTorch: {failed.where}; largest error {failed.max_abs_error:.2e}, "
                f"expected at most {failed.tolerance:.0e} of the largest value"
            )


@dataclass
class _PairedEngine:
    """Runs the reference, which the dataflow goes on with, and compares another engine's answer to the same inputs."""

    reference: Engine
    other: Engine
    comparison: Comparison
    spec: StageSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.reference.spec

    def bind(self, batch: int, firings: int) -> _PairedStage:
        return _PairedStage(self, self.reference.bind(batch, firings), self.other.bind(batch, firings))


@dataclass
class _PairedStage:
    engine: _PairedEngine
    reference: BoundStage
    other: BoundStage
    copied_bytes: int = 0

    @property
    def caches(self) -> Sequence[Array]:
        return self.reference.caches

    def borrow(self, caches: Sequence[Array]) -> None:
        """Both read the reference's."""
        self.reference.borrow(caches)
        self.other.borrow(caches)

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        self.reference.run(first, firings, inputs, output, logit_rows)
        answer = np.full_like(output.array, np.nan)
        self.other.run(first, firings, inputs, Block.of(answer), logit_rows)
        spec, comparison = self.engine.spec, self.engine.comparison
        axis = 1 if spec.output == "logits" else 0

        def place(row: int) -> str:
            firing = first + row // (spec.output_rows if axis == 0 else 1)
            return f'stage "{spec.name}", token {spec.fired_by(firing)}, tensor {spec.output}'

        comparison.add(answer, output.array, place, axis)
        for cache, got, expected in zip(spec.caches, self.other.caches, self.reference.caches, strict=True):
            self._compare_cache(cache, got, expected, first, firings)

    def _compare_cache(self, cache: CacheSpec, got: Array, expected: Array, first: int, firings: int) -> None:
        """The rows of these firings; all rows of a cache that writes over old ones."""
        spec, width = self.engine.spec, expected.shape[3]
        start, stop = (first * cache.rows, (first + firings) * cache.rows) if cache.keeps is None else (0, cache.keeps)

        def place(row: int) -> str:
            where = f"token {spec.fired_by(first + row // cache.rows)}" if cache.keeps is None else f"row {row}"
            return f'stage "{spec.name}", {where}, tensor present.{cache.name}'

        self.engine.comparison.add(got[:, :, start:stop, :width], expected[:, :, start:stop], place, axis=2)


def verify(
    bundle: str | Path | Bundle,
    checkpoint: str | Path | Architecture,
    target: str = "cpu",
    *,
    on_progress: Progress | None = None,
) -> VerifyReport:
    """Compare a bundle with the checkpoint, or the model in memory, it was made from, teacher-forced, at every phase.

    In several chunkings, and in order: the model cut into stages, each portable ONNX graph, each engine of `target` (both
    fed with PyTorch's own rows), and the running system's logits. The report is also written to `reports/verify.json` in the
    bundle.

    Raises:
        BundleError, CheckpointError: either is broken.
        ConfigError: a bundle that is not fp32, and so can't be equal.
        EquivalenceError: not raised here; call `report.require_equal()`.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    if opened.manifest.precision != "fp32":
        raise ConfigError(
            f"{opened.path} is {opened.manifest.precision}, expected fp32: other precisions differ from PyTorch on purpose; "
            "measure by how much with `foveal eval BUNDLE --against FP32_BUNDLE --text FILE`"
        )
    model = load_model(checkpoint).model if isinstance(checkpoint, str | Path) else checkpoint
    source = str(checkpoint) if isinstance(checkpoint, str | Path) else f"the {model.describe().architecture} in memory"
    _check_same_model(opened, model, source)
    ids = _token_ids(model)
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).numpy()
    report = on_progress or silent
    jobs = list(_jobs(opened, model, target, ids, expected))
    checks = []
    for index, (name, job) in enumerate(jobs):
        report(name, index, len(jobs))
        checks.extend(job())
    report("done", len(jobs), len(jobs))
    result = VerifyReport(
        bundle=str(opened.path), checkpoint=source, tokens=ids.shape[1], batch=ids.shape[0], checks=tuple(checks)
    )
    write_atomically(
        opened.path / "reports" / "verify.json", msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"
    )
    return result


_Job = Callable[[], list[Check]]


def _jobs(bundle: Bundle, model: Architecture, target: str, ids: Array, expected: Array) -> Iterator[tuple[str, _Job]]:
    reference = [TorchEngine(stage) for stage in model.stages()]
    info = bundle.manifest.model

    def system(name: str, engines: Engines, chunks: Sequence[int]) -> _Job:
        return lambda: [_compare_system(name, Session(engines, info, _BATCH), ids, expected, chunks)]

    def stages(kind: str, engines: Sequence[Engine], chunks: Sequence[int]) -> _Job:
        return lambda: _compare_stages(kind, reference, engines, info, ids, chunks)

    length = ids.shape[1]
    singles, mixed = [1] * length, random_chunks(length, _SEED)
    portable, compiled = portable_engines(bundle), open_engines(bundle, target)
    yield "stages in PyTorch", system("the split into stages, token by token", reference, singles)
    yield "ONNX stages", stages("ONNX graph", portable, singles)
    yield "ONNX stages, chunks", stages("ONNX graph in chunks", portable, mixed)
    if isinstance(compiled, tuple):  # engines with a memory of their own are compared as a system; `compare` cuts it
        yield f"{target} engines", stages(f"{target} engine", compiled, singles)
        yield f"{target} engines, chunks", stages(f"{target} engine in chunks", compiled, mixed)
    yield "system, one call", system(f"the {target} system, one call", compiled, [length])
    yield "system, token by token", system(f"the {target} system, token by token", compiled, singles)
    yield "system, random chunks", system(f"the {target} system, random chunks", compiled, mixed)


def _compare_stages(
    kind: str, reference: Sequence[TorchEngine], engines: Sequence[Engine], info: ModelInfo, ids: Array, chunks: Sequence[int]
) -> list[Check]:
    comparisons = [Comparison(f'{kind} of stage "{engine.spec.name}"', TOLERANCE) for engine in reference]
    paired = [_PairedEngine(*trio) for trio in zip(reference, engines, comparisons, strict=True)]
    session = Session(paired, info, _BATCH)
    for start, end in spans(chunks):
        session.advance(ids[:, start:end])
    return [_check(comparison) for comparison in comparisons]


def _compare_system(name: str, session: Session, ids: Array, expected: Array, chunks: Sequence[int]) -> Check:
    comparison = Comparison(name, TOLERANCE)
    for start, end in spans(chunks):
        logits = session.advance(ids[:, start:end])
        comparison.add(logits, expected[:, start:end], partial(_logits_place, start), axis=1)
    return _check(comparison)


def _check(found: Comparison) -> Check:
    return Check(name=found.name, max_abs_error=found.largest, tolerance=TOLERANCE, values=found.values, where=found.where)


def _logits_place(start: int, row: int) -> str:
    return f"token {start + row}, tensor logits"


def _check_same_model(bundle: Bundle, model: Architecture, source: str) -> None:
    described = model.describe()
    found = (described.hierarchy, described.vocab_size, described.dim)
    info = bundle.manifest.model
    expected = (info.hierarchy, info.vocab_size, info.dim)
    if found != expected:
        raise EquivalenceError(
            f"{source} is another model than {bundle.path} was made from: got hierarchy, vocabulary and width {found}, "
            f"expected {expected}; give the checkpoint that was converted"
        )


def _token_ids(model: Architecture) -> npt.NDArray[np.int64]:
    """Two sequences over at least two whole periods of firing, and a length that is a multiple of nothing."""
    described = model.describe()
    period = max(stage.spec.stride for stage in model.stages())
    length = min(described.context, max(2 * period + 3, 61))
    return np.random.default_rng(_SEED).integers(0, described.vocab_size, (_BATCH, length))
