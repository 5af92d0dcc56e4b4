"""Everything in order: environments, the model, conversions, logits, then the rounds in which all systems take turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...progress import Progress
from .agreement import check
from .conversion import prepared
from .environments import Unavailable, python_of, versions_of
from .hold import held
from .original import PROMPT, REFERENCE, STEPS, write_original
from .peers import System
from .process import Process, Timed
from .result import SystemResult, Work

FIRST_PROMPT = 16
"""Tokens of the prompt that a cold process reads: long enough to be one, too short to count."""


class Ready(NamedTuple):
    """A system that can be started."""

    system: System
    versions: dict[str, str]
    command: list[str]
    original: Path

    def start(self, work: Work, directory: Path) -> Process:
        """A process that loads it for so much work."""
        numbers = {"threads": work.threads, "sequences": work.sequences, "capacity": work.capacity}
        options = [text for name, number in numbers.items() for text in (f"--{name}", str(number))]
        return Process(self.system.name, [*self.command, *options], directory / "logs" / f"{self.system.name}.log")


class Samples(NamedTuple):
    """Of one system, by round."""

    rounds: list[Timed]
    first_token_s: list[float]


def get_ready(systems: Sequence[System], directory: Path, on_progress: Progress) -> tuple[list[Ready], dict[str, str]]:
    """Install, convert; and what can't be installed, with the reason.

    Raises:
        BuildError: a conversion fails.
    """
    ready: list[Ready] = []
    skipped: dict[str, str] = {}
    installed: dict[str, tuple[Path, dict[str, str]]] = {}
    for done, system in enumerate(systems):
        peer = system.peer
        on_progress(f"getting {system.name} ready", done, len(systems))
        try:
            if peer.name not in (*installed, *skipped):
                python = python_of(peer, directory)
                installed[peer.name] = python, versions_of(peer, python)
        except Unavailable as reason:
            skipped[peer.name] = str(reason)
        if peer.name in installed:
            python, versions = installed[peer.name]
            original = write_original(system.hierarchy, directory / "original")
            place = prepared(system, python, versions, original, directory)
            ready.append(Ready(system, versions, [str(python), str(peer.program), "serve", str(place)], original))
    return ready, skipped


def agree(ready: Sequence[Ready], directory: Path, threads: int, hold: str | None = None) -> list[float]:
    """Each system's difference of logits from PyTorch's.

    Raises:
        EquivalenceError: a system that runs another model.
        BuildError: one that fails.
    """
    work = Work(sequences=1, prompt_tokens=PROMPT, new_tokens=STEPS, threads=threads, rounds=0)
    with held(hold):
        return [_agreement(one, work, directory) for one in ready]


def _agreement(one: Ready, work: Work, directory: Path) -> float:
    with np.load(one.original / REFERENCE) as reference, one.start(work, directory) as process:
        process.wait_until_ready()
        logits = process.logits(reference["ids"], PROMPT)
        return check(one.system.name, one.system.kind, reference["logits"], logits)


def measure(ready: Sequence[Ready], work: Work, directory: Path, hold: str | None, on_progress: Progress) -> list[Samples]:
    """Rounds in which all take turns, each beginning with another system, after one that is not counted.

    A round of one sequence ends with a cold start of each. An interrupt ends the measurement with the rounds that are whole, if
    there are any.

    Raises:
        BuildError: a system fails.
    """
    samples = [Samples([], []) for _ in ready]
    with ExitStack() as loaded:
        processes = []
        with held(hold):
            for one in ready:
                processes.append(loaded.enter_context(one.start(work, directory)))
                processes[-1].wait_until_ready()
        try:
            for number in range(work.rounds + 1):
                on_progress("rounds, of which the first is not counted", number, work.rounds + 1)
                timed, cold = _round(ready, processes, in_turn(len(ready), number), work, directory, hold)
                if number:
                    for place, found in enumerate(samples):
                        found.rounds.append(timed[place])
                        found.first_token_s.extend([cold[place]] if cold else [])
        except KeyboardInterrupt:
            if not samples[0].rounds:
                raise
    return samples


def _round(
    ready: Sequence[Ready], processes: Sequence[Process], order: Sequence[int], work: Work, directory: Path, hold: str | None
) -> tuple[dict[int, Timed], dict[int, float]]:
    """By place: what the loaded processes take and, for one sequence, what new ones take to their first token."""
    prompts = prompts_of(work)
    with held(hold):
        timed = {place: processes[place].round(prompts, work.new_tokens) for place in order}
    if work.sequences > 1:
        return timed, {}
    with held(hold):
        return timed, {place: first_token(ready[place], work, directory) for place in order}


def in_turn(count: int, number: int) -> list[int]:
    """The order of a round: nobody is always the first, or always behind the same system's break."""
    return [(place + number) % count for place in range(count)]


def prompts_of(work: Work) -> npt.NDArray[np.int64]:
    """Random bytes `[B, L]`, the same for all."""
    return np.random.default_rng(0).integers(0, 256, (work.sequences, work.prompt_tokens))


def first_token(one: Ready, work: Work, directory: Path) -> float:
    """Seconds from the start of a process to its first token; files are in the page cache."""
    began = time.perf_counter()
    with one.start(work, directory / "cold") as process:
        process.wait_until_ready()
        process.round(prompts_of(work)[:, :FIRST_PROMPT], 0)
        return time.perf_counter() - began


def results_of(ready: Sequence[Ready], errors: Sequence[float], samples: Sequence[Samples]) -> list[SystemResult]:
    """All of it together."""
    return [
        SystemResult(
            name=one.system.name,
            peer=one.system.peer.name,
            hierarchy=one.system.hierarchy,
            precision=one.system.precision,
            kind=one.system.kind,
            versions=one.versions,
            logits_error=error,
            prefill_s=[timed.prefill_s for timed in found.rounds],
            step_s=[timed.step_s for timed in found.rounds],
            first_token_s=found.first_token_s,
        )
        for one, error, found in zip(ready, errors, samples, strict=True)
    ]
