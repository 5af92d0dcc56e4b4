"""`foveal bench claims`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer

from ..errors import ConfigError
from ..files import scratch_directory
from .conditions import require
from .console import err, out, print_json, progress
from .options import Threads
from .threads import pool_threads


def claims(
    context: typer.Context,
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[speed|memory|firing|rare-words|order]...", help="Which; all if not given."),
    ] = None,
    text: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Text for rare-words and order, files or directories of *.txt; what comes with foveal if not given."),
    ] = None,
    checkpoint: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            help="A trained model for rare-words and order, one of them vanilla; may be repeated. Three that come with foveal "
            "if not given."
        ),
    ] = None,
    window: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens per window of rare-words and order, 512 if not given; at most the models' context."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to see that it works in a minute or so.")] = False,
    threads: Threads = None,
    save: Annotated[Optional[Path], typer.Option(help="Write claims.json and the pictures into this directory.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure the claims of the article foveal starts from, and say of each whether it holds here, and for what.

    All of them take about half an hour on two CPUs, which should have nothing else to do.
    """
    from ..bench.claims.run import first_bundle, measure_claims
    from ..bench.claims.saving import save as save_result
    from ..bench.claims.settings import QUICK, TEXT_CLAIMS, Settings, chosen_claims
    from ..bench.claims.show import show
    from ..bench.environment import read_environment
    from ..models import SHIPPED

    command = shlex.join(["foveal", *sys.argv[1:]])
    settings = QUICK if quick else Settings()
    if window is not None:
        settings = replace(settings, window=window)
    environment = read_environment()  # before the conversions raise the load average
    reads_text = not TEXT_CLAIMS.isdisjoint(chosen_claims(names or ()))
    takes = reads_text, " or ".join(sorted(TEXT_CLAIMS)) + " among the claims"
    require(context, dict.fromkeys(("text", "checkpoint", "window"), takes))
    checkpoints = by_name(checkpoint) if checkpoint else SHIPPED
    if save is not None:
        from ..calibration.plotting import require_picture

        require_picture(save / "order.svg")  # better to fail now than after all the work
    with scratch_directory() as directory, progress("claims") as report:
        first = first_bundle(names or (), directory, settings, report, checkpoints)
        result = measure_claims(
            names or (),
            directory,
            settings=settings,
            checkpoints=checkpoints,
            texts=text or (),
            threads=pool_threads(first, "cpu", threads),
            command=command,
            environment=environment,
            on_progress=report,
        )
    if save is not None:
        for path in save_result(save, result):
            err.print(f"wrote {path}")
    if json:
        print_json(msgspec.json.encode(result))
    else:
        show(result, out)


def by_name(checkpoints: list[Path]) -> dict[str, Path]:
    """Each under the name of its directory or file; raises ConfigError where two have the same."""
    found = {path.resolve().name: path for path in checkpoints}
    if len(found) < len(checkpoints):
        raise ConfigError(f"two of the checkpoints have the same name: {', '.join(map(str, checkpoints))}; rename one")
    return found
