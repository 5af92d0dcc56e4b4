"""Texts with drafts and without, in turn: how much sooner they are there, and whether they are the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from ...errors import ConfigError
from ...progress import Progress, silent
from ...runtime.generation.generate import GeneratedText
from ...runtime.model import Model
from ..environment import Environment, read_environment
from ..text import read_text

SPECULATION_SCHEMA_VERSION = 1
PROMPTS = Path(__file__).parent / "prompts"


class DraftsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Of the prompts of one kind, drawn with the same settings, with one kind of drafts and without.

    Attributes:
        kind: of the prompts, as their files are called before the number.
        tokens: of all texts of a round.
        plain_tokens_per_s, drafted_tokens_per_s: behind the prompts, medians of rounds.
        gain: of tokens per second with drafts over without, the median of rounds; `gain_by_round` each.
        acceptance: share of checked tokens that came; null if none was checked. `tokens_per_call`: of the model.
        differing: texts that differ from the one without drafts, of all prompts and rounds. None does, but where kernels round
            otherwise for several rows (docs/speculation.md).
    """

    kind: str
    temperature: float
    draft: str
    texts: int
    tokens: int
    plain_tokens_per_s: float
    drafted_tokens_per_s: float
    gain: float
    gain_by_round: list[float]
    acceptance: float | None
    tokens_per_call: float
    differing: int


class SpeculationResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    schema_version: int
    command: str
    environment: Environment
    bundle: str
    hierarchy: str
    precision: str
    threads: int
    new_tokens: int
    rounds: int
    drafts: list[DraftsResult]


class _Run(msgspec.Struct, frozen=True):
    """One text: its ids, and the seconds behind the prompt."""

    ids: list[int]
    seconds: float
    calls: int
    drafted: int
    accepted: int


def prompts_of(folder: Path) -> dict[str, list[str]]:
    """By kind, the texts of the folder's files `KIND-NUMBER.txt`.

    Raises:
        ConfigError: there are none, or one is not UTF-8.
    """
    files = sorted(folder.glob("*-*.txt"))
    if not files:
        raise ConfigError(f"{folder} has no prompts; expected files such as abc-1.txt: a kind, a number, and text in UTF-8")
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(file.stem.rpartition("-")[0], []).append(read_text(file))
    return found


def measure(
    model: Model,
    prompts: dict[str, list[str]],
    drafts: Sequence[Any],
    temperatures: Sequence[float],
    new_tokens: int,
    rounds: int,
    command: str = "",
    on_progress: Progress = silent,
) -> SpeculationResult:
    """Draw every text once to warm up, then in rounds: without drafts and with each kind of them, in turn.

    Args:
        model: that draws.
        prompts: by kind; of one that takes more than half the context, as many tokens as half of it.
        drafts: as `Model.generate` takes them.
        temperatures: to draw at; 0 is greedy.
        new_tokens: the most of a text: it ends where the context does.
        rounds: to take medians of.
        command: to name in the result.
        on_progress: told of every kind and temperature.
    """
    found = []
    cases = [(kind, temperature) for kind in prompts for temperature in temperatures]
    for done, (kind, temperature) in enumerate(cases):
        on_progress(f"{kind}, temperature {temperature:g}", done, len(cases))
        ids = [model.prompt_ids(text)[: model.manifest.model.context // 2] for text in prompts[kind]]
        found += _measure_kind(model, kind, ids, drafts, temperature, new_tokens, rounds)
    return SpeculationResult(
        schema_version=SPECULATION_SCHEMA_VERSION,
        command=command,
        environment=read_environment(),
        bundle=str(model.bundle.path),
        hierarchy=model.manifest.model.hierarchy,
        precision=model.manifest.precision,
        threads=model.threads,
        new_tokens=new_tokens,
        rounds=rounds,
        drafts=found,
    )


def _measure_kind(
    model: Model,
    kind: str,
    prompts: Sequence[list[int]],
    drafts: Sequence[Any],
    temperature: float,
    new_tokens: int,
    rounds: int,
) -> list[DraftsResult]:
    ways = [None, *drafts]
    taken: list[list[list[_Run]]] = [[] for _ in ways]
    for index in range(rounds + 1):
        for way, runs in zip(ways, taken, strict=True):
            runs.append([_draw(model, prompt, way, temperature, new_tokens, seed) for seed, prompt in enumerate(prompts)])
        if not index:
            for runs in taken:
                runs.clear()
    return [_compared(kind, temperature, str(draft), taken[0], runs) for draft, runs in zip(drafts, taken[1:], strict=True)]


def _draw(model: Model, prompt: list[int], draft: Any, temperature: float, new_tokens: int, seed: int) -> _Run:
    going: GeneratedText = model.generate(prompt, temperature=temperature, seed=seed, max_new_tokens=new_tokens, draft=draft)
    began = time.perf_counter()
    for _ in going:
        pass
    seconds, outcome = time.perf_counter() - began, going.speculation
    if outcome is None:
        return _Run(going.ids, seconds, max(len(going.ids) - 1, 1), 0, 0)
    return _Run(going.ids, seconds, outcome.calls, outcome.drafted, outcome.accepted)


def _compared(kind: str, temperature: float, draft: str, plain: list[list[_Run]], drafted: list[list[_Run]]) -> DraftsResult:
    gains = [_rate(ours) / _rate(theirs) for ours, theirs in zip(drafted, plain, strict=True)]
    all_drafted = [run for runs in drafted for run in runs]
    checked, accepted, calls = (sum(getattr(run, name) for run in all_drafted) for name in ("drafted", "accepted", "calls"))
    return DraftsResult(
        kind=kind,
        temperature=temperature,
        draft=draft,
        texts=len(plain[0]),
        tokens=sum(len(run.ids) for run in plain[0]),
        plain_tokens_per_s=median(map(_rate, plain)),
        drafted_tokens_per_s=median(map(_rate, drafted)),
        gain=median(gains),
        gain_by_round=gains,
        acceptance=accepted / checked if checked else None,
        tokens_per_call=(calls + accepted) / calls if calls else 1.0,
        differing=sum(
            ours.ids != theirs.ids
            for runs, of_plain in zip(drafted, plain, strict=True)
            for ours, theirs in zip(runs, of_plain, strict=True)
        ),
    )


def _rate(runs: Sequence[_Run]) -> float:
    return sum(len(run.ids) for run in runs) / sum(run.seconds for run in runs)
