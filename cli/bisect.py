"""`foveal bisect BUNDLE --precision int8`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import typer
from rich.table import Table

from ..precision import Plan
from .conditions import require
from .console import out, print_json, progress
from .options import Calibration, Threads, text_counts, threads_count
from .threads import pool_threads
from .values import parse_share

if TYPE_CHECKING:
    from ..export.comparison.bisection import BisectReport, Trial

_UNITS = {"bits": "rise of bits per byte", "kl": "KL, nats"}


def bisect(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="An fp32 bundle.")],
    precision: Annotated[str, typer.Option(help="fp16, int8, w8 or w4.")],
    text: Annotated[list[Path], typer.Option(help="Text to measure on: files, or directories of *.txt.")],
    calibration: Calibration = None,
    budget: Annotated[str, typer.Option(help="The largest loss that is none, as 0.5% or 0.005.")] = "0.5%",
    measure: Annotated[str, typer.Option(help="Loss: bits (relative rise of bits per byte), or kl (nats from fp32).")] = "bits",
    target: Annotated[str, typer.Option(help="Whose engines to build and run.")] = "cpu",
    limit: Annotated[int, typer.Option(help="Measure at most so many windows, spread over the text.")] = 16,
    window: Annotated[Optional[int], typer.Option(help="Tokens per window; the context, at most 512.")] = None,  # noqa: UP045
    threads: Threads = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Find the first stage, then the first matrix product, at which a precision loses more than the budget."""
    from ..export import bisect as bisect_bundle

    on_cpu, takes = threads_count(target)
    require(
        context,
        {
            "threads": (on_cpu or bool(calibration), f"{takes}, or --calibration, which runs on the CPU"),
            "calibration": text_counts(Plan(default=precision), target),
        },
    )
    kind: Any = measure
    with progress("bisect") as report:
        found = bisect_bundle(
            bundle,
            precision,
            parse_share(budget),
            text,
            calibration=calibration or (),
            measure=kind,
            target=target,
            limit=limit,
            window=window,
            threads=pool_threads(bundle, "cpu", threads),
            on_progress=report,
        )
    if json:
        print_json(msgspec.json.encode(found))
        return
    _show(found, found.trials)
    out.print(_verdict(found), markup=False)
    if found.alone:
        out.print(f"\nEach product of stage {found.stage} alone in {precision}:", markup=False)
        _show(found, found.alone)


def _show(found: BisectReport, trials: Sequence[Trial]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column(f"in {found.precision}")
    for column in ("products", _UNITS[found.measure]):
        table.add_column(column, justify="right")
    table.add_column("")
    for trial in trials:
        verdict = "breaks it" if trial.loss > found.budget else ""
        table.add_row(trial.tried, str(trial.products), _text(found.measure, trial.loss), verdict)
    out.print(table, markup=False)


def _verdict(found: BisectReport) -> str:
    budget = f"the budget of {_text(found.measure, found.budget)}"
    if found.caches:
        return f"The int8 keys and values break {budget}, no product does: build with --cache fp32"
    if found.product is None:
        return f"Nothing breaks {budget}: everything in {found.precision} loses {_text(found.measure, found.trials[0].loss)}"
    worst = found.alone[0]
    own = next(trial.loss for trial in found.alone if trial.tried == found.product)
    return (
        f"The first to break {budget} is {found.product}, of stage {found.stage}; alone it loses {_text(found.measure, own)}. "
        f"The worst of that stage alone is {worst.tried}, {_text(found.measure, worst.loss)}"
    )


def _text(measure: str, loss: float) -> str:
    """As `+0.123%`, or nats as `1.2e-03`."""
    return f"{loss:.2e} nats" if measure == "kl" else f"{loss:+.3%}"
