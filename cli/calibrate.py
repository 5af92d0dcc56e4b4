"""`foveal calibrate BUNDLE --text FILE...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import msgspec
import typer
from rich.table import Table

from ..files import require_place, write_atomically
from .conditions import require
from .console import out, print_json, progress
from .options import MaxTokens, Threads
from .values import parse_share

if TYPE_CHECKING:
    from ..calibration import Calibration
    from ..calibration.planner import Option
    from ..export.planning import Measured, PlanReport


def calibrate(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="An fp32 bundle.")],
    text: Annotated[list[Path], typer.Option(help="Text: files, or directories of *.txt.")],
    method: Annotated[
        str, typer.Option(help='How int8 ranges are chosen: "percentile", "minmax" or "entropy".')
    ] = "percentile",
    percentile: Annotated[float, typer.Option(help="Share of values that are not clipped, %.")] = 99.99,
    max_tokens: MaxTokens = None,
    budget: Annotated[Optional[str], typer.Option(help="Plan precisions: largest rise of bits per byte, such as 1%.")] = None,  # noqa: UP045
    plan: Annotated[Path, typer.Option(help="Where the plan goes.")] = Path("plan.json"),
    plot: Annotated[Optional[Path], typer.Option(help="Draw time against loss, as .svg or .png.")] = None,  # noqa: UP045
    head: Annotated[bool, typer.Option(help="Let the plan include the output head.")] = True,
    threads: Threads = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Record what every stage sees of a text; with --budget, choose a precision for each.

    Where a stage decides when others fire, --budget also says whether it pays to keep it in fp32.
    """
    from .. import calibrate as calibrate_bundle
    from .. import plan_precision
    from ..calibration.plotting import require_picture
    from ..calibration.ranges import Method
    from ..calibration.settings import CalibrationSettings
    from ..models.config import one_of

    plans = budget is not None, "--budget"
    is_percentile = method == "percentile", "--method percentile"
    require(context, {**dict.fromkeys(("plan", "plot", "head"), plans), "percentile": is_percentile})
    settings = CalibrationSettings(method=one_of(Method, method, "method"), percentile=percentile, max_tokens=max_tokens)
    if plot is not None:
        require_picture(plot)
    if budget is not None:
        require_place(plan)
    with progress("calibrate") as report:
        if budget is None:
            found = calibrate_bundle(bundle, text, settings, threads=threads, on_progress=report)
        else:
            planned = plan_precision(
                bundle, text, parse_share(budget), settings=settings, head=head, threads=threads, on_progress=report
            )
    if budget is None:
        _show_ranges(found, json)
        return
    write_atomically(plan, msgspec.json.format(msgspec.json.encode(planned.plan), indent=2) + b"\n")
    if plot is not None:
        _draw(plot, planned)
    if json:
        print_json(msgspec.json.encode(planned))
    else:
        _show_plan(planned)
        out.print(f"wrote {plan}: foveal build {bundle} OUT --plan {plan} --calibration ...", markup=False)


def _show_ranges(found: Calibration, json: bool) -> None:
    if json:
        coverage = {stage: dict(sorted(phases.items())) for stage, phases in found.coverage.items()}
        thresholds = {name: found.threshold(name) for name in found.products}
        print_json(
            msgspec.json.encode({"key": found.key, "tokens": found.tokens, "coverage": coverage, "thresholds": thresholds})
        )
        return
    table = Table(box=None, header_style="bold")
    for column in ("stage", "rows", "phases", "fewest rows at a phase"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, phases in found.coverage.items():
        table.add_row(stage, f"{phases.total():,}", str(len(phases)), f"{min(phases.values()):,}")
    out.print(f"{found.tokens:,} tokens, {len(found.products)} matrix products, {found.settings.method}")
    out.print(table, markup=False)


def _show_plan(planned: PlanReport) -> None:
    table = Table(box=None, header_style="bold")
    precisions = list(planned.uniform)
    for column in ("unit, us per token and loss", *precisions, "plan"):
        table.add_column(column, justify="right" if column in precisions else "left", no_wrap=True)
    for unit in planned.units:
        known = {option.precision: option for option in unit.options}
        cells = (_figures(known[p]) for p in precisions)
        table.add_row(unit.name, *cells, planned.predicted.precisions[unit.name])
    whole = (_figures(measured) for measured in planned.uniform.values())
    table.add_row("all, measured", *whole, _figures(planned.chosen))
    rivals = (_figures(planned.rivals[p]) if p in planned.rivals else "" for p in precisions)
    table.add_row("the best plan that loses no more", *rivals)
    out.print(table, markup=False)
    out.print(
        f"per token on {planned.threads} threads, weighted by how often a stage fires; losses are relative bits per byte "
        f"on {planned.held_out_tokens:,} held-out tokens"
    )
    for decider in planned.deciders:
        out.print(str(decider), markup=False)


def _figures(measured: Measured | Option) -> str:
    return f"{measured.ms_per_token * 1e3:.1f} {measured.loss:+.3%}"


def _draw(path: Path, planned: PlanReport) -> None:
    from ..calibration.pareto_plot import Point, draw_pareto

    draw_pareto(
        path,
        [Point(choice.predicted_loss, choice.ms_per_token) for choice in planned.frontier],
        {name: Point(measured.loss, measured.ms_per_token) for name, measured in planned.uniform.items()},
        Point(planned.chosen.loss, planned.chosen.ms_per_token),
        planned.budget,
    )
