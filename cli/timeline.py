"""Which stages fire at which token, drawn: of fixed strides by arithmetic, of a text by what it makes the stages do."""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..bundle import Bundle
from ..contract import StageSpec
from ..errors import CapacityError, ConfigError
from ..runtime.ids import parse_ids
from ..runtime.model import load
from ..runtime.schedules import Schedule
from ..runtime.tokenizer import TextTokenizer
from .threads import pool_threads

_WIDTH = 96
"""Columns of a line of the drawing, beside the names."""
_SIGNS = {"\n": "\u21b5", "\t": "\u21e5"}


class Timeline(NamedTuple):
    """What fired.

    Attributes:
        cells: what stands above each token's mark: its text, or a space.
        fires: by stage, the tokens that fired it.
        schedule: what the data decided, by clock.
    """

    cells: Sequence[str]
    fires: Mapping[str, Sequence[int]]
    schedule: Schedule


def by_strides(specs: Sequence[StageSpec], tokens: int) -> Timeline:
    """Of the first so many tokens of any text; stages whose firings the data decides are left out."""
    fires = {spec.name: _by_stride(spec, tokens) for spec in specs if spec.clock is None}
    return Timeline([" "] * tokens, fires, {})


def of_text(bundle: Bundle, target: str, text: str | None, ids: str | None, tokens: int | None) -> Timeline:
    """Of a text, or of ids; of their first so many tokens.

    Raises:
        ConfigError: neither or both, or no engines of the target.
        InputError: no text, or ids that the model has not.
        CapacityError: more tokens than its context.
    """
    if (text is None) == (ids is None):
        raise ConfigError("got both --text and --ids, expected one of them: what to run")
    model = load(bundle, target, pool_threads(bundle.path, target, None))
    given = model.prompt_ids(_content(text) if text is not None else parse_ids(ids or "", "--ids"))[:tokens]
    if not given:
        raise ConfigError("the text is empty, expected at least one token: what to run")
    context = model.manifest.model.context
    if len(given) > context:
        raise CapacityError(
            f"the text has {len(given):,} tokens, the model a context of {context:,}; draw fewer of them: --tokens"
        )
    session = model.session(capacity=len(given))
    session.advance([given], last_only=True)
    schedule = session.schedule
    fires = {spec.name: _fired(spec, schedule, len(given)) for spec in model.specs}
    return Timeline(list(_cells(model.tokenizer, given)), fires, schedule)


def _content(text: str) -> str:
    """The text, or that of the file it names."""
    try:
        return Path(text).read_text("utf-8") if Path(text).is_file() else text
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # no name, then
            return text
        raise ConfigError(f"{text} can't be read ({error.strerror}); give a file of text") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{text} is no UTF-8 ({error}); give a file of text") from error


def _by_stride(spec: StageSpec, tokens: int) -> list[int]:
    return [token for token in range(tokens) if spec.firings(token, 1)]


def _fired(spec: StageSpec, schedule: Schedule, tokens: int) -> list[int]:
    if spec.clock is None:
        return _by_stride(spec, tokens)
    found: list[int] = schedule[spec.clock].ends.tolist()
    return found


def _cells(tokenizer: TextTokenizer | None, ids: Sequence[int]) -> Iterator[str]:
    """The text of every token as it becomes certain, without signs that move the cursor; never empty."""
    if tokenizer is None:
        yield from (f"{token} " for token in ids)
        return
    detokenizer = tokenizer.detokenizer()
    for token in ids:
        yield "".join(map(_sign, detokenizer.push(token))) or "\u00b7"


def _sign(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    is_plain = (
        character.isprintable() and unicodedata.east_asian_width(character) not in "WF" and not unicodedata.combining(character)
    )
    return character if is_plain else "\u00b7"


def drawn(timeline: Timeline) -> str:
    """Lines of tokens, and under each of them a line per stage: `#` where it fires."""
    width = max(len("token"), *(len(name) for name in timeline.fires)) + 2
    fires = {name: set(tokens) for name, tokens in timeline.fires.items()}
    blocks = []
    for part in _lines([len(cell) for cell in timeline.cells]):
        cells = [timeline.cells[token] for token in part]
        lines = ["token".ljust(width) + _ruler(part, cells)]
        if any(cell.strip() for cell in cells):
            lines.append("text".ljust(width) + "".join(cells))
        for name, tokens in fires.items():
            marks = ("#" if token in tokens else "." for token in part)
            lines.append(name.ljust(width) + "".join(mark.ljust(len(cell)) for mark, cell in zip(marks, cells, strict=True)))
        blocks.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(blocks)


def _lines(widths: Sequence[int]) -> Iterator[range]:
    """Tokens that stand in a line together."""
    start = taken = 0
    for token, width in enumerate(widths):
        if taken + width > _WIDTH and token > start:
            yield range(start, token)
            start, taken = token, 0
        taken += width
    yield range(start, len(widths))


def _ruler(part: range, cells: Sequence[str]) -> str:
    """The number of the tens, above every tenth token; of a later line, the first token's whole number."""
    marks = [str(token // 10 % 10) if token % 10 == 0 else "" for token in part]
    if part.start:
        marks[0] = str(part.start)
    line, place = "", 0
    for mark, cell in zip(marks, cells, strict=True):
        if mark and place >= len(line):
            line = line.ljust(place) + mark
        place += len(cell)
    return line


def told(schedule: Schedule) -> list[str]:
    """A line on every clock: how often it fired, and how near a value came to the threshold."""
    lines = []
    for clock, decisions in schedule.items():
        name = "by the ids of tokens" if clock.stage is None else f'of stage "{clock.stage}"'
        line = f"boundaries {name}: {int(decisions.made.sum())} of {len(decisions.made)} rows"
        if decisions.made.any():
            line += f", one in {decisions.tokens_per_boundary:.3g}"
        margins = decisions.margins(clock)
        if len(margins) and np.isfinite(margins.min()):
            nearest = int(margins.argmin())
            line += (
                f"; nearest to the threshold {clock.threshold:g}: token {decisions.tokens[nearest]}, by {margins[nearest]:.2g}"
            )
        lines.append(line)
    return lines


def as_json(timeline: Timeline) -> dict[str, Any]:
    """Tokens that fired, by stage; and what was decided, by what decides it."""
    found: dict[str, Any] = {"timeline": timeline.fires}
    if timeline.schedule:
        found["boundaries"] = [
            {
                "stage": clock.stage,
                "threshold": None if clock.stage is None else clock.threshold,
                "tokens": decisions.tokens.tolist(),
                "values": decisions.values.tolist(),
                "made": decisions.made.tolist(),
            }
            for clock, decisions in timeline.schedule.items()
        ]
    return found
