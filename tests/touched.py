"""`make check`: runs the tests nearest to what differs from the branch main, committed or not, as many as take a minute.

    python tests/touched.py [arguments of pytest]

Nearest are the tests of the same place (tests/export/test_building.py for export/building.py), then those of the same folder
and those that import it, then those that import what imports it, and so on; among equals the quickest come first, so that of a
change that everything depends on many small files are run. What is left out is said; `make test` runs it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from imports import ROOT, Users

TESTS = ROOT / "tests"
SECONDS = ROOT / ".pytest_cache" / "v" / "foveal" / "seconds"
"""Of each test file, as the last run here took them: tests/conftest.py."""
USES_MODELS = re.compile(r"\b(zoo|goldens|precise|family|store|convert(_model)?)\b")
SLOW, QUICK = 10.0, 1.0
"""Seconds of a test file that was not run here yet: with models, which somebody must convert, and without."""
BUDGET = 32.0
"""Seconds on each core, at most four; lint, types and the start of pytest take the rest of the minute."""


class Choice(NamedTuple):
    """Test files to run, nearest first, and those that are touched too but would take too long."""

    chosen: list[Path]
    left_out: list[Path]


def touched(changed: Iterable[Path], users: Users) -> dict[Path, int]:
    """How far each test file is from the nearest changed file; those that nothing reaches are left out."""
    found: dict[Path, int] = {}
    there = [path for path in changed if path.exists()]
    sources = {path for path in there if path in users.files}
    data = [path for path in there if path.suffix != ".py"]
    distances = users.distances(sources)
    naming = users.distances({file for path in data for file in _that_name(path, users)})
    distances |= {file: min(1 + step, distances.get(file, 1 + step)) for file, step in naming.items()}
    for test in (file for file in users.files if is_test(file)):
        steps = [distances[test]] if test in distances else []
        steps += [step for path in there if (step := _by_place(path, test)) is not None]
        if steps:
            found[test] = min(steps)
    return found


def is_test(file: Path) -> bool:
    """Whether pytest collects it; what takes a GPU is for `make gpu-check`."""
    return TESTS in file.parents and file.stem.startswith("test_") and TESTS / "gpu" not in file.parents


def choose(distances: Mapping[Path, int], seconds: Mapping[str, float], budget: float) -> Choice:
    """As many as the budget allows, nearest first, but all that are at no distance."""
    chosen, left_out, spent = [], [], 0.0
    for test in sorted(distances, key=lambda test: (distances[test], _seconds_of(test, seconds), test)):
        spent += _seconds_of(test, seconds)
        (chosen if distances[test] == 0 or (spent <= budget and not left_out) else left_out).append(test)
    return Choice(chosen, left_out)


def _seconds_of(test: Path, seconds: Mapping[str, float]) -> float:
    known = seconds.get(test.relative_to(ROOT).as_posix())
    if known is not None:
        return known
    return SLOW if test.exists() and USES_MODELS.search(test.read_text(encoding="utf-8")) else QUICK


def _by_place(changed: Path, test: Path) -> int | None:
    """0 for the test of a file's own place, 1 for others of its folder; None for other folders."""
    place, folder = changed.relative_to(ROOT), test.parent.relative_to(TESTS)
    if changed.suffix == ".md" and len(place.parts) == 1:
        return 1 if folder == Path("docs") else None
    if place.parent != folder or TESTS in changed.parents:
        return None
    if test.stem.startswith(f"test_{changed.stem}") and changed.suffix == ".py":
        return 0
    return 1 if place.parent.parts else 1 if changed.suffix != ".py" and test.stem == "test_layout" else None


def _that_name(data: Path, users: Users) -> list[Path]:
    """Sources that say the name of a file that is not Python's, or of a folder that it is in."""
    names = [f'"{part}"' for part in data.relative_to(ROOT).parts if part not in ("tests", "docs", "models")]
    return [file for file in users.files if any(name in file.read_text(encoding="utf-8") for name in names)]


def changed_files() -> list[Path]:
    """What differs from where this branch left main, and what git does not know yet."""
    bases = [_git("merge-base", "HEAD", branch) for branch in ("main", "origin/main")]
    base = next((found[0] for found in bases if found), "HEAD")
    return [ROOT / name for name in (*_git("diff", "--name-only", base), *_git("ls-files", "--others", "--exclude-standard"))]


def _git(*arguments: str) -> list[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()


def main(arguments: list[str]) -> int:
    """Say what is run and what is not, and run it."""
    if not (ROOT / ".git").exists():
        print("this is no git checkout, so nobody knows what changed; make test runs everything")
        return 1
    changed = changed_files()
    distances = touched(changed, Users())
    seconds = json.loads(SECONDS.read_text()) if SECONDS.is_file() else {}
    chosen, left_out = choose(distances, seconds, BUDGET * min(os.cpu_count() or 1, 4))
    print(f"{len(changed)} differences from main touch {len(distances)} test files, of which {len(chosen)} are run")
    if left_out:
        nearest = ", ".join(str(test.relative_to(ROOT)) for test in left_out[:3])
        print(f"left to make test, which takes longer: {nearest}{' ...' if len(left_out) > 3 else ''}")
    if not chosen:
        return 0
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *map(str, chosen), *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
