"""Decode at every combination of contexts, batches and threads, in rounds that alternate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from ..errors import ConfigError
from ..progress import Progress
from ..runtime.batches.phases import Policy
from ..runtime.model import Model, load
from .bandwidth import MemoryReader
from .batch_rounds import BatchLoad, open_rounds
from .decode import DecodeSamples, Load, measure_round
from .device import read_device
from .environment import read_environment
from .names import require_different_names
from .ratio import paired_ratio
from .statistics import NS_PER_MS, QUIET_SPREAD, spread_of, summarise
from .sweep_result import SWEEP_SCHEMA_VERSION, SweepPoint, SweepResult


@dataclass(frozen=True)
class Axes:
    """What is varied; every combination is a point.

    Attributes:
        contexts: tokens of the prompt behind which is decoded.
        batches: sequences that decode together.
        threads: of CPU engines; None: as many as decode the first bundle fastest.
        policy: of batches.

    Raises:
        ConfigError: an axis without values, with one twice, or one below 1.
    """

    contexts: Sequence[int]
    batches: Sequence[int] = (1,)
    threads: Sequence[int | None] = (None,)
    policy: Policy = "staggered"

    def __post_init__(self) -> None:
        for name in ("contexts", "batches", "threads"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values) or any(value is not None and value < 1 for value in values):
                raise ConfigError(f"{name} are {list(values)}, expected different numbers of at least 1")


@dataclass
class _Point:
    """One combination, opened: what runs a round of it, and what that measured."""

    model: Model
    batch: int
    context: int
    run: Callable[[bool], None]
    rates: list[float]
    itl_ns: list[int]

    def result(self, first: Sequence[float]) -> SweepPoint:
        """Its figures, against the first point's rates."""
        info = self.model.manifest.model
        return SweepPoint(
            bundle=self.model.bundle.name,
            hierarchy=info.hierarchy,
            precision=self.model.manifest.precision,
            threads=self.model.threads,
            batch=self.batch,
            context=self.context,
            tokens_per_s=median(self.rates),
            tokens_per_s_by_round=self.rates,
            itl_ms=summarise([ns / NS_PER_MS for ns in self.itl_ns], "ms"),
            ratio=paired_ratio(self.rates, first),
        )


def sweep(
    bundles: Sequence[str | Path],
    axes: Axes,
    *,
    new_tokens: int = 64,
    rounds: int = 4,
    target: str = "cpu",
    provider: str | None = None,
    native: bool | None = None,
    command: str = "",
    on_progress: Progress | None = None,
) -> SweepResult:
    """Measure all points, the first round of each uncounted.

    Args:
        bundles: bundle directories.
        axes: what is varied.
        new_tokens: to decode in each round, of each sequence.
        rounds: that count.
        target, provider, native: as `load` takes them.
        command: what the user typed, for the record.
        on_progress: called before each round of a point.

    Raises:
        BundleError, ConfigError, BackendUnavailable: as `load`; ConfigError for two bundles of one name.
        CapacityError: a context, or what a batch needs beyond it, that does not fit a model; before anything is measured.
        EngineMismatchError: engines that were built before sequences of a batch had positions of their own.
    """
    require_different_names(bundles)
    environment = read_environment()
    models = _models(bundles, axes.threads, target, provider, native)
    works = [Load(context, new_tokens, rounds) for context in axes.contexts]
    for model, work, batch in itertools.product(models, works, axes.batches):
        work.require_room(model)
        if batch > 1:
            BatchLoad(batch, (axes.policy,)).require_room(model, work)
    points = [_open(*point, axes.policy) for point in itertools.product(models, works, axes.batches)]
    bandwidths = []
    with MemoryReader() as memory:
        for number, (index, point) in itertools.product(range(rounds + 1), enumerate(points)):
            if on_progress is not None:
                on_progress(
                    f"round {number}" if number else "warm-up", number * len(points) + index, (rounds + 1) * len(points)
                )
            point.run(not number)
            if index == 0:
                bandwidths.append(memory.gb_s())
    found = [point.result(points[0].rates) for point in points]
    return SweepResult(
        schema_version=SWEEP_SCHEMA_VERSION,
        command=command,
        environment=msgspec.structs.replace(environment, memory_bandwidth_gb_s=median(bandwidths), device_after=read_device()),
        new_tokens=new_tokens,
        rounds=rounds,
        problems=_noise(found),
        points=found,
    )


def _models(
    bundles: Sequence[str | Path],
    threads: Sequence[int | None],
    target: str,
    provider: str | None,
    native: bool | None,
) -> list[Model]:
    """Each bundle with each number of threads; where none is given, all with the first one's."""
    found: list[Model] = []
    for path, count in itertools.product(bundles, threads):
        chosen = found[0].threads if count is None and found and target == "cpu" else count
        found.append(load(path, target, chosen, provider, native=native))
    return found


def _open(model: Model, work: Load, batch: int, policy: Policy) -> _Point:
    if batch == 1:
        session, kept = model.session(capacity=work.prompt_tokens + work.new_tokens), DecodeSamples()

        def run(is_warm_up: bool) -> None:
            measure_round(session, work, None if is_warm_up else kept)

        return _Point(model, batch, work.prompt_tokens, run, kept.round_tokens_per_s, kept.itl_ns)
    rounds = open_rounds(model, work, batch, policy)
    return _Point(model, batch, work.prompt_tokens, rounds.run, rounds.samples.round_tokens_per_s, rounds.samples.itl_ns)


def _noise(points: Sequence[SweepPoint]) -> list[str]:
    spreads = [(point.label, spread_of(point.tokens_per_s_by_round)) for point in points]
    return [
        f"{label}: rounds differ by {spread:.0%}; the machine was not quiet"
        for label, spread in spreads
        if spread > QUIET_SPREAD
    ]
