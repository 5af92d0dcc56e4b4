"""What a profile of decode steps shows: stages, and in each the operators that take longest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .console import out

if TYPE_CHECKING:
    from ..bench.operator_times import OperatorTime, Profile, StageTime

_TOP, _LONGEST = 5, 40


def show_profile(profile: Profile, is_expected: bool) -> None:
    """Print a line for each stage, then for its slowest operators, the others summed up; whether rates are expected is said."""
    often = "as often as it fires" + " (as expected of text, where the data decides)" * is_expected
    threads = f" on {profile.threads} thread{'' if profile.threads == 1 else 's'}" if profile.target == "cpu" else ""
    out.print(
        f"\n{profile.target}, {profile.tokens} tokens one by one{threads}, per token: a stage counts {often}. "
        "Timing takes time itself: read the shares"
    )
    if profile.target == "cpu":
        out.print("Operators are those of the graphs on onnxruntime, whether or not the stages run natively here.")
    table = Table(box=None, header_style="bold")
    for column in ("stage", "operator", "calls", "us", "share"):
        table.add_column(column, justify="left" if column in ("stage", "operator") else "right")
    for stage in profile.stages:
        table.add_row(stage.name, "", f"{stage.fires_per_token:.3g}", f"{stage.us_per_token:.1f}", f"{stage.share:.1%}")
        for operator in stage.operators[:_TOP]:
            table.add_row("", *_cells(operator))
        if len(stage.operators) > _TOP:
            table.add_row("", *_others(stage))
    out.print(table, markup=False)


def _cells(operator: OperatorTime) -> tuple[str, ...]:
    name = operator.operator if len(operator.operator) <= _LONGEST else f"{operator.operator[: _LONGEST - 1]}…"
    return name, f"{operator.calls_per_token:.3g}", f"{operator.us_per_token:.1f}", f"{operator.share:.1%}"


def _others(stage: StageTime) -> tuple[str, ...]:
    rest = stage.operators[_TOP:]
    calls, us, share = (sum(getattr(one, name) for one in rest) for name in ("calls_per_token", "us_per_token", "share"))
    return f"{len(rest)} others", f"{calls:.3g}", f"{us:.1f}", f"{share:.1%}"
