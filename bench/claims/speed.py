"""Claim 1: 26 hierarchical layers decode 30 % faster than 14 vanilla ones.

All models, in all precisions, decode in the same rounds, in turn: whatever disturbs the machine disturbs all of them, and a
speedup is the median of the ratios within rounds. A session is filled once per past and taken back after every round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from ...forecast.traffic import Traffic, bytes_per_token
from ...progress import Progress
from ...runtime.model import Model, load
from ...runtime.session import Session
from ..decode import DecodeSamples, measure_steps
from ..statistics import NS_PER_MS, QUIET_SPREAD, percentile, spread_of
from .result import SpeedCase, SpeedResult, Verdict
from .settings import Case, Settings
from .verdicts import answer_of
from .workshop import Workshop

FASTER = 1.30


@dataclass(frozen=True)
class _Runner:
    """A model in the rounds, and its session."""

    case: Case
    precision: str
    model: Model
    session: Session


def measure_speed(workshop: Workshop, settings: Settings, threads: int, report: Progress) -> SpeedResult:
    """Decode behind pasts of several lengths, in rounds after one that is not counted."""
    runners = [
        _runner(workshop.random(settings.timed, case, precision), case, precision, threads)
        for precision in settings.precisions
        for case in (*settings.deep, settings.vanilla)
    ]
    cases: list[SpeedCase] = []
    steps, done = len(settings.contexts) * (settings.rounds + 1), 0
    for context in settings.contexts:
        samples = [DecodeSamples() for _ in runners]
        for runner in runners:
            report(f"a past of {context} tokens: {runner.case.name}", done, steps)
            fill(runner.session, context, settings.chunk)
        for number in range(settings.rounds + 1):
            report(f"a past of {context} tokens: round {number}", done, steps)
            done += 1
            for runner, kept in zip(runners, samples, strict=True):
                measure_steps(runner.session, _ids(1, 1), settings.new_tokens, kept if number else None)
                runner.session.rewind(settings.new_tokens)
        cases += _cases(runners, samples, context, settings)
    return SpeedResult(
        vanilla=settings.vanilla.name,
        new_tokens=settings.new_tokens,
        rounds=settings.rounds,
        cases=cases,
        noise=noise_in(cases),
        verdict=verdict_on_speed(cases),
    )


def fill(session: Session, tokens: int, chunk: int) -> None:
    """Append random tokens, `chunk` at a time, until the session holds so many."""
    ids = _ids(tokens - session.position, session.model.vocab_size)
    for start in range(0, ids.shape[1], chunk):
        session.advance(ids[:, start : start + chunk], last_only=True)


def _ids(tokens: int, vocab_size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, vocab_size, (1, tokens))


def _runner(bundle: Path, case: Case, precision: str, threads: int) -> _Runner:
    model = load(bundle, threads=threads)
    return _Runner(case, precision, model, model.session())


def _cases(runners: Sequence[_Runner], samples: Sequence[DecodeSamples], context: int, settings: Settings) -> list[SpeedCase]:
    """The figures of one past, each against the vanilla model of its precision."""
    read = [bytes_per_token(r.model.bundle, r.model.target, context, settings.new_tokens) for r in runners]
    vanilla = {r.precision: place for place, r in enumerate(runners) if r.case == settings.vanilla}
    cases = []
    for place, runner in enumerate(runners):
        base = vanilla[runner.precision]
        against = None if base == place else (runners[base].model, samples[base], read[base])
        cases.append(_case(runner, samples[place], read[place], against, context))
    return cases


def _case(
    runner: _Runner,
    samples: DecodeSamples,
    read: Traffic,
    against: tuple[Model, DecodeSamples, Traffic] | None,
    context: int,
) -> SpeedCase:
    equivalents = runner.model.manifest.model.layer_equivalents
    rounds, ratios, by_layers, by_bytes = samples.round_tokens_per_s, [], None, None
    if against is not None:
        vanilla, other, vanilla_read = against
        ratios = [mine / theirs for mine, theirs in zip(rounds, other.round_tokens_per_s, strict=True)]
        by_layers = vanilla.manifest.model.layer_equivalents / equivalents
        by_bytes = vanilla_read.total / read.total
    return SpeedCase(
        model=runner.case.name,
        precision=runner.precision,
        context=context,
        layers=sum(entry.spec.layers for entry in runner.model.manifest.stages),
        layer_equivalents=equivalents,
        weight_bytes_per_token=read.weights,
        cache_bytes_per_token=read.caches,
        tokens_per_s=median(rounds),
        tokens_per_s_by_round=rounds,
        ms_where_coarse_fires=_median_ms(samples.itl_ns, samples.fired, True),
        ms_where_none_does=_median_ms(samples.itl_ns, samples.fired, False),
        speedup=median(ratios) if ratios else None,
        speedup_by_round=ratios,
        by_layers=by_layers,
        by_bytes=by_bytes,
        threads=runner.model.threads,
        overlap=runner.model.overlap,
    )


def _median_ms(itl_ns: Sequence[int], fires: Sequence[bool], wanted: bool) -> float | None:
    return percentile(sorted(ns / NS_PER_MS for ns, fired in zip(itl_ns, fires, strict=True) if fired == wanted), 0.5)


def verdict_on_speed(cases: Sequence[SpeedCase]) -> Verdict:
    """It holds where the median of the rounds' ratios is 1.30 or more."""
    compared = [(case, case.speedup) for case in cases if case.speedup is not None]
    parts = []
    for model, precision in dict.fromkeys((case.model, case.precision) for case, _ in compared):
        own = [(case.context, speedup) for case, speedup in compared if (case.model, case.precision) == (model, precision)]
        reached = [f"{context:,}" for context, speedup in own if speedup >= FASTER]
        speedups = ", ".join(f"{speedup:.2f}" for _, speedup in own)
        pasts = f"at pasts of {', '.join(reached)} tokens" if reached else "at no length"
        parts.append(f"{model} in {precision} {pasts} ({speedups})")
    return Verdict(
        answer=answer_of([speedup >= FASTER for _, speedup in compared]),
        sentence=f"{FASTER:.2f} times the vanilla model or more: {'; '.join(parts)}.",
    )


def noise_in(cases: Sequence[SpeedCase]) -> list[str]:
    """What is wrong with figures whose rounds differ by more than a tenth; nothing if all are quiet."""
    spreads = sorted(spread_of(case.tokens_per_s_by_round) for case in cases)
    loud = sum(spread > QUIET_SPREAD for spread in spreads)
    if not loud:
        return []
    return [
        f"in {loud} of {len(cases)} rows the rounds differ by more than {QUIET_SPREAD:.0%}, half of all rows' by "
        f"{median(spreads):.0%} or more, at most by {spreads[-1]:.0%}"
    ]
