"""Measure bundles, or take what was measured, and gather all that a report says of them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..bench.decode import Load
from ..bench.environment import read_environment
from ..bench.names import require_different_names
from ..bench.result import BenchResult
from ..bench.run import bench
from ..bench.text import read_text
from ..bundle import Bundle, check_target, open_bundle
from ..calibration.text import require_texts
from ..errors import ConfigError
from ..progress import Progress, silent
from .document import REPORT_SCHEMA_VERSION, Commands, Loss, MemoryFacts, ModelFacts, Report
from .facts.forecasts import forecasts_of
from .facts.latency import latency_facts
from .facts.losses import measure_losses, reference_of
from .facts.measured import read_measured
from .facts.memory import measure_working, memory_facts, needs_of
from .facts.models import model_facts
from .facts.ratios import ratios_of
from .facts.shares import time_shares
from .facts.timeline import timeline_of
from .summary import answers

_NO_TEXT = "no text was given; give one that the model has not seen: --text F"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How to measure.

    Attributes:
        work: prompt, new tokens and rounds.
        target, threads, native: whose engines, as `load` takes them; all bundles on as many threads.
        measured: a file of `foveal bench --save` to take the timings from, instead of measuring.
        texts: files to measure the loss on; where the data decides what fires, the first is decoded too.
        limit: at most so many windows of the text.
        command: what the user typed, for the record.
    """

    work: Load
    target: str = "cpu"
    threads: int | None = None
    native: bool | None = None
    measured: Path | None = None
    texts: Sequence[Path] = ()
    limit: int | None = None
    command: str = ""


def gather(paths: Sequence[Path], wanted: Wanted, on_progress: Progress | None = None) -> Report:
    """All figures of a report on bundles; the first is its subject.

    Raises:
        ConfigError: no bundle, two of one name, a text that can't be read, or a saved measurement of others.
        BundleError: what is no bundle, or has no engines of the target.
        CapacityError, EngineMismatchError, BackendUnavailable: as `foveal.bench.run.bench`.
    """
    check_target(wanted.target)
    report = on_progress or silent
    bundles = _opened(paths, wanted.target)
    models = model_facts(bundles)
    for bundle in bundles if wanted.texts else ():  # before anything is measured, which takes minutes
        require_texts(wanted.texts, bundle.manifest.tokenizer is not None, str(bundle.path))
    text = _text_to_decode(bundles, wanted.texts)
    machine = read_environment()
    measured = _measurement(paths, models, wanted, text, report)
    memory = [_memory(bundle, measured, wanted, report) for bundle in bundles]
    rooflines = {model.name: model.roofline for model in measured.models}
    losses: list[Loss] = []
    if wanted.texts:
        losses = measure_losses(
            bundles,
            models,
            wanted.texts,
            target=wanted.target,
            threads=_threads(wanted, measured),
            limit=wanted.limit,
            measured=measured,
            on_progress=report,
        )
    forecasts = {bundle.name: forecasts_of(bundle) for bundle in bundles}
    return with_summary(
        Report(
            schema_version=REPORT_SCHEMA_VERSION,
            created_utc=machine.created_utc,
            foveal=machine.packages["foveal"] or "unknown",
            subject=models[0].name,
            target=wanted.target,
            was_saved=wanted.measured is not None,
            machine=machine,
            models=models,
            measured=measured,
            timeline=timeline_of(bundles[0], wanted.target, _threads(wanted, measured), wanted.native, text),
            latencies=[latency_facts(model) for model in measured.models],
            time_shares={model.name: time_shares(model) for model in measured.models},
            ratios=ratios_of(measured.models),
            memory=memory,
            needs=[needs_of(facts, rooflines[facts.name]) for facts in memory],
            forecasts=[row for rows, _ in forecasts.values() for row in rows],
            forecasts_missing={name: reason for name, (_, reason) in forecasts.items() if reason is not None},
            losses=losses,
            losses_missing=None if losses else _NO_TEXT,
            texts=[str(path) for path in wanted.texts],
            commands=_commands(paths, models, wanted, measured),
        )
    )


def with_summary(report: Report) -> Report:
    """The same with answers, which are made of its figures alone."""
    return msgspec.structs.replace(report, summary=answers(report))


def _opened(paths: Sequence[Path], target: str) -> list[Bundle]:
    if not paths:
        raise ConfigError("nothing to report on: name at least one bundle, first the one that the report is about")
    require_different_names(paths)
    bundles = [open_bundle(path) for path in paths]
    for bundle in bundles:
        if target not in bundle.manifest.engines:
            there = ", ".join(bundle.manifest.engines) or "none"
            raise ConfigError(
                f"{bundle.path} has no engines for {target}, only for: {there}; build them: foveal build {bundle.path} "
                f"--target {target}"
            )
    return bundles


def _text_to_decode(bundles: Sequence[Bundle], texts: Sequence[Path]) -> str | None:
    """Where the data decides what fires, random ids fire otherwise than text does."""
    decides = any(entry.spec.clock is not None for bundle in bundles for entry in bundle.manifest.stages)
    return read_text(texts[0]) if decides and texts else None


def _measurement(
    paths: Sequence[Path], models: Sequence[ModelFacts], wanted: Wanted, text: str | None, report: Progress
) -> BenchResult:
    if wanted.measured is not None:
        return read_measured(wanted.measured, models)
    return bench(
        list(paths),
        wanted.work,
        target=wanted.target,
        threads=wanted.threads,
        native=wanted.native,
        text=text,
        command=wanted.command,
        on_progress=report,
    )


def _threads(wanted: Wanted, measured: BenchResult) -> int | None:
    """Of CPU engines those of the measurement, if it was made here."""
    if wanted.target != "cpu" or wanted.measured is not None:
        return wanted.threads
    return measured.models[0].threads


def _memory(bundle: Bundle, measured: BenchResult, wanted: Wanted, report: Progress) -> MemoryFacts:
    if wanted.measured is not None:
        return memory_facts(bundle, wanted.target, {}, "the timings were read from a file, so no process was run")
    if wanted.target != "cpu":
        return memory_facts(bundle, wanted.target, {}, "it is measured of CPU engines only")
    working, missing = measure_working(
        bundle,
        measured.models[0].threads,
        measured.prompt_tokens,
        wanted.native,
        lambda tokens: report(f"{bundle.name}: memory with {tokens} tokens", 0, 1),
    )
    return memory_facts(bundle, wanted.target, working, missing)


def _commands(paths: Sequence[Path], models: Sequence[ModelFacts], wanted: Wanted, measured: BenchResult) -> Commands:
    where = {model.name: str(path) for model, path in zip(models, paths, strict=True)}
    texts = [part for path in wanted.texts for part in ("--text", str(path))]
    limit = [] if wanted.limit is None else ["--limit", str(wanted.limit)]
    target = [] if wanted.target == "cpu" else ["--target", wanted.target]
    losses = []
    for model in models if wanted.texts else ():
        reference = reference_of(model, models)
        against = [] if reference is None else ["--against", where[reference.name]]
        losses.append(shlex.join(["foveal", "eval", where[model.name], *against, *texts, *limit, *target]))
    return Commands(
        report=wanted.command,
        measurement=measured.command if wanted.measured is not None else _bench_command(paths, wanted, measured),
        describe=[shlex.join(["foveal", "inspect", str(path)]) for path in paths],
        forecasts=[shlex.join(["foveal", "forecast", str(path)]) for path in paths],
        losses=losses,
    )


def _bench_command(paths: Sequence[Path], wanted: Wanted, measured: BenchResult) -> str:
    """The benchmark alone, on as many threads as it ran on."""
    sizes = {"prompt-tokens": measured.prompt_tokens, "new-tokens": measured.new_tokens, "rounds": measured.rounds}
    options = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    options += ["--threads", str(measured.models[0].threads)] if wanted.target == "cpu" else ["--target", wanted.target]
    options += {None: [], True: ["--native"], False: ["--no-native"]}[wanted.native]
    options += ["--text", str(wanted.texts[0])] if measured.reads == "text" else []
    return shlex.join(["foveal", "bench", *map(str, paths), *options])
