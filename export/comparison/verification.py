"""Is a bundle the model it came from? Weights, every ONNX stage, every engine and the running system, at every phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from ...bundle import Bundle, ModelInfo, open_bundle
from ...contract import StageSpec, clocks_of
from ...contract.program import MOST_ROWS
from ...errors import ConfigError, EquivalenceError, FovealError, reason_of
from ...files import keep
from ...models.architecture import Architecture, Stage
from ...models.readers.loading import load_model
from ...progress import Progress, silent
from ...runtime.backends import cpu_engines, open_engines
from ...runtime.decoder_factory import Engines
from ...runtime.engines.base import Engine
from ...runtime.engines.native import NativeEngine
from ...runtime.engines.onnxruntime import OnnxRuntimeEngine
from ...runtime.native_engines import with_programs
from ...runtime.preflight import require_whole
from ...runtime.resident import ResidentEngines
from ...runtime.rows import Array, Ids
from ...runtime.schedules import Schedule
from ...runtime.session import Session
from ...storage import storage_errors
from ..graphs.dialect import dialect_named
from ..graphs.own_modules import line_of
from .boundaries import BoundaryChecks, schedule_of
from .chunks import random_chunks, spans
from .errors import TOLERANCE, Comparison
from .paired import NamedEngine, PairedEngine, RunError
from .portable_engines import portable_engines
from .probe import Probe, Surroundings, room_from, run_probe
from .systems import differing_rules, expected_period
from .teacher_forcing import compare_forced, record
from .torch_engine import TorchEngine
from .verify_report import Check, Coverage, VerifyReport
from .weights import Weighed, weigh_engine, weigh_graph

_BATCH = 2
_SEED = 20211026
_MOST_WORK = 2e10
"""Parameters times tokens: PyTorch computes so many in some seconds on two cores. A longer context is not run as a whole."""
_MOST_LOGITS = 1 << 24
_LAST_FIRINGS = 4
_GRAPHS = ("cpu", "cuda")
"""Targets whose engines are graphs, in which weights can be read."""


@storage_errors()
def verify(
    bundle: str | Path | Bundle,
    checkpoint: str | Path | Architecture,
    target: str = "cpu",
    *,
    boundaries: str | None = None,
    threshold: float | None = None,
    on_progress: Progress | None = None,
) -> VerifyReport:
    """Compare a bundle with the checkpoint, or the model in memory, it was made from, teacher-forced, at every phase.

    In order: the model cut into stages; the weights of each portable graph and engine, number by number; in several chunkings
    and at the last positions each portable graph and each engine of `target`, both fed with PyTorch's own rows; and the running
    system's logits, over the whole context where that takes seconds. `report.coverage` says how much of the model that was.
    Where the data decides when stages fire, logits are compared on the schedule of PyTorch's stages, and when the system fires
    by itself with that (`BoundaryChecks`); `report.clocks` says which tokens are too close to call.
    The report is also written to `reports/verify.json` in the bundle, if it can be. PyTorch runs on one thread meanwhile.
    `boundaries` and `threshold` are those that the checkpoint was converted with, if it was with other than its own.

    Raises:
        BundleError, CheckpointError: either is broken.
        ConfigError: a bundle that is not fp32, and so can't be equal; boundaries or a threshold for a checkpoint that takes
            none, or for a model in memory.
        EngineMismatchError: everything is equal, but the engines' sidecars are of other engines or graphs.
        EquivalenceError: the checkpoint is of another model, or its forward fails. Differences, and stages that fail while they
            run, are not raised here; call `report.require_equal()`.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    if opened.manifest.precision != "fp32":
        raise ConfigError(
            f"{opened.path} is {opened.manifest.precision}, expected fp32: other precisions differ from PyTorch on purpose; "
            "measure by how much with `foveal eval BUNDLE --against FP32_BUNDLE --text FILE`"
        )
    if isinstance(checkpoint, str | Path):
        model, source = load_model(checkpoint, boundaries, threshold).model, str(checkpoint)
    else:
        model, source = checkpoint, f"the {checkpoint.describe().architecture} in memory"
        if boundaries is not None or threshold is not None:
            raise ConfigError(f"{source} has boundaries of its own; leave boundaries and threshold out")
    _check_same_model(opened, model, source)
    with _one_thread():
        job = _Verification(opened, model, target)
        checks = job.run(on_progress or silent)
    result = VerifyReport(
        bundle=str(opened.path),
        checkpoint=source,
        tokens=job.short.ids.shape[1],
        batch=job.batch,
        checks=tuple(checks),
        coverage=job.coverage(),
        clocks=job.boundaries.report(),
    )
    data = msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"
    keep(opened.path / "reports" / "verify.json", data, "the report of verify")
    if result.first_failure is None:
        require_whole(opened, target)
    return result


class _Sequence(NamedTuple):
    """Ids `[B, T]`, what the model's full forward makes of them, and when its stages fire, where the data decides."""

    name: str
    ids: Ids
    logits: Array
    schedule: Schedule

    @staticmethod
    def of(name: str, model: Architecture, ids: Ids, reference: Sequence[Engine], info: ModelInfo) -> _Sequence:
        try:
            with torch.no_grad():
                logits = model(torch.from_numpy(ids)).numpy()
        except Exception as error:  # a model's own code may raise any
            line = line_of(error)
            raise EquivalenceError(
                f"the forward of {model.describe().architecture} failed on ids of shape {list(ids.shape)}: {reason_of(error)}"
                + (f", at {line}" if line else "")
            ) from error
        decides = any(engine.spec.clock is not None for engine in reference)
        return _Sequence(name, ids, logits, schedule_of(reference, info, ids, logits) if decides else {})


_Job = Callable[[], list[Check]]


@dataclass
class _Verification:
    """What is compared, with what; `weighed` is what the comparisons of weights found, by graph or engine."""

    bundle: Bundle
    model: Architecture
    target: str

    def __post_init__(self) -> None:
        described = self.model.describe()
        self.info: ModelInfo = self.bundle.manifest.model
        self.stages: Sequence[Stage] = self.model.stages()
        self.specs: Sequence[StageSpec] = [stage.spec for stage in self.stages]
        self.reference = [NamedEngine(TorchEngine(stage)) for stage in self.stages]
        self.batch = 1 if clocks_of(self.specs) else _BATCH  # several sequences of a session fire in step
        self.boundaries = BoundaryChecks(self.specs)
        self.context = max(described.context, described.max_positions or 0)
        read = partial(_Sequence.of, model=self.model, reference=self.reference, info=self.info)
        ids = _short_ids(self.specs, described.vocab_size, described.context)[: self.batch]
        self.short, self.long = read("the short text", ids=ids), None
        work, logits = self.info.parameters * described.context, described.vocab_size * described.context
        if work <= _MOST_WORK and logits <= _MOST_LOGITS:
            self.long = read("the long text", ids=_long_ids(described.vocab_size, described.context))
        self.weighed: dict[str, Weighed] = {}
        self.positions = 0  # that the system ran on

    def run(self, report: Progress) -> list[Check]:
        """All checks, in order."""
        jobs, checks = list(self._jobs()), []
        for index, (name, job) in enumerate(jobs):
            report(name, index, len(jobs))
            checks.extend(_attempt(name, job))
        report("done", len(jobs), len(jobs))
        return checks

    def coverage(self) -> Coverage:
        """How much of the model was seen."""
        graphs = [found for name, found in self.weighed.items() if name.startswith(_GRAPH)]
        engines = [found for name, found in self.weighed.items() if not name.startswith(_GRAPH)]
        return Coverage(
            weights=sum(found.numbers for found in graphs),
            weights_compared=sum(found.compared for found in graphs),
            engine_weights=sum(found.numbers for found in engines),
            engine_weights_compared=sum(found.compared for found in engines),
            by_runs_only=tuple(f"{name}: {tensor}" for name, found in self.weighed.items() for tensor in found.unknown),
            context=self.context,
            positions=self.positions,
        )

    def _jobs(self) -> Iterator[tuple[str, _Job]]:
        length = self.short.ids.shape[1]
        singles, mixed = [1] * length, random_chunks(length, _SEED)
        # Engines that a sidecar does not bind to their files are compared all the same: that says what is wrong with them.
        opened = cpu_engines(self.bundle) if self.target == "cpu" else open_engines(self.bundle, self.target)
        portable, compiled = portable_engines(self.bundle), opened
        target = self.target
        yield "stages in PyTorch", partial(self._split, singles)
        yield "weights of the ONNX stages", self._weigh_graphs
        yield "ONNX stages", partial(self._compare_stages, _GRAPH, portable, singles)
        yield "ONNX stages, chunks", partial(self._compare_stages, f"{_GRAPH} in chunks", portable, mixed)
        yield "ONNX stages, last positions", partial(self._probe_end, f"{_GRAPH} at the last positions", portable)
        if target in _GRAPHS:
            yield f"weights of the {target} engines", self._weigh_engines
        if isinstance(compiled, tuple):  # engines with a memory of their own are compared as a system; `compare` cuts it
            kind = f"{target} engine"
            yield f"{target} engines", partial(self._compare_stages, kind, compiled, singles)
            yield f"{target} engines, chunks", partial(self._compare_stages, f"{kind} in chunks", compiled, mixed)
            yield f"{target} engines, last positions", partial(self._probe_end, f"{kind} at the last positions", compiled)
            compiled = self._with_programs(compiled)
            if any(isinstance(engine, NativeEngine) for engine in compiled):
                yield from self._native_jobs(compiled, singles)
            compiled = tuple(NamedEngine(engine) for engine in compiled)
        yield "system, one call", partial(self._system, f"the {target} system, one call", compiled, self.short, [length])
        yield (
            "system, token by token",
            partial(self._system, f"the {target} system, token by token", compiled, self.short, singles),
        )
        yield "system, random chunks", partial(self._system, f"the {target} system, random chunks", compiled, self.short, mixed)
        if self.long is not None:
            name = f"the {target} system, the whole context"
            yield "system, the whole context", partial(self._system, name, compiled, self.long, [self.long.ids.shape[1]])
        if clocks_of(self.specs):
            yield "boundaries", self.boundaries.checks

    def _with_programs(self, engines: tuple[Engine, ...]) -> tuple[Engine, ...]:
        """What `load` runs: with programs of native steps where a stage has one, and the library is here."""
        graphs = [engine for engine in engines if isinstance(engine, OnnxRuntimeEngine)]
        return with_programs(self.bundle, graphs, 1, None) if len(graphs) == len(engines) else engines

    def _native_jobs(self, engines: Sequence[Engine], singles: Sequence[int]) -> Iterator[tuple[str, _Job]]:
        """Stages that run natively: by single firings, and in calls of up to as many as a program takes."""
        most = random_chunks(len(singles), _SEED, MOST_ROWS)
        yield "native steps", partial(self._compare_stages, "native steps", engines, singles)
        yield "native steps, chunks", partial(self._compare_stages, "native steps in chunks", engines, most)
        yield "native steps, last positions", partial(self._probe_end, "native steps at the last positions", engines)

    def _split(self, singles: Sequence[int]) -> list[Check]:
        """The stages against the full forward; where they differ, the stage that depends on how it is called is named."""
        checks = self._system("the split into stages, token by token", self.reference, self.short, singles)
        if self.long is not None:
            whole = [self.long.ids.shape[1]]
            checks += self._system("the split into stages, the whole context", self.reference, self.long, whole)
        if checks[0].where is not None and (blamed := self._blamed(singles)) is not None:
            checks[0] = msgspec.structs.replace(checks[0], where=f"{checks[0].where}; {blamed}")
        return checks

    def _blamed(self, singles: Sequence[int]) -> str | None:
        """The first stage whose rows are others token by token than in one call."""
        ids = self.short.ids
        whole = record(Session(self.reference, self.info, self.batch), ids, [ids.shape[1]])
        comparisons = [Comparison(spec.name, TOLERANCE) for spec in self.specs]
        compare_forced(Session(self.reference, self.info, self.batch), whole, ids, singles, comparisons)
        for found in comparisons:
            if found.where is not None:
                return f'stage "{found.name}" gives other rows token by token than in one call, first for {found.where}'
        return None

    def _weigh_graphs(self) -> list[Check]:
        dialect = dialect_named(self.bundle.manifest.dialect)
        for stage, entry in zip(self.stages, self.bundle.manifest.stages, strict=True):
            graph = self.bundle.file(entry.graph)
            self.weighed[f'{_GRAPH} of stage "{stage.spec.name}"'] = weigh_graph(stage, graph, dialect)
        return [_weights(name, found) for name, found in self.weighed.items() if found.numbers]

    def _weigh_engines(self) -> list[Check]:
        found = {}
        for entry in self.bundle.manifest.stages:
            name = entry.spec.name
            graph, engine = self.bundle.file(entry.graph), self.bundle.engine(self.target, name)
            found[f'{self.target} engine of stage "{name}"'] = weigh_engine(entry.spec, graph, engine, self.target)
        self.weighed |= found
        return [_weights(name, weighed) for name, weighed in found.items() if weighed.numbers]

    def _compare_stages(self, kind: str, engines: Sequence[Engine], chunks: Sequence[int]) -> list[Check]:
        comparisons = self._comparisons(kind)
        paired = [PairedEngine(*trio) for trio in zip(self.reference, engines, comparisons, strict=True)]
        session = Session(paired, self.info, self.batch)
        for start, end in spans(chunks):
            session.advance(self.short.ids[:, start:end])
        return [_check(comparison) for comparison in comparisons]

    def _probe_end(self, kind: str, engines: Sequence[Engine]) -> list[Check]:
        """One call of several firings and one of a single, at the end of the longest session there can be."""
        comparisons, around = self._comparisons(kind), Surroundings(self.info.vocab_size, self.specs, self.context)
        for reference, engine, comparison in zip(self.reference, engines, comparisons, strict=True):
            end = reference.spec.capacity_firings(self.context)
            first = max(end - 1 - _LAST_FIRINGS, 0)
            several = min(_LAST_FIRINGS, room_from(reference.spec, first), end - first)
            run_probe(reference, engine, comparison, Probe(1, self.context, first, several), around)
            run_probe(reference, engine, comparison, Probe(1, self.context, end - 1, 1), around)
        return [_check(comparison) for comparison in comparisons]

    def _comparisons(self, kind: str) -> list[Comparison]:
        return [Comparison(f'{kind} of stage "{spec.name}"', TOLERANCE) for spec in self.specs]

    def _system(self, name: str, engines: Engines, sequence: _Sequence, chunks: Sequence[int]) -> list[Check]:
        comparison = Comparison(name, TOLERANCE)
        rows = min(len(sequence.ids), _most_sequences(engines))
        session = Session(engines, self.info, rows)
        ids = sequence.ids[:rows, : session.capacity]  # of engines that were built for less than the context
        self.positions = self.positions if engines is self.reference else max(self.positions, ids.shape[1])
        last = self.specs[-1].name
        session.follow(sequence.schedule)
        for start, end in spans(chunks):
            if start >= ids.shape[1]:
                break
            logits = session.advance(ids[:, start:end])
            expected = sequence.logits[:rows, start : start + logits.shape[1]]
            comparison.add(logits, expected, partial(_logits_place, last, start), axis=1)
        if sequence.schedule:
            self._decide_alone(name, session, sequence, ids, chunks)
        return [_check(comparison)]

    def _decide_alone(self, name: str, session: Session, sequence: _Sequence, ids: Ids, chunks: Sequence[int]) -> None:
        """The same calls again on the system's own schedule, which is held to that of PyTorch's stages."""
        forced = session.schedule
        session.reset()
        session.follow(None)
        for start, end in spans(chunks):
            if start < ids.shape[1]:
                session.advance(ids[:, start:end])
        self.boundaries.add(name, sequence.name, forced, session.schedule, sequence.schedule)


_GRAPH = "ONNX graph"


def _attempt(name: str, job: _Job) -> list[Check]:
    """The checks of a job; if something in it can't be run, one that says what."""
    try:
        return job()
    except RunError as error:
        where = str(error)
    except FovealError:
        raise
    except Exception as error:  # a library's, of no class that is known here
        line = line_of(error)
        where = reason_of(error) + (f", at {line}" if line else "")
    return [Check(name=name, max_abs_error=float("inf"), tolerance=TOLERANCE, values=0, where=where, kind="run")]


def _check(found: Comparison) -> Check:
    return Check(name=found.name, max_abs_error=found.largest, tolerance=TOLERANCE, values=found.values, where=found.where)


def _weights(name: str, found: Weighed) -> Check:
    largest, where = (0.0, None) if found.wrong is None else (found.wrong.largest, str(found.wrong))
    name = f"the weights of the {name}"
    return Check(name=name, max_abs_error=largest, tolerance=0.0, values=found.numbers, where=where, kind="weights")


def _most_sequences(engines: Engines) -> int:
    limits = engines.engines[0].limits if isinstance(engines, ResidentEngines) else None
    return _BATCH if limits is None else limits.batch


def _logits_place(stage: str, start: int, row: int) -> str:
    return f'stage "{stage}", token {start + row}, tensor logits'


def _check_same_model(bundle: Bundle, model: Architecture, source: str) -> None:
    """Raise EquivalenceError if they are of other sizes, or decide by other rules when stages fire."""
    described = model.describe()
    expected_clocks = clocks_of([entry.spec for entry in bundle.manifest.stages])
    clocks = clocks_of([stage.spec for stage in model.stages()])
    remedy = "give the checkpoint that was converted"
    if clocks != expected_clocks:
        remedy += ", with the boundaries and threshold that it was converted with"
    found = (described.hierarchy, described.vocab_size, described.dim)
    info = bundle.manifest.model
    expected = (info.hierarchy, info.vocab_size, info.dim)
    if found != expected:
        raise EquivalenceError(
            f"{source} is another model than {bundle.path} was made from: got hierarchy, vocabulary and width {found}, "
            f"expected {expected}; {remedy}"
        )
    if clocks != expected_clocks:
        raise EquivalenceError(
            f"{source} decides otherwise when stages fire than {bundle.path}: {differing_rules(clocks, expected_clocks)}; "
            f"{remedy}, or convert it again"
        )


def _short_ids(specs: Sequence[StageSpec], vocab_size: int, context: int) -> Ids:
    """Two sequences over at least two whole periods of firing, and a length that is a multiple of nothing."""
    length = min(context, max(2 * expected_period(specs) + 3, 61))
    return np.random.default_rng(_SEED).integers(0, vocab_size, (_BATCH, length))


def _long_ids(vocab_size: int, context: int) -> Ids:
    """One sequence as long as the context, which repeats no id before it has had all."""
    rounds = -(-context // vocab_size)
    rng = np.random.default_rng(_SEED)
    return np.concatenate([rng.permutation(vocab_size) for _ in range(rounds)])[None, :context].astype(np.int64)


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch's threads wait for each other longer than calls of a few rows take: up to ten times as quick without."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
