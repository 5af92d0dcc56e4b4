"""`foveal check BUNDLE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer

from .console import out, print_json


def check(
    bundle: Annotated[Path, typer.Argument(help="The bundle whose engines are checked.")],
    target: Annotated[Optional[str], typer.Option(help="For this target; all that it has engines for, if not given.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say whether engines fit this machine (match, rebuild or refuse), without loading them; exit code 3 unless all match."""
    from ..runtime.preflight import check as check_target
    from ..runtime.preflight import check_all

    findings = check_all(bundle) if target is None else (check_target(bundle, target),)
    if json:
        print_json(msgspec.json.encode(findings))
    else:
        for found in findings:
            if found.is_unanimous:
                out.print(f"{found.target}: {found.answer}: {found.sentence}", markup=False)
            else:
                for stage, finding in found.stages.items():
                    out.print(f"{found.target}, stage {stage}: {finding.answer}: {finding.sentence}", markup=False)
    if any(found.answer != "match" for found in findings):
        raise typer.Exit(3)
