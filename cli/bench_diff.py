"""`foveal bench diff BEFORE AFTER`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ..errors import ConfigError
from .console import out, print_json
from .values import parse_share


def diff(
    before: Annotated[Path, typer.Argument(help="A result, as foveal bench --save or foveal bench sweep --save wrote it.")],
    after: Annotated[Path, typer.Argument(help="A later one of the same load.")],
    least: Annotated[str, typer.Option(help="The smallest change that counts, as 5% or 0.05.")] = "5%",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say which figures changed beyond noise, and by how much.

    Exit code 0: none did; 5: figures of the first result are missing in the second; 6: some changed.
    """
    from ..bench.difference import difference
    from ..bench.saved import read_saved
    from ..bench.show_difference import show_difference

    share = parse_share(least, "--least")
    if not 0 <= share < 1:
        raise ConfigError(f"--least is {least}, expected a share of 0% to 100%")
    found = difference(read_saved(before), read_saved(after), share)
    if json:
        print_json(msgspec.json.encode(found))
    else:
        show_difference(found, out)
    if found.missing:
        raise typer.Exit(5)
    if found.changed:
        raise typer.Exit(6)
