"""`foveal compare BUNDLE --targets cpu,tensorrt`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import typer
from rich.table import Table

from ..errors import ConfigError
from ..files import require_place
from .console import err, out, print_json, progress

if TYPE_CHECKING:
    from ..export import CompareReport


def compare(
    bundle: Annotated[Path, typer.Argument(help="The reference.")],
    targets: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="The reference's target, then the other's, as cpu,tensorrt; \"portable\" runs the stage graphs as they are. "
            "If not given: portable,cpu, or cpu where there is --other."
        ),
    ] = None,
    other: Annotated[Optional[Path], typer.Option(help="Another bundle of the same model, such as the int8 one.")] = None,  # noqa: UP045
    text: Annotated[list[Path] | None, typer.Option(help="Text to decode the beginning of; if not given, random ids.")] = None,
    tokens: Annotated[Optional[int], typer.Option(help="Tokens decoded; two periods and some more if not given.")] = None,  # noqa: UP045
    tolerance: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Of each stage's largest value; 1e-4 between fp32 bundles, and none for others, if not given."),
    ] = None,
    stage: Annotated[Optional[str], typer.Option(help="With --cuts: look inside this stage.")] = None,  # noqa: UP045
    cuts: Annotated[bool, typer.Option("--cuts", help="Compare after each layer's attention and feed forward.")] = False,
    provider: Annotated[Optional[str], typer.Option(help="What cuda engines run on; cpu where there is no GPU.")] = None,  # noqa: UP045
    save_inputs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Also write what every stage of the reference reads, keys and values too, for polygraphy run."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Name the first stage, or layer of a stage, in which two targets or two bundles differ; exit code 2 if they do."""
    from ..export import compare as compare_bundles
    from ..export import compare_cuts

    if cuts != (stage is not None):
        raise ConfigError("--cuts looks inside one stage, and --stage says which; give both or neither")
    if save_inputs is not None:
        require_place(save_inputs / "commands.sh")
    chosen = (targets or ("portable,cpu" if other is None else "cpu")).split(",")
    given: dict[str, Any] = {
        "other": other,
        "texts": text or (),
        "tokens": tokens,
        "tolerance": tolerance,
        "provider": provider,
    }
    with progress("compare") as report:
        if stage is None:
            found = compare_bundles(bundle, chosen, **given, on_progress=report)
        else:
            found = compare_cuts(bundle, stage, chosen, **given, on_progress=report)
    if save_inputs is not None:
        _save(bundle, save_inputs, text or (), tokens)
    if json:
        print_json(msgspec.json.encode(found))
    else:
        _show(found)
    found.require_equal()


def _save(bundle: Path, directory: Path, text: Sequence[Path], tokens: int | None) -> None:
    from ..export.comparison.save_inputs import save_inputs

    for line in save_inputs(bundle, directory, texts=text, tokens=tokens):
        print(line, file=sys.stderr)  # as it is: wrapped, it could not be pasted
    err.print(f"wrote {directory}: these lines and those for TensorRT are in commands.sh", markup=False)


def _show(found: CompareReport) -> None:
    out.print(f"{found.other} against {found.reference}", markup=False)
    table = Table(box=None, header_style="bold")
    for column in ("", "decoded", "firings", "largest error", "mean error", "first beyond the tolerance"):
        table.add_column(column, justify="right" if column.endswith(("firings", "error")) else "left")
    beyond = "-" if found.tolerance is None else "none"
    for row in (*found.stages, *found.system):
        errors = f"{row.max_error:.1e}", f"{row.mean_error:.1e}"
        last = row.where or beyond if row.flips is None else f"{row.flips} boundaries moved"
        table.add_row(row.name, row.decoded, str(row.firings), *errors, last)
    out.print(table, markup=False)
    out.print(_verdict(found), markup=False)


def _verdict(found: CompareReport) -> str:
    scale = f"{found.tokens} tokens; every stage reads the reference's rows; errors are shares of the largest value there"
    if found.tolerance is None:
        return f"{scale}. No tolerance, as other precisions differ on purpose: nothing passes or fails without --tolerance"
    return f"{scale}. Tolerance: {found.tolerance:.0e}"
