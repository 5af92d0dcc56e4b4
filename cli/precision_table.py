"""What the verbs that build have in common: how precisions are given, and the report of what became of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.table import Table

from ..bundle import Bundle
from ..errors import ConfigError
from .console import out


def refuse_both(precision: str | None, plan: Path | None) -> None:
    """Raise ConfigError if both were given: a plan says every precision."""
    if precision is not None and plan is not None:
        raise ConfigError(f"got --precision {precision} and --plan {plan}, expected one of them; a plan says every precision")


def show_precisions(bundle: Bundle, target: str = "cpu") -> None:
    """Print a line for each stage and kernel, then every product that is not what was asked."""
    table = Table(box=None, header_style="bold")
    for column in ("stage", "asked", "obtained", "kernel", "caches"):
        table.add_column(column)
    table.add_column("products", justify="right")
    reasons = []
    for entry in bundle.manifest.stages:
        sidecar = bundle.sidecar(target, entry.spec.name)
        products = sidecar.products
        for (asked, obtained, kernel), count in Counter((p.asked, p.obtained, p.kernel) for p in products).items():
            table.add_row(entry.spec.name, asked, obtained, kernel, sidecar.cache_dtype, str(count))
        reasons += [f"{p.product}: {p.obtained}, not {p.asked}: {p.reason}" for p in products if p.reason]
    out.print(table, markup=False)
    for reason in reasons:
        out.print(reason, markup=False)
