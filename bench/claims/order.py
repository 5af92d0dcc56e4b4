"""Claim 5: the order of tokens more than about 50 back does not matter. The shuffled-context probe on trained models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ...calibration.probe import WINDOWS, Probe, probe
from ...progress import Progress
from .result import OrderResult, Verdict
from .settings import Settings
from .verdicts import answer_of
from .workshop import Workshop


def measure_order(
    workshop: Workshop,
    settings: Settings,
    checkpoints: Mapping[str, Path],
    texts: Sequence[Path],
    threads: int,
    report: Progress,
) -> OrderResult:
    """Probe every checkpoint on the same windows with the same permutations.

    Raises:
        ConfigError: too little text, or a checkpoint whose context is shorter than the window.
    """
    bundles = [workshop.trained(name, path) for name, path in checkpoints.items()]
    limit = WINDOWS if settings.limit is None else settings.limit
    found = probe(bundles, texts, threads=threads, window=settings.window, limit=limit, on_progress=report)
    probes = [msgspec.structs.replace(one, bundle=name) for name, one in zip(checkpoints, found, strict=True)]
    return OrderResult(
        texts=[text.name for text in texts],
        distance=settings.distance,
        probes=probes,
        verdict=verdict_on_order(probes, settings.distance),
    )


def verdict_on_order(probes: Sequence[Probe], distance: int) -> Verdict:
    """It holds for a model if the rise stays below the threshold in all spans that lie beyond the distance."""
    held, parts = [], []
    for found in probes:
        beyond = [span for span in found.distances if span.first > distance]
        held.append(all(span.nats < found.threshold for span in beyond))
        settled = "nowhere" if found.settles_at is None else f"from {found.settles_at} tokens on"
        seen = [span for span in beyond if span.nats > span.half_width]
        rest = f"still above zero {seen[-1].first} to {seen[-1].last} tokens back" if seen else "none is seen further back"
        parts.append(f"{found.bundle}: below {found.threshold} nats {settled}, {rest}")
    return Verdict(
        answer=answer_of(held),
        sentence=f"What shuffling the tokens {distance} and more back costs: {'; '.join(parts)}.",
    )
