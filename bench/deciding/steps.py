"""What a step that fires a coarse stage takes against one that does not, over a real text: the figures of docs/performance.md.

python -m foveal.bench.deciding.steps BUNDLE --text TEXT.txt --picture OUT.svg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

import msgspec
from rich.console import Console
from rich.table import Table

from ...calibration.plotting import new_axes, require_picture, save
from ...contract import StageSpec
from ...forecast.firings import firings_of, is_coarse
from ...runtime.model import Model, load
from ...runtime.schedules import Schedule
from ..decode import DecodeSamples, Load, measure_round, measure_stages
from ..environment import Environment, read_environment
from ..script import run_script
from ..statistics import NS_PER_MS, Summary, summarise
from ..text import read_text
from .output import add_options, command_of, give

STEPS_SCHEMA_VERSION = 1
_BINS = 60


class StepKind(msgspec.Struct, frozen=True, kw_only=True):
    """Steps that fire the same coarse stages; of each step the median over rounds."""

    fires: list[str]
    steps: int
    ms: Summary


class StageShare(msgspec.Struct, frozen=True, kw_only=True):
    """A stage in these steps: how often it fired, how often it was expected to, and which share of all engine time it took."""

    name: str
    parameters: int
    fires: int
    expected: float
    ms_per_firing: float
    ms_per_token: float
    share: float


class StepsResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        ratio: the median step that fires any coarse stage over the median one that fires none; null where there is none of one
            kind. `ratio_by_round`: in each round.
        mean_ms: of a step of this text, and `expected_ms`: of one in a text that fires the finest coarse stage as often as
            its clock expects; null as the ratio is.
        step_ms, kind_of_step: of each step its median over rounds, and which of the kinds it is of.
    """

    schema_version: int
    command: str
    environment: Environment
    bundle: str
    hierarchy: str
    precision: str
    threads: int
    prompt_tokens: int
    new_tokens: int
    rounds: int
    tokens_per_s: float
    tokens_per_s_by_round: list[float]
    ratio: float | None
    ratio_by_round: list[float]
    mean_ms: float
    expected_ms: float | None
    kinds: list[StepKind]
    stages: list[StageShare]
    step_ms: list[float]
    kind_of_step: list[int]


def main() -> None:
    """Print tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="UTF-8, to decode")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=1024)
    parser.add_argument("--picture", type=Path, help="draw the histogram into this file")
    add_options(parser, rounds=5)
    given = parser.parse_args()
    if given.picture is not None:
        require_picture(given.picture)
    model = load(given.bundle, threads=given.threads, overlap=False)
    work = Load(given.prompt_tokens, given.new_tokens, given.rounds).reading(model, read_text(given.text))
    command = command_of("steps")
    result = measure(model, work, command)
    give(result, given, show, 120)
    if given.picture is not None:
        draw(given.picture, result)


def measure(model: Model, work: Load, command: str = "") -> StepsResult:
    """Decode a text in rounds, after one that warms up; then once more with every engine call timed.

    Raises:
        CapacityError: it does not fit the model's context.
    """
    work.require_room(model)
    environment, samples = read_environment(), DecodeSamples()
    with model.session(capacity=work.prompt_tokens + work.new_tokens) as session:
        for number in range(work.rounds + 1):
            measure_round(session, work, samples if number else None)
        stage_ns = measure_stages(session, work)
        fired = fired_by_step(session.specs, session.schedule, work)
    by_round = [samples.itl_ns[start : start + work.new_tokens] for start in range(0, len(samples.itl_ns), work.new_tokens)]
    step_ms = [median(step) / NS_PER_MS for step in zip(*by_round, strict=True)]
    sets = sorted(set(fired), key=lambda names: (len(names), names))
    ratios = [ratio_of(times, fired) for times in by_round]
    return StepsResult(
        schema_version=STEPS_SCHEMA_VERSION,
        command=command,
        environment=environment,
        bundle=model.bundle.name,
        hierarchy=model.manifest.model.hierarchy,
        precision=model.manifest.precision,
        threads=model.threads,
        prompt_tokens=work.prompt_tokens,
        new_tokens=work.new_tokens,
        rounds=work.rounds,
        tokens_per_s=median(samples.round_tokens_per_s),
        tokens_per_s_by_round=samples.round_tokens_per_s,
        ratio=ratio_of(step_ms, fired),
        ratio_by_round=[ratio for ratio in ratios if ratio is not None],
        mean_ms=fmean(step_ms),
        expected_ms=expected_ms(step_ms, fired, model.specs),
        kinds=[_kind(names, step_ms, fired) for names in sets],
        stages=shares_of(model.specs, stage_ns, work.new_tokens),
        step_ms=step_ms,
        kind_of_step=[sets.index(names) for names in fired],
    )


def fired_by_step(specs: Sequence[StageSpec], schedule: Schedule, work: Load) -> list[tuple[str, ...]]:
    """The coarse stages that each token behind the prompt fired, in dataflow order."""
    each = {spec.name: firings_of(spec, schedule) for spec in specs if is_coarse(spec)}
    tokens = range(work.prompt_tokens, work.prompt_tokens + work.new_tokens)
    return [tuple(name for name, firings in each.items() if any(firings.among(token, 1))) for token in tokens]


def ratio_of(times: Sequence[float], fired: Sequence[tuple[str, ...]]) -> float | None:
    """Of the medians of steps that fire something and of those that fire nothing; None where there is none of one kind."""
    firing = [time for time, names in zip(times, fired, strict=True) if names]
    other = [time for time, names in zip(times, fired, strict=True) if not names]
    return median(firing) / median(other) if firing and other else None


def expected_ms(step_ms: Sequence[float], fired: Sequence[tuple[str, ...]], specs: Sequence[StageSpec]) -> float | None:
    """The mean step if steps that fire something came at the rate that is expected; None where one kind was not seen."""
    firing = [ms for ms, names in zip(step_ms, fired, strict=True) if names]
    other = [ms for ms, names in zip(step_ms, fired, strict=True) if not names]
    if not firing or not other:
        return None
    share = 1 / min(spec.tokens_per_firing for spec in specs if is_coarse(spec))
    return fmean(firing) * share + fmean(other) * (1 - share)


def shares_of(specs: Sequence[StageSpec], stage_ns: dict[str, list[int]], tokens: int) -> list[StageShare]:
    """Of each stage, by the nanoseconds of its engine calls."""
    total = sum(sum(ns) for ns in stage_ns.values())
    found = []
    for spec in specs:
        ns = stage_ns[spec.name]
        found.append(
            StageShare(
                name=spec.name,
                parameters=spec.parameters,
                fires=len(ns),
                expected=tokens / spec.tokens_per_firing,
                ms_per_firing=median(ns) / NS_PER_MS if ns else 0.0,
                ms_per_token=sum(ns) / NS_PER_MS / tokens,
                share=sum(ns) / total,
            )
        )
    return found


def _kind(names: tuple[str, ...], step_ms: Sequence[float], fired: Sequence[tuple[str, ...]]) -> StepKind:
    of_it = [ms for ms, found in zip(step_ms, fired, strict=True) if found == names]
    return StepKind(fires=list(names), steps=len(of_it), ms=summarise(of_it, "ms"))


def draw(out: Path, result: StepsResult) -> None:
    """Write the histogram of steps, by what they fire; the same bytes for the same result.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        ConfigError: a suffix that names no format.
    """
    require_picture(out)
    figure, axes = new_axes()
    kinds = range(len(result.kinds))
    times = [[ms for ms, of in zip(result.step_ms, result.kind_of_step, strict=True) if of == kind] for kind in kinds]
    ordered = sorted(result.step_ms)
    last = ordered[int(0.995 * (len(ordered) - 1))]
    edges = [last * edge / _BINS for edge in range(_BINS + 1)]
    labels = [name_of(kind) for kind in result.kinds]
    axes.hist([[min(ms, last) for ms in of_kind] for of_kind in times], bins=edges, stacked=True, label=labels)
    axes.set(xlabel="step, ms", ylabel=f"of {result.new_tokens:,} steps", title=f"{result.bundle}, {result.precision}")
    axes.legend(frameon=False)
    save(figure, out)


def name_of(kind: StepKind) -> str:
    """What its steps fire, for people."""
    return f"fires {', '.join(kind.fires)}" if kind.fires else "fires no coarse stage"


def show(result: StepsResult, console: Console) -> None:
    """Print the kinds of steps, and the stages."""
    environment = result.environment
    load_1min = "" if environment.load_1min is None else f", load {environment.load_1min:.1f}"
    console.print(
        f"{result.bundle}, {result.hierarchy}, {result.precision}; {environment.cpu}, threads: {result.threads}, "
        f"{environment.created_utc}{load_1min}: {result.new_tokens} tokens of text behind {result.prompt_tokens}, "
        f"{result.rounds} rounds",
        markup=False,
    )
    table = Table("steps", "of all", "p50, ms", "p90", "p99", box=None)
    for kind in result.kinds:
        cells = ("-" if ms is None else f"{ms:.2f}" for ms in (kind.ms.p50, kind.ms.p90, kind.ms.p99))
        table.add_row(name_of(kind), f"{kind.steps / result.new_tokens:.1%}", *cells)
    console.print(table)
    stages = Table("stage", "parameters, M", "firings", "expected", "ms per firing", "ms per token", "share", box=None)
    for stage in result.stages:
        ms = (f"{stage.ms_per_firing:.3f}", f"{stage.ms_per_token:.3f}", f"{stage.share:.0%}")
        stages.add_row(stage.name, f"{stage.parameters / 1e6:.1f}", str(stage.fires), f"{stage.expected:.0f}", *ms)
    console.print(stages)
    if result.ratio is not None and result.expected_ms is not None:
        rounds = f"{min(result.ratio_by_round):.2f} to {max(result.ratio_by_round):.2f} in rounds"
        console.print(f"a step that fires takes {result.ratio:.2f} times one that does not ({rounds})")
        console.print(f"mean step {result.mean_ms:.2f} ms; at the expected rate {result.expected_ms:.2f} ms")
    console.print(f"{result.tokens_per_s:,.0f} tokens/s")


if __name__ == "__main__":
    run_script(main)
