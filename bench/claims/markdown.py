"""Results for the docs, so that figures are put there and not typed."""

from __future__ import annotations

from .result import ClaimsResult
from .settings import Claim
from .tables import Page, Sheet, pages


def machine(result: ClaimsResult) -> str:
    """What the figures were measured on, and the command."""
    environment = result.environment
    packages = ", ".join(f"{name} {environment.packages[name]}" for name in ("foveal", "onnxruntime", "numpy"))
    memory = "" if environment.memory_bytes is None else f", {environment.memory_bytes / 2**30:.0f} GiB"
    return (
        f"{environment.cpu}, {environment.cpus_usable} CPUs{memory}, {environment.system}, Python {environment.python}, "
        f"{packages}; {result.threads} threads, {environment.created_utc[:10]}. Command: `{result.command}`"
    )


def figures(result: ClaimsResult) -> dict[Claim, str]:
    """For each claim that was measured, the verdict, the tables and what they were measured on."""
    return {page.claim: _figures(page, result) for page in pages(result)}


def _figures(page: Page, result: ClaimsResult) -> str:
    lead = f"**Here it {page.verdict.answer}.** {page.verdict.sentence}"
    taken = f"{machine(result)}; {result.seconds[page.claim]:,.0f} s for this claim."
    parts = [lead, *map(_table, page.sheets), taken]
    if doubts := [*result.problems, *page.doubts]:
        parts.append(f"What makes these figures doubtful: {'; '.join(doubts)}.")
    return "\n\n".join(parts)


def _table(sheet: Sheet) -> str:
    lines = [sheet.columns, tuple("---" if place == 0 else "---:" for place in range(len(sheet.columns))), *sheet.rows]
    return f"*{sheet.title}*\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
