"""What calls take on a machine, by how many sequences they are for: what a forecast of a batch is made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from ..bundle import Bundle
from ..contract import StageSpec
from ..errors import ConfigError
from ..files import write_atomically
from ..json_files import decode
from ..progress import Progress
from ..runtime.model import Model
from ..runtime.session import Session
from .batch_rounds import BatchRounds, open_rounds
from .decode import Load
from .environment import Environment, read_environment

STAGE_TIMES_SCHEMA_VERSION = 1


class TimeCurve(msgspec.Struct, frozen=True):
    """Medians of nanoseconds by size; sizes grow.

    Raises:
        ValueError: no sizes, or not as many times, or any that is not above 0, or sizes that do not grow.
    """

    sizes: list[int]
    ns: list[float]

    def __post_init__(self) -> None:
        grows = all(below < above for below, above in zip([0, *self.sizes], self.sizes, strict=False))
        if not self.sizes or len(self.sizes) != len(self.ns) or not grows or not all(ns > 0 for ns in self.ns):
            raise ValueError(f"sizes that grow from 1 and a time above 0 for each, got {self.sizes} and {self.ns}")

    def at(self, size: int) -> float:
        """Nanoseconds of a size: on straight lines between those measured, and beyond the last on that through the last two."""
        sizes, ns = self.sizes, self.ns
        if size > sizes[-1] and len(sizes) > 1:
            slope = max((ns[-1] - ns[-2]) / (sizes[-1] - sizes[-2]), 0.0)
            return ns[-1] + slope * (size - sizes[-1])
        return float(np.interp(size, sizes, ns))


class StageTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one bundle on one machine, in steps that decode the tokens behind a prompt; `graphs` tells its stages apart.

    `stages`: of each stage's engine call, by the sequences that it runs for; `prefill`: by its firings in a chunk of a prompt;
    `host`: of all that is around a call.
    """

    schema_version: int
    bundle: str
    graphs: str
    environment: Environment
    threads: int
    prompt_tokens: int
    new_tokens: int
    stages: dict[str, TimeCurve]
    prefill: dict[str, TimeCurve]
    host: TimeCurve

    @property
    def largest(self) -> int:
        """Sequences of the largest call that was measured of every stage."""
        return min(curve.sizes[-1] for curve in self.stages.values())

    def call_ns(self, stage: str, slots: int) -> float:
        """An engine call for so many sequences, and what the host does around it."""
        return self.stages[stage].at(slots) + self.host.at(slots)

    def chunk_ns(self, stage: str, firings: int) -> float:
        """An engine call for so many firings of one sequence, and what the host does around it."""
        return self.prefill[stage].at(firings) + self.host.at(1)


def measure_stage_times(model: Model, work: Load, up_to: int, on_progress: Progress | None = None) -> StageTimes:
    """Decode with 1, 2, 4, ... and `up_to` sequences in step, and read prompts in chunks of as many sizes; rounds of all
    alternate, and one more warms up.

    Raises:
        ConfigError: less than 2 sequences: a straight line takes two points.
        CapacityError, EngineMismatchError: as `Batch`.
    """
    require_line(up_to)
    environment = read_environment()
    sizes, chunks = _doubled(up_to), _doubled(work.prompt_tokens)
    batches = [open_rounds(model, work, size, "aligned") for size in sizes]
    session = model.session(capacity=work.prompt_tokens)
    by_firings: dict[str, dict[int, list[int]]] = {name: defaultdict(list) for name in session.fires}
    for number in range(work.rounds + 1):
        for size, rounds in zip(sizes, batches, strict=True):
            if on_progress is not None:
                on_progress(f"{size} sequences", number * len(sizes) + sizes.index(size), (work.rounds + 1) * len(sizes))
            rounds.run(is_warm_up=number == 0, watched=True)
        for chunk in chunks:
            for name, firings, ns in _calls_of_chunk(session, chunk, work):
                if number:
                    by_firings[name][firings].append(ns)
    _require_fired(model.specs, by_firings, "prompt")
    return StageTimes(
        schema_version=STAGE_TIMES_SCHEMA_VERSION,
        bundle=model.bundle.name,
        graphs=model.bundle.graph_identity,
        environment=environment,
        threads=model.threads,
        prompt_tokens=work.prompt_tokens,
        new_tokens=work.new_tokens,
        stages=_stage_curves(model.specs, batches),
        prefill={name: _curve(by_size) for name, by_size in by_firings.items()},
        host=_curve({size: _host_ns(rounds) for size, rounds in zip(sizes, batches, strict=True)}),
    )


def require_line(up_to: int) -> None:
    """Raise a ConfigError where times of 1 to `up_to` sequences are too few for a straight line."""
    if up_to < 2:
        raise ConfigError(f"times are measured for 1 to {up_to} sequences, expected at least 2; give a larger number")


def _doubled(most: int) -> list[int]:
    """1, 2, 4, ... and the most."""
    return sorted({most, *(1 << power for power in range(most.bit_length()) if 1 << power <= most)})


def _calls_of_chunk(session: Session, chunk: int, work: Load) -> list[tuple[str, int, int]]:
    """A prompt in chunks of one size: of every engine call the stage, its firings and the nanoseconds it took."""
    ids = work.sequences(1, session.model.vocab_size)[:, : work.prompt_tokens]
    calls: list[tuple[str, int, int]] = []
    session.reset()
    session.observer = lambda stage, firings, ns: calls.append((stage.name, firings, ns))
    for begin in range(0, work.prompt_tokens, chunk):
        session.advance(ids[:, begin : begin + chunk], last_only=True)
    session.observer = None
    return calls


def _stage_curves(stages: Sequence[StageSpec], batches: Sequence[BatchRounds]) -> dict[str, TimeCurve]:
    by_stage: dict[str, dict[int, list[int]]] = {stage.name: defaultdict(list) for stage in stages}
    for rounds in batches:
        for calls in rounds.samples.calls:
            for name, slots, ns in calls:
                by_stage[name][slots].append(ns)
    _require_fired(stages, by_stage, "new")
    return {name: _curve(by_size) for name, by_size in by_stage.items()}


def _require_fired(stages: Sequence[StageSpec], by_stage: Mapping[str, object], tokens: str) -> None:
    for stage in stages:
        if not by_stage[stage.name]:
            often = f"every {stage.stride}" if stage.clock is None else f"one in {stage.tokens_per_firing:g}"
            text = "" if stage.clock is None else ", or a text that has it fire"
            raise ConfigError(
                f'stage "{stage.name}" fires {often} tokens, and did not; take as many {tokens} tokens at least{text}'
            )


def _host_ns(rounds: BatchRounds) -> list[float]:
    """Of each step, per engine call of it."""
    each = zip(rounds.samples.itl_ns, rounds.samples.calls, strict=True)
    return [(step_ns - sum(ns for _, _, ns in calls)) / len(calls) for step_ns, calls in each]


def _curve(by_size: dict[int, list[int]] | dict[int, list[float]]) -> TimeCurve:
    sizes = sorted(by_size)
    return TimeCurve(sizes, [float(median(by_size[size])) for size in sizes])


def save_stage_times(path: Path, times: StageTimes) -> None:
    """Write them for a forecast on another machine.

    Raises:
        StorageError: the place can't be written to.
    """
    write_atomically(path, msgspec.json.format(msgspec.json.encode(times), indent=1) + b"\n")


def read_stage_times(path: Path, bundle: Bundle) -> StageTimes:
    """What `save_stage_times` wrote, for the same stage graphs.

    Raises:
        ConfigError: no such file, none of stage times, of another version, or of another model or precision.
    """
    try:
        times = decode(path.read_bytes(), StageTimes)
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read ({error.strerror}); write it with foveal plan batch BUNDLE --save-times"
        ) from error
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"{path} holds no stage times ({error}); write it with foveal plan batch BUNDLE --save-times"
        ) from error
    if times.schema_version != STAGE_TIMES_SCHEMA_VERSION:
        raise ConfigError(
            f"{path} holds stage times of version {times.schema_version}, expected {STAGE_TIMES_SCHEMA_VERSION}; measure them "
            "again with this foveal"
        )
    if times.graphs != bundle.graph_identity:
        raise ConfigError(
            f"{path} holds times of {times.bundle}, whose stage graphs are not those of {bundle.path}: "
            "another model, precision or context; measure times of this bundle"
        )
    names = {entry.spec.name for entry in bundle.manifest.stages}
    if {*times.stages} != names or {*times.prefill} != names:
        raise ConfigError(f"{path} lacks times of stages that {times.bundle} has; measure them again")
    return times
