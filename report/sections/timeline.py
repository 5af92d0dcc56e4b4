"""When the subject's stages fire."""

from __future__ import annotations

from ..document import Report
from ..lookup import subject_of
from ..numbers import percent
from ..pictures.timeline import describe_timeline, draw_timeline
from .section import Picture, Section, Table


def timeline(report: Report) -> Section:
    """Firings, token by token."""
    found, model = report.timeline, subject_of(report)
    what = "the text" if found.is_of_text else "any text, as strides alone decide"
    return Section(
        name="timeline",
        title="What fires when",
        lead=[
            f"The first {found.tokens} tokens of {what}. A mark is a run of the stage’s engine; where there is none, its work "
            "is saved."
        ],
        pictures=[Picture("timeline", "Firings by token", describe_timeline(model, found), lambda: draw_timeline(model, found))]
        if found.fires
        else [],
        shown=[
            Table(
                title=f"Runs in {found.tokens} tokens",
                header=["stage", "runs", "of tokens"],
                rows=[[name, str(len(tokens)), percent(found.shares[name])] for name, tokens in found.fires.items()],
            )
        ],
        tables=[
            Table(
                title="Tokens that fire a stage",
                header=["stage", "firings", "tokens"],
                rows=[[name, str(len(tokens)), _ranges(tokens)] for name, tokens in found.fires.items()],
                texts=frozenset({2}),
            )
        ],
        missing=found.missing,
        commands=report.commands.describe[:1],
    )


def _ranges(tokens: list[int]) -> str:
    """`0 to 31`, or one by one where some are left out."""
    if len(tokens) > 2 and tokens == list(range(tokens[0], tokens[-1] + 1)):
        return f"{tokens[0]} to {tokens[-1]}"
    return ", ".join(map(str, tokens)) or "none"
