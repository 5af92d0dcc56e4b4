"""`foveal build BUNDLE OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer

from .console import out, progress
from .precision_table import refuse_both, show_precisions


def build(
    bundle: Annotated[Path, typer.Argument(help="The fp32 bundle to start from.")],
    destination: Annotated[Path, typer.Argument(help="The bundle to write.")],
    precision: Annotated[Optional[str], typer.Option(help="fp16, int8, w8 or w4 for all stages; int8 if not given.")] = None,  # noqa: UP045
    plan: Annotated[Optional[Path], typer.Option(help="Or a plan, as `foveal calibrate --budget` writes it.")] = None,  # noqa: UP045
    calibration: Annotated[Optional[list[Path]], typer.Option(help="Text: files, or directories of *.txt.")] = None,  # noqa: UP045
    head: Annotated[Optional[bool], typer.Option("--head/--no-head", help="The output head too; if not given, it is.")] = None,  # noqa: UP045
    embedding: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--embedding/--no-embedding", help="The token and position tables too; if not given, they are not."),
    ] = None,
    cache: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='Keys and values: "auto" (int8 where the text is known), or "fp32".'),
    ] = None,
    target: Annotated[str, typer.Option(help="What to compile engines for.")] = "cpu",
) -> None:
    """Write an fp32 bundle in another precision, and say what every matrix product became."""
    from .. import Plan
    from .. import build as build_bundle
    from ..precision import read_plan

    refuse_both(precision, plan)
    wanted = Plan(default=precision or "int8") if plan is None else read_plan(plan)
    given = {"head": head, "embedding": embedding, "cache": cache}
    wanted = msgspec.structs.replace(wanted, **{name: value for name, value in given.items() if value is not None})
    with progress("build") as report:
        made = build_bundle(bundle, destination, wanted, target, calibration=calibration or (), on_progress=report)
    out.print(f"{made.path}: {made.manifest.precision}, {made.total_bytes() / 1e6:.1f} MB, engines for {target}")
    show_precisions(made, target)
