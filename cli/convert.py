"""`foveal convert CHECKPOINT OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .conditions import require
from .console import out, progress
from .options import Calibration, MaxTokens, Programs, native_counts, text_counts
from .precision_table import refuse_both, show_precisions


def convert(
    context: typer.Context,
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint's directory or file, or hf:owner/name; its layout is recognised.")
    ],
    bundle: Annotated[Path, typer.Argument(help="The bundle to write.")],
    target: Annotated[str, typer.Option(help="What to compile engines for.")] = "cpu",
    precision: Annotated[Optional[str], typer.Option(help="fp32 (if not given), fp16, int8, w8 or w4.")] = None,  # noqa: UP045
    plan: Annotated[Optional[Path], typer.Option(help="Or a plan, as `foveal calibrate --budget` writes it.")] = None,  # noqa: UP045
    calibration: Calibration = None,
    max_tokens: MaxTokens = None,
    native: Programs = None,
    tokenizer: Annotated[
        str | None, typer.Option(help='A tokenizer.json, "bytes", or "bytes+4" if ids are bytes plus 4.')
    ] = None,
    boundaries: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='Of a BLT, where patches end instead of its patcher: "space", or "fixed:4" bytes.'),
    ] = None,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Of a BLT, another threshold of the entropy, in nats."),
    ] = None,
    dialect: Annotated[
        str,
        typer.Option(
            help="Of the stage graphs as files, for other programs; foveal build rewrites them as TensorRT needs them."
        ),
    ] = "modern",
) -> None:
    """Convert a checkpoint into a bundle: one graph and one engine per stage."""
    from .. import convert as convert_checkpoint
    from ..calibration.settings import CalibrationSettings
    from ..precision import Plan, read_plan

    refuse_both(precision, plan)
    wanted = Plan(default=precision or "fp32") if plan is None else read_plan(plan)
    require(
        context,
        {
            "calibration": text_counts(wanted, target, plan, calibration),
            "max_tokens": (bool(calibration), "--calibration"),
            "native": native_counts(target),
        },
    )
    with progress("convert") as report:
        made = convert_checkpoint(
            checkpoint,
            bundle,
            target,
            wanted,
            calibration=calibration or (),
            settings=CalibrationSettings(max_tokens=max_tokens) if max_tokens is not None else None,
            tokenizer=tokenizer,
            boundaries=boundaries,
            threshold=threshold,
            dialect=dialect,
            native=native,
            on_progress=report,
        )
    model = made.manifest.model
    stages = ", ".join(entry.spec.name for entry in made.manifest.stages)
    kind = " ".join(dict.fromkeys((model.source_format, model.architecture)))  # "foveal hourglass"; "blt"
    out.print(f'{made.path}: {kind} "{model.hierarchy}", stages {stages}')
    out.print(
        f"{model.parameters:,} parameters, {made.total_bytes() / 1e6:.1f} MB, engines for {target} in {made.manifest.precision}"
    )
    if model.source is not None:
        out.print(f"from {model.source.name}, license {model.source.license or 'not named'}")
    for note in model.notes:
        out.print(f"note: {note}", markup=False)
    if made.manifest.precision != "fp32":
        show_precisions(made, target)
