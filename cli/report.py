"""`foveal report BUNDLE... --out F`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from .conditions import require
from .console import err, out, progress
from .options import Native, Threads
from .threads import pool_threads


def report(
    context: typer.Context,
    bundles: Annotated[list[Path], typer.Argument(help="What the report is about, and behind it what to compare with.")],
    outs: Annotated[
        list[Path],
        typer.Option("--out", help="File to write: .html, .md (pictures in a folder beside it) or .json; may be repeated."),
    ],
    text: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Text to measure the loss on, files or directories of *.txt; without it no loss is measured."),
    ] = None,
    limit: Annotated[Optional[int], typer.Option(help="Measure the loss on at most so many windows of the text.")] = None,  # noqa: UP045
    measured: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Take the timings from this file of foveal bench --save, instead of measuring."),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 256,
    new_tokens: Annotated[int, typer.Option(help="Tokens to decode in each round.")] = 256,
    rounds: Annotated[int, typer.Option(help="Rounds that count; one more warms up.")] = 4,
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    threads: Threads = None,
    native: Native = None,
) -> None:
    """Write a page on a bundle: how fast it is beside others, where its time goes, what precisions cost, what it takes."""
    from ..bench.decode import Load
    from ..bundle import check_target
    from ..report.gather import Wanted, gather
    from ..report.write import require_outs, write_report

    check_target(target)
    measures = measured is None, "timings measured here, which --measured replaces"
    on_cpu = target == "cpu" and (measured is None or bool(text))
    require(
        context,
        {
            **dict.fromkeys(("prompt_tokens", "new_tokens", "rounds"), measures),
            "limit": (bool(text), "--text"),
            "threads": (on_cpu, "--target cpu, and something to run: no --measured, or --text"),
            "native": (target == "cpu" and measured is None, "--target cpu, and no --measured"),
        },
    )
    require_outs(outs)
    work = Load(prompt_tokens, new_tokens, rounds)
    runs = measured is None or bool(text)
    with progress("report") as tell:
        found = gather(
            bundles,
            Wanted(
                work=work,
                target=target,
                threads=pool_threads(bundles[0], target, threads, native) if runs else threads,
                native=native,
                measured=measured,
                texts=text or (),
                limit=limit,
                command=shlex.join(["foveal", *sys.argv[1:]]),
            ),
            tell,
        )
    for path in outs:
        for written in write_report(found, path):
            err.print(f"wrote {written}")
    for answer in found.summary:
        out.print(f"{answer.question} {answer.answer}\n")
