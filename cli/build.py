"""`foveal build BUNDLE OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .console import out, progress
from .precision_table import show_precisions


def build(
    bundle: Annotated[Path, typer.Argument(help="The fp32 bundle to start from.")],
    destination: Annotated[Path, typer.Argument(help="The bundle to write.")],
    precision: Annotated[str, typer.Option(help="fp16, int8, w8 or w4, for all stages.")] = "int8",
    plan: Annotated[Optional[Path], typer.Option(help="Or a plan, as `foveal calibrate --budget` writes it.")] = None,  # noqa: UP045
    calibration: Annotated[Optional[list[Path]], typer.Option(help="Text: files, or directories of *.txt.")] = None,  # noqa: UP045
    head: Annotated[bool, typer.Option(help="Include the output head.")] = True,
    embedding: Annotated[bool, typer.Option(help="Include the token and position tables.")] = False,
    target: Annotated[str, typer.Option(help="What to compile engines for.")] = "cpu",
) -> None:
    """Write an fp32 bundle in another precision, and say what every matrix product became."""
    from .. import Plan
    from .. import build as build_bundle
    from ..precision import read_plan

    wanted = Plan(default=precision, head=head, embedding=embedding) if plan is None else read_plan(plan)
    with progress("build") as report:
        made = build_bundle(bundle, destination, wanted, target, calibration=calibration or (), on_progress=report)
    out.print(f"{made.path}: {made.manifest.precision}, {made.total_bytes() / 1e6:.1f} MB, engines for {target}")
    show_precisions(made, target)
