"""Does a stage work at any size? Its module before it is traced, and its graph after that, at sizes it was not traced with.

`torch.onnx.export` makes a size that Python code works with a constant, and says nothing: such a graph would fail, or give
other values, only when it runs. And what a module does wrong of itself is said best where its own code can be pointed at.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ...contract import StageSpec, read_tensors
from ...errors import BackendUnavailable, EngineMismatchError, ExportError, FovealError, reason_of
from ...files import scratch_directory
from ...models.architecture import Stage
from ...models.cache import StageState
from ...models.spans import read_inputs
from ...runtime.engines.base import Engine
from ...runtime.engines.onnxruntime import OnnxRuntimeEngine
from ...runtime.engines.onnxruntime_library import import_onnxruntime
from ...sidecar import EngineSidecar
from ..cpu.attention import cache_widths
from ..cpu.lower import lower as lower_for_cpu
from ..graphs.export_stage import trace
from ..graphs.own_modules import Line, decision_on_sizes, line_of
from .errors import TOLERANCE, Comparison
from .paired import RunError
from .portable_engines import PORTABLE_SINCE
from .probe import Probe, Surroundings, blocks_of, lent_caches, room_from, run_probe
from .torch_engine import TorchEngine

_logger = logging.getLogger(__name__)
# Sequences, firings before the call, firings of it. Graphs are traced with two sequences and three firings.
_SIZES = ((1, 0, 1), (3, 1, 5))


def check_module(stage: Stage, around: Surroundings) -> None:
    """Run a stage's module, and hold what it gives to what its specification says.

    Raises:
        ExportError: it raises, gives something else, or not twice the same, or writes into its inputs.
    """
    for probe in _probes(stage.spec, around.context):
        found = _run_module(stage, probe, around)
        if not torch.equal(found, _run_module(stage, probe, around)):
            raise ExportError(
                f'stage "{stage.spec.name}", run twice for {_described(probe)}, gives other values the second time; let it '
                "draw no random numbers (model.eval() ends dropout) and remember nothing but its caches"
            )


def check_sizes(stage: Stage, graph: Path, around: Surroundings) -> None:
    """Run a stage's portable graph, and compare it with its module.

    Raises:
        ExportError: it can't be run at other sizes, or gives other values; the line that fixes a size is named, if one does.
    """
    with scratch_directory() as directory:
        engine = _engine(stage.spec, graph, directory)
        if engine is None:
            return
        for probe in _probes(stage.spec, around.context):
            comparison = Comparison(stage.spec.name, TOLERANCE)
            try:
                run_probe(TorchEngine(stage), engine, comparison, probe, around)
            except RunError as error:
                raise _fixed(stage, probe, f"fails: {reason_of(error)}") from error
            if comparison.where is not None:
                place = comparison.where.partition(", ")[2]
                raise _fixed(stage, probe, f"gives other values than its module: {place} differs by {comparison.largest:.2g}")


def _probes(spec: StageSpec, context: int) -> Iterator[Probe]:
    most = max(spec.capacity_firings(context), 1)
    for batch, before, firings in _SIZES:
        first = before if before < min(most, spec.resets or most) else 0
        firings = min(firings, room_from(spec, first), most - first)
        yield Probe(batch, spec.stride * (first + firings + batch), first, firings)


def _described(probe: Probe) -> str:
    sequences = "1 sequence" if probe.batch == 1 else f"{probe.batch} sequences"
    return f"{probe.firings} firing{'s' * (probe.firings > 1)} of {sequences}"


def _run_module(stage: Stage, probe: Probe, around: Surroundings) -> torch.Tensor:
    """What a stage's module gives, once it is held to its specification."""
    spec, rng = stage.spec, np.random.default_rng(0)
    inputs, output, wanted = blocks_of(spec, probe, around.vocab_size, rng)
    state = StageState(spec, probe.batch, spec.capacity_firings(probe.capacity))
    lent = zip(spec.borrows, lent_caches(spec, probe, around, rng), strict=True)
    state.lend({given.name: torch.from_numpy(cache) for given, cache in lent})
    state.begin(probe.first)
    given = [torch.from_numpy(block.array.copy()) for block in inputs]
    rows = read_inputs(spec, iter(given))
    start = f'stage "{spec.name}", run for {_described(probe)}'
    try:
        with torch.no_grad():
            found = stage.module(rows, state, None if wanted is None else torch.from_numpy(wanted.array))
    except FovealError:
        raise
    except Exception as error:  # the module's own code may raise any
        raise ExportError(f"{start}, fails: {reason_of(error)}{_at(line_of(error))}") from error
    shape = list(output.array.shape)
    expected = shape if wanted is not None else [shape[1], shape[0], shape[2]]
    if not isinstance(found, torch.Tensor):
        raise ExportError(f"{start}, gives a {type(found).__name__}, expected one tensor of shape {expected}")
    if list(found.shape) != expected:
        declared = f"output_rows={spec.output_rows}, width={spec.width}"
        raise ExportError(f"{start}, gives shape {list(found.shape)}, expected {expected}, as its StageSpec says ({declared})")
    if found.dtype != torch.float32:
        got = str(found.dtype).removeprefix("torch.")
        raise ExportError(f"{start}, gives {got}, expected float32; convert the model with .float(), or end the stage with it")
    for described, tensor, block in zip(read_tensors(spec), given, inputs, strict=True):
        if not np.array_equal(tensor.numpy(), block.array):
            raise ExportError(f"{start}, writes into its input {described.name}, which is not its own; let it work on a copy")
    if not bool(found.isfinite().all()):
        raise ExportError(
            f"{start}, gives values that are infinite or NaN, of inputs that are neither; look for a division by 0"
        )
    return found


def _engine(spec: StageSpec, graph: Path, directory: Path) -> Engine | None:
    """The portable graph where ONNX Runtime runs it, else its CPU form; None where there is no ONNX Runtime."""
    try:
        version = import_onnxruntime().__version__
    except BackendUnavailable as error:
        _logger.warning('stage "%s" was not run at other sizes than those it was traced with: %s', spec.name, error)
        return None
    is_old, one_chunks = tuple(map(int, version.split(".")[:2])) < PORTABLE_SINCE, False
    if is_old:
        one_chunks = lower_for_cpu(graph, directory / graph.name, spec)
        graph = directory / graph.name
    sidecar = EngineSidecar(
        target="cpu",
        stage=spec.name,
        builder="foveal",
        precision_asked="fp32",
        precision_obtained="fp32",
        graph_sha256="",
        cache_widths=cache_widths(spec) if is_old else tuple(cache.width for cache in spec.caches),
        batch_one_chunks=one_chunks,
    )
    try:
        return OnnxRuntimeEngine(spec, graph, sidecar, threads=1, optimised=False)
    except EngineMismatchError as error:
        raise ExportError(f'the graph of stage "{spec.name}" can\'t be loaded: {error}') from error


def _fixed(stage: Stage, probe: Probe, what: str) -> ExportError:
    line = decision_on_sizes(lambda: trace(stage))
    why = (
        f"; the module makes a number or a choice of a size{_at(line)}, which the graph can only do as it was traced: "
        "let torch operations work on whole tensors instead (docs/your-own-model.md)"
        if line
        else "; let torch operations on whole tensors do all that depends on sizes (docs/your-own-model.md)"
    )
    start = f'stage "{stage.spec.name}" could not be exported for all sizes: run for {_described(probe)}, its graph'
    return ExportError(f"{start} {what}{why}")


def _at(line: Line | None) -> str:
    return f", at {line}" if line else ""
