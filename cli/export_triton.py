"""`foveal export-triton BUNDLE --out MODEL_REPOSITORY`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..export.triton.config import Sequences
from ..export.triton.settings import ServerSettings
from .conditions import require
from .console import out, progress
from .options import threads_count


def export_triton(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle to serve.")],
    repository: Annotated[Path, typer.Option("--out", help="The model repository; a folder for the model is made in it.")],
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of the model; that of the bundle's folder if not given."),
    ] = None,
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = ServerSettings.target,
    slots: Annotated[int, typer.Option(help="Sequences that decode together.")] = ServerSettings.slots,
    queue: Annotated[int, typer.Option(help="Requests that may wait for a slot.")] = ServerSettings.queue,
    capacity: Annotated[int, typer.Option(help="Tokens that a slot holds; 0: the model's context.")] = ServerSettings.capacity,
    threads: Annotated[
        int, typer.Option(help="Threads of CPU engines; 0: measured when the server starts.")
    ] = ServerSettings.threads,
    state_mb: Annotated[
        int, typer.Option(help="MB of memory for what sequences have read, between two requests.")
    ] = ServerSettings.state_mb,
    sequences: Annotated[
        bool,
        typer.Option(help="Requests of a sequence continue each other; without, each stands for itself."),
    ] = True,
    most_sequences: Annotated[int, typer.Option(help="Sequences that the server follows at once.")] = Sequences.most,
    idle_seconds: Annotated[
        int, typer.Option(help="A sequence that had no request for so long is over.")
    ] = Sequences.idle_seconds,
    instances: Annotated[int, typer.Option(help="Of the model, each with weights and slots of its own.")] = 1,
    hard_links: Annotated[
        bool, typer.Option("--hard-links", help="Link the bundle's files, which takes no room, in place of copying them.")
    ] = False,
) -> None:
    """Write a bundle as a model of a Triton model repository: docs/deployment.md."""
    from ..export.triton.repository import export_triton as write

    of_sequences = (sequences, "--sequences")
    require(
        context,
        {
            "threads": threads_count(target),
            "most_sequences": of_sequences,
            "idle_seconds": of_sequences,
            "state_mb": of_sequences,
        },
    )
    settings = ServerSettings(target=target, slots=slots, queue=queue, capacity=capacity, threads=threads, state_mb=state_mb)
    followed = Sequences(most=most_sequences, idle_seconds=idle_seconds) if sequences else None
    with progress("export-triton") as report:
        made = write(
            bundle,
            repository,
            name=name,
            settings=settings,
            sequences=followed,
            instances=instances,
            hard_links=hard_links,
            on_progress=report,
        )
    out.print(f"{made}: a model for Triton; its server's Python needs foveal (docs/deployment.md)")
