"""README's and the home page's figures, from the table that `make peers` writes into docs/performance.md.

    python website/figures.py

Of each system and width of weights the fastest, in milliseconds per token. A test sees that both pages hold what this writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from foveal.bench.document import insert
from foveal.files import write_atomically

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "docs" / "performance.md"
PAGES = (ROOT / "README.md", ROOT / "docs" / "index.md")
MARK = "peers, in short"
KINDS = ("fp32", "8-bit", "4-bit")
SYSTEM = re.compile(r"^(?P<name>\S+) `(?P<hierarchy>[^`]+)` (?P<precision>.+)$")
"""As `foveal 12@1 int8`; a second word behind the name is an older commit, which is not shown."""


class Row(NamedTuple):
    """A system in one precision."""

    system: str
    hierarchy: str
    kind: str
    ms: float


def table(document: str) -> str:
    """The short table, and what it was measured on, of the whole document."""
    part = document[document.index("<!-- figures: peers -->") : document.index("<!-- end: peers -->")]
    best: dict[tuple[str, str], dict[str, float]] = {}
    for row in _rows(part):
        times = best.setdefault((row.system, row.hierarchy), {})
        times[row.kind] = min(row.ms, times.get(row.kind, row.ms))
    own = [key for key in best if key[0] == "foveal"]
    order = sorted(own, key=lambda key: best[key]["fp32"]) + [key for key in best if key not in own]
    lines = [f"| ms per token | {' | '.join(KINDS)} |", "| --- | ---: | ---: | ---: |"]
    for system, hierarchy in order:
        times = best[system, hierarchy]
        cells = [f"{times[kind]:.2f}" if kind in times else "-" for kind in KINDS]
        if (system, hierarchy) == order[0]:
            cells = [f"**{cell}**" for cell in cells]
        lines.append(f"| {system} `{hierarchy}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _measured(part)])


def _rows(part: str) -> Iterator[Row]:
    kind = ""
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].strip("*") in KINDS:
            kind = cells[0].strip("*")
        elif (found := SYSTEM.match(cells[0])) and kind and len(cells) > 4:
            yield Row(found["name"], found["hierarchy"], kind, float(cells[1]))


def _measured(part: str) -> str:
    """Machine, date and work, of the sentence below the whole table."""
    found = re.search(r"^(?P<machine>[^|\n]+?), Linux.*?(?P<date>\d{4}-\d\d-\d\d)\. (?P<work>.*?)\. Logits", part, re.MULTILINE)
    assert found is not None, f"{SOURCE} does not say what its table was measured on"
    return f"{found['machine']}, {found['date']}: {found['work']}. The fastest of each system. Measured by `make peers`."


def main() -> None:
    """Write both pages."""
    text = table(SOURCE.read_text(encoding="utf-8"))
    for page in PAGES:
        write_atomically(page, insert(page.read_text(encoding="utf-8"), {MARK: text}).encode())


if __name__ == "__main__":
    main()
