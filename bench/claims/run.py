"""Measure any of the claims in one go."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...models import SHIPPED, SHIPPED_TEXT
from ...progress import Progress, silent
from ..environment import Environment, read_environment, usable_cpus
from .firing import measure_firing
from .memory import measure_memory
from .order import measure_order
from .rare_words import measure_rare_words
from .result import CLAIMS_SCHEMA_VERSION, ClaimsResult
from .settings import Claim, Settings, chosen_claims
from .speed import measure_speed
from .workshop import Workshop

_BUSY = 0.5  # processes that want to run, besides this one


def measure_claims(
    names: Sequence[str],
    directory: Path,
    *,
    settings: Settings | None = None,
    checkpoints: Mapping[str, Path] = SHIPPED,
    texts: Sequence[Path] = (),
    threads: int | None = None,
    command: str = "",
    environment: Environment | None = None,
    on_progress: Progress | None = None,
) -> ClaimsResult:
    """Measure claims.

    Args:
        names: of `CLAIMS`; none: all.
        directory: where bundles are put that are made on the way.
        settings: sizes and lengths; None: the article's.
        checkpoints: trained ones by name, of one tokenizer, one of them vanilla.
        texts: what trained models are measured on; none: the text that comes with foveal.
        threads: of all engines; None: all CPUs.
        command: what the user typed, for the record.
        environment: the machine before anything ran; None: as it is now.
        on_progress: called before each part.

    Raises:
        ConfigError: an unknown claim, or as the claims say.
    """
    chosen, sizes, report = chosen_claims(names), settings or Settings(), on_progress or silent
    count, given = usable_cpus() if threads is None else threads, list(texts) or [SHIPPED_TEXT["evaluation"]]
    machine, workshop = environment or read_environment(), Workshop(directory, report, sizes.calibration_tokens)
    measures: dict[Claim, Callable[[], Any]] = {
        "speed": lambda: measure_speed(workshop, sizes, count, report),
        "memory": lambda: measure_memory(workshop, sizes, count, report),
        "firing": lambda: measure_firing(workshop, sizes, count, report),
        "rare-words": lambda: measure_rare_words(workshop, sizes, checkpoints, given, count, report),
        "order": lambda: measure_order(workshop, sizes, checkpoints, given, count, report),
    }
    found: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for claim in chosen:
        began = time.perf_counter()
        found[claim.replace("-", "_")] = measures[claim]()
        seconds[claim] = time.perf_counter() - began
    return ClaimsResult(
        schema_version=CLAIMS_SCHEMA_VERSION,
        command=command,
        environment=machine,
        quick=sizes.is_quick,
        threads=count,
        seconds=seconds,
        problems=_problems(sizes, machine),
        **found,
    )


def first_bundle(
    names: Sequence[str],
    directory: Path,
    settings: Settings | None = None,
    on_progress: Progress | None = None,
    checkpoints: Mapping[str, Path] = SHIPPED,
) -> Path:
    """A bundle that measuring these claims needs anyhow: to find out with how many threads all of them decode."""
    chosen, sizes, workshop = chosen_claims(names), settings or Settings(), Workshop(directory, on_progress or silent)
    if chosen[0] == "memory":
        return workshop.random(sizes.weighed, sizes.baselines[-1])
    if chosen[0] in ("speed", "firing"):
        return workshop.random(sizes.timed, sizes.deep[-1])
    return workshop.trained(*next(iter(checkpoints.items())))


def _problems(settings: Settings, environment: Environment) -> list[str]:
    problems = []
    if settings.is_quick:
        problems.append("--quick: these sizes show that the commands work, and nothing else")
    load = environment.load_1min
    if load is not None and load > _BUSY:
        problems.append(f"the load average was {load:.1f} when it began: the machine was not quiet")
    return problems
