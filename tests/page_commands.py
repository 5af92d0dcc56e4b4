"""What the pages tell people to type: shell commands and Python blocks, and which of them the tests do not run, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
RUN_ELSEWHERE = {
    "report-hourglass.md": "written by foveal report: tests/cli/test_report.py",
    "embedding.md": "tests/docs/test_embedding.py runs its blocks as one program",
    "hub.md": "tests/docs/test_hub.py runs its commands against a hub of its own",
    "your-own-model.md": "tests/docs/test_your_own_model.py runs its blocks as one program",
}
"""Pages that have a test of their own."""

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_SHELL = ("sh", "bash", "console", "")
"""Blocks without a language are what a terminal shows: their lines that begin with `$ ` were typed."""


class Typed(NamedTuple):
    """A command, or a block of Python."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


class Reason(NamedTuple):
    """Commands that are not run: those in which the pattern is found."""

    pattern: str
    why: str


NOT_RUN = (
    Reason(r"^(sudo |scp |docker |kubectl |umask )", "another machine, or a container engine"),
    Reason(r"^make |^\.venv/bin/python -m pytest", "runs tests or benchmarks itself; the Makefile's parts have tests"),
    Reason(r"\bpip3? (install|download)\b|^python3? -m (venv|zipfile) |^\. ", "installs, or needs a network"),
    Reason(r"--target tensorrt( |$)|--power", "TensorRT's libraries and a GPU, or a power meter (docs/support.md)"),
    Reason(
        r"^aiperf |tritonserver|^site=|^mkdir backends|^cp -r \$site|^ln -s \"\$PWD\"|^export LD_LIBRARY|^triton/",
        "NVIDIA's programs",
    ),
    Reason(r"InferenceServerClient", "a Triton server"),
    Reason(r" --ray |x-session-id", "a Ray cluster: tests/distributed"),
    Reason(
        r"^foveal bench claims|^python -m foveal\.bench\.|^foveal train runs/\w+ \.\.\.",
        "minutes: tests/bench, or not a whole command",
    ),
    Reason(r"RandomModels\(dim=512", "minutes: tests/bench/test_random_models.py"),
    Reason(r"^foveal eval int8\.bundle --against fp32\.bundle", "a model whose data decides: tests/calibration/test_flips.py"),
)
"""A command is run unless it is here."""


def typed(page: Path) -> Iterator[Typed]:
    """Everything that a page tells one to type, in its order."""
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        indent, language, block = fence.groups()
        first = text[: fence.start()].count("\n") + 2
        lines = [line.removeprefix(indent) for line in block.splitlines()]
        if language == "python":
            yield Typed(page.name, first, "python", "\n".join(lines))
        elif language in _SHELL:
            yield from _statements(page.name, first, lines, transcript=not language)


def reason(command: Typed) -> str | None:
    """Why it is not run; None: it is."""
    if command.language == "python" and command.page in RUN_ELSEWHERE:
        return None
    return next((each.why for each in NOT_RUN if re.search(each.pattern, command.text)), None)


def _statements(page: str, first: int, lines: list[str], transcript: bool) -> Iterator[Typed]:
    """Whole statements of a shell: lines that go on with a backslash, in a loop or inside quotes are one."""
    begun, start = "", first
    for number, line in enumerate(lines, first):
        if not begun:
            start = number
            if transcript and not line.startswith("$ "):
                continue
        whole = f"{begun}\n{line}" if begun else line.removeprefix("$ ")
        begun = whole if _goes_on(whole) else ""
        if not begun and re.sub(r"(^|\s)#.*", "", whole, flags=re.MULTILINE).strip():
            yield Typed(page, start, "sh", whole.strip())


def _goes_on(statement: str) -> bool:
    bare = re.sub(r"(^|\s)#[^\n]*", "", re.sub(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"", "x", statement))
    loops = len(re.findall(r"\bdo\b", bare)) - len(re.findall(r"\bdone\b", bare))
    return statement.endswith("\\") or loops > 0 or "'" in bare or '"' in bare


def coverage() -> dict[str, tuple[int, int]]:
    """By page: what is run, and what there is."""
    found = {}
    for page in PAGES:
        commands = list(typed(page))
        if commands:
            found[page.name] = (sum(reason(each) is None for each in commands), len(commands))
    return found


if __name__ == "__main__":
    for name, (run, all_) in coverage().items():
        print(f"{name:24} {run:3} of {all_:3}")
    totals = [sum(column) for column in zip(*coverage().values(), strict=True)]
    print(f"{'all':24} {totals[0]:3} of {totals[1]:3}")
    for entry in NOT_RUN:
        count = sum(reason(each) == entry.why for page in PAGES for each in typed(page))
        print(f"  not run: {count:3} {entry.why}")
