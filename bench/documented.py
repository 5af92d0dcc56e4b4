"""Reruns the measurements of docs/performance.md: says which figures changed beyond noise, keeps the new ones beside the docs
and writes their tables.

python -m foveal.bench.documented [NAME...] [--saved] [--least 0.1]
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from ..errors import ConfigError
from ..files import require_place, write_atomically
from .difference import difference
from .document import insert
from .result import BenchResult, read_result, without_samples
from .result_markdown import markdown, stage_markdown
from .script import run_script
from .show_difference import show_difference

_TEXT = "models/checkpoints/text/calibration.txt"
_DEEP, _PAPER = "4@1 5@4 9@16 4@4 4@1", "2@1 8@4 2@1"
LEAST = 0.1
"""The smallest change that counts: from run to run a virtual machine differs by as much."""


@dataclass(frozen=True)
class Measurement:
    """One command whose figures the docs have.

    Attributes:
        arguments: of `foveal bench`.
        tables: what stands in the document, by the names of their places.
    """

    name: str
    arguments: Sequence[str]
    tables: dict[str, Callable[[BenchResult], str]]

    @property
    def command(self) -> str:
        """As one types it."""
        return "foveal bench " + " ".join(f'"{one}"' if "@" in one else one for one in self.arguments)


def _hierarchies(*hierarchies: str) -> tuple[str, ...]:
    return tuple(part for hierarchy in hierarchies for part in ("--hierarchy", hierarchy))


def _load(prompt: int, new: int) -> tuple[str, ...]:
    return "--prompt-tokens", str(prompt), "--new-tokens", str(new)


_TWO = ("--threads", "2")  # a race of numbers of threads would be another thing that differs from run to run
_PRECISIONS = tuple(part for precision in ("fp32", "int8", "w8", "w4", "fp16") for part in ("--precision", precision))
MEASUREMENTS = (
    Measurement("paper", (*_hierarchies(_PAPER, "12@1"), "--eager", *_load(512, 512), *_TWO), {"paper": markdown}),
    Measurement(
        "article",
        (*_hierarchies(_DEEP, "14@1"), *_load(512, 512), *_TWO),
        {"article": markdown, "article stages": lambda result: stage_markdown(result, _DEEP)},
    ),
    Measurement(
        "precision",
        (*_hierarchies(_PAPER), *_PRECISIONS, "--calibration", _TEXT, *_load(512, 512), *_TWO, "--rounds", "8"),
        {"precision": markdown},
    ),
    Measurement(
        "batch",
        (
            *(*_hierarchies(_DEEP, _PAPER), "--precision", "int8", "--calibration", _TEXT),
            *("--batch", "16", "--policy", "staggered,aligned", *_load(512, 256), "--threads", "1"),
        ),
        {},
    ),
)


def rerun(
    names: Sequence[str],
    results: Path,
    document: Path,
    raw: Path,
    *,
    is_measured: bool = False,
    least: float = LEAST,
    console: Console | None = None,
) -> list[str]:
    """Measure, compare with the last results, and write the new results and tables.

    Args:
        names: of `MEASUREMENTS`; none: all.
        results: the folder of the results that the docs' tables are made of, without raw samples.
        document: where the tables stand.
        raw: the folder for results with raw samples.
        is_measured: take what is in `raw` already, and measure nothing.
        least: the smallest change that counts.
        console: for what changed.

    Returns:
        The names of the measurements of which a figure changed beyond noise or is missing.

    Raises:
        ConfigError: an unknown name, a document that has no place for a table, or a measurement that failed.
        StorageError: a place can't be written to.
    """
    console, chosen = console or Console(width=None if sys.stdout.isatty() else 120), _chosen(names)
    text = document.read_text(encoding="utf-8")
    for one in chosen:  # better to fail now than after all the work
        insert(text, dict.fromkeys(one.tables, ""))
        require_place(results / f"{one.name}.json")
    changed = []
    for one in chosen:
        console.rule(one.name)
        file = raw / f"{one.name}.json"
        if not is_measured:
            measure(one, file)
        result = read_result(file)
        if _tell(one, result, results / f"{one.name}.json", least, console):
            changed.append(one.name)
        kept = msgspec.structs.replace(without_samples(result), command=_without_place(result.command))
        small = msgspec.json.format(msgspec.json.encode(kept), indent=1)
        write_atomically(results / f"{one.name}.json", small + b"\n")
        write_atomically(document, insert(document.read_text(encoding="utf-8"), tables_of(one, result)).encode())
    console.rule()
    console.print(f"changed beyond noise: {', '.join(changed) or 'nothing'}; the tables of {document} are those of this run")
    return changed


def tables_of(one: Measurement, result: BenchResult) -> dict[str, str]:
    """What stands in the document, by the names of the places."""
    return {name: table(result) for name, table in one.tables.items()}


def measure(one: Measurement, file: Path) -> None:
    """Run its command in a process of its own, and keep the result.

    Raises:
        ConfigError: the command failed; it has said why.
    """
    done = subprocess.run([sys.executable, "-m", "foveal.cli", "bench", *one.arguments, "--save", str(file)], check=False)
    if done.returncode not in (0, 5):  # 5: a figure is missing, and the result says so
        raise ConfigError(f"{one.command} failed with exit code {done.returncode}; it says above why")


def _without_place(command: str) -> str:
    """A command without the file that its result was saved to, which is nobody else's business."""
    parts = shlex.split(command)
    saved = parts.index("--save") if "--save" in parts else len(parts)
    return shlex.join(parts[:saved] + parts[saved + 2 :])


def _chosen(names: Sequence[str]) -> Sequence[Measurement]:
    known = {one.name: one for one in MEASUREMENTS}
    for name in names:
        if name not in known:
            raise ConfigError(f'there is no measurement "{name}"; there are: {", ".join(known)}')
    return [known[name] for name in dict.fromkeys(names)] or MEASUREMENTS


def _tell(one: Measurement, result: BenchResult, last: Path, least: float, console: Console) -> bool:
    """Print what changed since the last result; whether anything did."""
    if not last.exists():
        console.print(f"{last} is not there: nothing to compare with")
        return False
    found = difference(read_result(last), result, least)
    show_difference(found, console)
    return bool(found.changed or found.missing)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m foveal.bench.documented", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(one.name for one in MEASUREMENTS))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--document", type=Path, default=Path("docs/performance.md"))
    parser.add_argument("--raw", type=Path, default=Path("build/performance"))
    parser.add_argument("--saved", action="store_true", help="measure nothing: take the results that are in --raw")
    parser.add_argument("--least", type=float, default=LEAST, help="the smallest change that counts, as a share")
    given = parser.parse_args()
    rerun(
        given.names,
        given.results,
        given.document,
        given.raw,
        is_measured=given.saved,
        least=given.least,
    )


if __name__ == "__main__":
    run_script(main)
