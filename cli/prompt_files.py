"""`foveal generate BUNDLE --files FILE... --out DIRECTORY`, in this process or on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import ConfigError
from .console import err, out, progress
from .threads import pool_threads

if TYPE_CHECKING:
    from ..offline.job import Execute, Job

Files = Annotated[
    bool, typer.Option("--files", help="What is given are files of prompts, not a prompt: .txt, a prompt a line, or .jsonl.")
]
Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="With --files or --ray: the folder of the outputs. The same command again goes on where it was stopped."),
]
Scored = Annotated[bool, typer.Option("--eval", help="Say how likely each line is, in place of continuing it.")]
Slots = Annotated[int, typer.Option(min=1, help="Texts at once, in each process.")]
Capacity = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Tokens of a sequence at most; the model's context if not given."),
]
PartLines = Annotated[int, typer.Option(min=1, help="Lines that are written together: so many are done again after a crash.")]
ActorCount = Annotated[int, typer.Option(min=1, help="Processes that Ray starts, each with the model.")]
CpusPerActor = Annotated[float, typer.Option(help="CPUs that Ray reserves for each; 0.5 is two on one.")]
GpusPerActor = Annotated[float, typer.Option(help="GPUs that Ray reserves for each.")]
OF_FILES = ("out", "scored", "slots", "capacity", "part_lines")
"""Options that do nothing without files."""
OF_ACTORS = ("actors", "cpus_per_actor", "gpus_per_actor", "address")
"""Options that do nothing without --ray."""


@dataclass(frozen=True)
class Spread:
    """Who does it: this process, or so many of Ray's actors."""

    on_ray: bool
    actors: int
    cpus: float
    gpus: float
    address: str | None


def one_prompt(given: Sequence[str] | None) -> str | None:
    """The prompt, where no files are meant.

    Raises:
        ConfigError: several.
    """
    if given is not None and len(given) > 1:
        raise ConfigError(
            f"got {len(given)} prompts, expected one: put it in quotes; for files of prompts add --files, or --ray"
        )
    return given[0] if given else None


def generate_files(
    bundle: Path,
    given: Sequence[str] | None,
    folder: Path | None,
    settings: dict[str, Any],
    *,
    n: int,
    scored: bool,
    output: str | None,
    target: str,
    threads: int | None,
    native: bool | None,
    slots: int,
    capacity: int | None,
    part_lines: int,
    spread: Spread,
) -> None:
    """Continue or score the lines of files.

    Raises: as `Job.run`; ConfigError for no files, or no folder.
    """
    from ..bundle import open_bundle
    from ..offline.job import Job
    from ..offline.tasks import Task

    if folder is None:
        raise ConfigError("files of prompts take --out, the folder of their outputs; give it")
    opened = open_bundle(bundle)
    as_ids = not scored and (output == "ids" or (output is None and opened.manifest.tokenizer is None))
    task = Task("score", {}) if scored else Task("generate", settings, n, as_ids)
    job = Job(opened, [Path(file) for file in given or ()], folder, task, target, capacity, part_lines)
    with progress("eval" if scored else "generate") as report:
        found = job.run(_execute(job, threads, native, slots, spread), report)
    _say(found["total"], folder, scored)
    if found["total"]["errors"]:
        count = found["total"]["errors"]
        err.print(f"{count} line{'s' if count > 1 else ''} failed; their outputs say why")


def _execute(job: Job, threads: int | None, native: bool | None, slots: int, spread: Spread) -> Execute:
    if spread.on_ray:
        from ..distributed.actors import Actors, on_actors

        actors = Actors(spread.actors, spread.cpus, spread.gpus, threads, spread.address, native)
        return on_actors(job.bundle.path, job.task, actors, job.target, slots, job.capacity)
    from ..offline.here import here
    from ..runtime.model import load

    def execute(*arguments: Any) -> Any:
        own_threads = pool_threads(job.bundle.path, job.target, threads, native)
        model = load(job.bundle, job.target, own_threads, native=native)
        return here(model, job.task, slots, job.capacity)(*arguments)

    return execute


def _say(total: dict[str, Any], folder: Path, scored: bool) -> None:
    if scored:
        bits, nats = total["bits_per_byte"], total["nats_per_token"]
        said = "" if bits is None else f", {bits:.4f} bits per byte"
        said += "" if nats is None else f", {nats:.4f} nats per token"
        out.print(f"{folder}: {total['lines']:,} lines, {total['tokens']:,} tokens{said}")
        return
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in total["finish_reasons"].items())
    out.print(f"{folder}: {total['lines']:,} lines, {total['tokens']:,} new tokens{f' ({reasons})' if reasons else ''}")
