"""`foveal verify BUNDLE --checkpoint DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer
from rich.table import Table

from .console import out, print_json, progress


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle to check.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint it was converted from.")],
    target: Annotated[str, typer.Option(help="Whose engines to check.")] = "cpu",
    boundaries: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of a BLT, the boundaries that it was converted with."),
    ] = None,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Of a BLT, the threshold that it was converted with."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare PyTorch, every ONNX stage and the running system; exit code 2 if they differ.

    Where the data decides when stages fire: its values, its boundaries, and which tokens are too close to call.
    """
    from ..export import verify as verify_bundle

    with progress("verify") as report:
        result = verify_bundle(bundle, checkpoint, target, boundaries=boundaries, threshold=threshold, on_progress=report)
    if json:
        print_json(msgspec.json.encode(result))
    else:
        table = Table(box=None, header_style="bold")
        table.add_column("compared with PyTorch")
        table.add_column("max abs error", justify="right")
        table.add_column("values", justify="right")
        table.add_column("")
        for check in result.checks:
            table.add_row(check.name, f"{check.max_abs_error:.1e}", f"{check.values:,}", check.where or "equal")
        out.print(table)
        out.print(str(result.coverage), markup=False, highlight=False)
        for clock in result.clocks:
            out.print(str(clock), markup=False, highlight=False)
    result.require_equal()
