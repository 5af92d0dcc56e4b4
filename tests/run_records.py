"""What is kept of a run of the tests: how long each file took, and in words, where asked to, how it ended and on what."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from foveal.bench.environment import Environment, read_environment
from foveal.files import write_atomically

KEY = "foveal/seconds"
"""In pytest's cache: seconds by test file, of its last run here."""
BEGIN, END = "<!-- the last run: make test-deep writes it -->", "<!-- -->"


class RunRecords:
    """A plugin of the process that reports, which with xdist runs no test itself."""

    def __init__(self, page: Path | None) -> None:
        self.page, self.began = page, time.perf_counter()
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a test's setup, call or teardown."""
        self.seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """Keep both; of a run of single tests, or one that was broken off, no times."""
        counts = {name: len(found) for name, found in terminalreporter.stats.items()}
        cache = getattr(config, "cache", None)  # there is none with -p no:cacheprovider
        if cache is not None and not any("::" in argument for argument in config.args):
            cache.set(KEY, cache.get(KEY, {}) | self.seconds)
        if self.page is not None:
            seconds, examples = time.perf_counter() - self.began, os.environ.get("FOVEAL_EXAMPLES", "25")
            write_record(self.page, sentence(counts, seconds, examples, read_environment(), _commit()))


def sentence(counts: dict[str, int], seconds: float, examples: str, machine: Environment, commit: str) -> str:
    """How a run ended, in words."""
    named = [f"{counts[name]:,} {name}" for name in ("passed", "failed", "error", "skipped") if counts.get(name)]
    versions = ", ".join(f"{name} {machine.packages[name]}" for name in ("torch", "onnxruntime", "tensorrt_rtx"))
    return (
        f"{machine.created_utc[:10]}, commit {commit}: {', '.join(named) or 'no tests'}, in {seconds / 60:.0f} minutes on "
        f"{machine.cpus_usable} cores ({machine.cpu}), with {examples} examples of most properties.\n"
        f"Python {machine.python}, {versions}."
    )


def write_record(page: Path, text: str) -> None:
    """Put a sentence between the marks of a page.

    Raises:
        ValueError: the page has no marks.
    """
    old = page.read_text(encoding="utf-8")
    new, places = re.subn(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{text}\n{END}", old, flags=re.DOTALL)
    if places != 1:
        raise ValueError(f"{page} has {places} places for a record, expected one: {BEGIN} ... {END}")
    write_atomically(page, new.encode())


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
