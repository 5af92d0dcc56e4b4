"""Claim 2: 30 layers in 23 % less memory than 12 to 14 vanilla ones.

Memory of what? The article does not say, so each part is compared: weights, state, working memory, the peak of a process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...bundle import Bundle, open_bundle
from ...progress import Progress
from .footprint import footprint
from .process import METHOD, measure_process
from .result import MemoryCase, MemoryResult, Verdict
from .settings import Case, Settings
from .verdicts import answer_of
from .workshop import Workshop

SMALLER = 0.23
PARTS: dict[str, Callable[[MemoryCase], int | None]] = {
    "weights": lambda case: case.weights,
    "state": lambda case: case.state,
    "weights and state": lambda case: case.weights + case.state,
    "working memory": lambda case: case.working,
    "peak": lambda case: case.peak,
}


def measure_memory(workshop: Workshop, settings: Settings, threads: int, report: Progress) -> MemoryResult:
    """Weights and state by arithmetic, the rest in a process for each model and length."""
    cases, missing = [], []
    models = (*settings.deepest, *settings.baselines)
    steps, done = len(models) * len(settings.lengths), 0
    for case in models:
        bundle = open_bundle(workshop.random(settings.weighed, case))
        for tokens in settings.lengths:
            report(f"{case.name}: {tokens} tokens", done, steps)
            done += 1
            found, reason = _measure(bundle, case, tokens, threads, settings.chunk)
            cases.append(found)
            if reason is not None:
                missing.append(f"{case.name}, {tokens} tokens: no peak ({reason})")
    names = [case.name for case in settings.baselines]
    return MemoryResult(
        baselines=names,
        chunk=settings.chunk,
        method=METHOD,
        cases=cases,
        missing=missing,
        verdict=verdict_on_memory(cases, names),
    )


def _measure(bundle: Bundle, case: Case, tokens: int, threads: int, chunk: int) -> tuple[MemoryCase, str | None]:
    taken = footprint(bundle, "cpu", tokens)
    process, reason = measure_process(bundle.path, "cpu", threads, tokens, chunk)
    found = MemoryCase(
        model=case.name,
        layers=sum(entry.spec.layers for entry in bundle.manifest.stages),
        layer_equivalents=bundle.manifest.model.layer_equivalents,
        tokens=tokens,
        weights=taken.weights,
        tables=taken.tables,
        caches=taken.caches,
        rows=taken.rows,
        working=None if process is None else process.peak - process.loaded - taken.caches - taken.rows,
        loaded=None if process is None else process.loaded,
        peak=None if process is None else process.peak,
    )
    return found, reason


def change(case: MemoryCase, baseline: MemoryCase, part: str) -> float | None:
    """How much more a part takes than the baseline's, relative to it; None where one of them is not known, or nothing."""
    mine, theirs = PARTS[part](case), PARTS[part](baseline)
    return None if mine is None or theirs is None or theirs <= 0 else mine / theirs - 1


def baseline_of(cases: Sequence[MemoryCase], name: str, tokens: int) -> MemoryCase:
    """The vanilla model of this name at this length."""
    return next(case for case in cases if (case.model, case.tokens) == (name, tokens))


def verdict_on_memory(cases: Sequence[MemoryCase], baselines: Sequence[str]) -> Verdict:
    """It holds for a part of a model at a length if that is smaller by 23 % than the part of every baseline."""
    deep = [case for case in cases if case.model not in baselines]
    held: dict[tuple[str, str], list[int]] = {}
    answers = []
    for case in deep:
        for part in PARTS:
            changes = [change(case, baseline_of(cases, name, case.tokens), part) for name in baselines]
            known = [found for found in changes if found is not None]
            if not known:
                continue
            answers.append(max(known) <= -SMALLER)
            held.setdefault((case.model, part), []).extend([case.tokens] if answers[-1] else [])
    models = dict.fromkeys(model for model, _ in held)
    parts = "; ".join(f"{model}: {_parts_that_hold(held, model)}" for model in models)
    return Verdict(
        answer=answer_of(answers),
        sentence=f"{SMALLER:.0%} smaller than {' and than '.join(baselines)}: {parts}.",
    )


def _parts_that_hold(held: dict[tuple[str, str], list[int]], model: str) -> str:
    found = [
        f"{part} at {', '.join(f'{count:,}' for count in tokens)} tokens"
        for (name, part), tokens in held.items()
        if name == model and tokens
    ]
    return "; ".join(found) if found else "nothing"
