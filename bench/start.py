"""From nothing to the first token: what a new process spends its time on, and the memory of several: the figures of
docs/performance.md.

    python -m foveal.bench.start BUNDLE [--rounds 7] [--workers 4] [--against OTHER/bin/python] [--evict]

Every sample is a process of its own, counted from its start by the system's clock. A *first* load finds nothing remembered of
the bundle, so that numbers of threads race; a *later* one finds that. Rounds take turns; the first of each kind is not counted:
it leaves compiled Python files, as pip does, and the bundle in the page cache, unless `--evict` drops it there before each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any

import msgspec
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from ..files import scratch_directory, write_atomically
from .environment import read_environment
from .script import run_script

# By what every version of foveal has, so that an older one can be raced.
_START = """
from time import perf_counter as now
marks = [("interpreter", now())]
import foveal.runtime, os, sys, json
load = foveal.load
marks.append(("import foveal, numpy", now()))
import onnxruntime
marks.append(("import onnxruntime", now()))
bundle, tokens, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
model = load(bundle, **options)
marks.append(("load", now()))
session = model.session()
marks.append(("session", now()))
logits = session.advance([[index % 64 for index in range(tokens)]], last_only=True)
marks.append(("prefill", now()))
session.advance([[int(logits.argmax())]], last_only=True)
marks.append(("first token", now()))
print(json.dumps([marks, model.threads]), flush=True)
sys.stdin.read()
"""
# What `load` is made of, each alone, the machine's CPUs to itself.
_PARTS = """
from time import perf_counter as now
import foveal.runtime, onnxruntime, sys, json
from foveal.bundle import open_bundle
from foveal.runtime.backends import open_engines
from foveal.runtime.model import load
marks = [("", now())]
opened = open_bundle(sys.argv[1], "used")
marks.append(("manifest, names, sizes, small files", now()))
opened.check(*(name for name in opened.manifest.files if name.startswith("engines/cpu/")))
marks.append(("hashes of what is used", now()))
engines = open_engines(opened, "cpu", 2)
marks.append(("engines, of hashed files", now()))
open_bundle(sys.argv[1])
marks.append(("hashes of all files, for comparison", now()))
print(json.dumps([marks, 2]), flush=True)
sys.stdin.read()
"""
Phases = dict[str, float]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Of one worker among several of the same bundle, in MB, after its first token: averages.

    Attributes:
        resident: all its pages in memory.
        proportional: each page divided by the processes that have it.
        private: pages that it alone has.
    """

    resident: float
    proportional: float
    private: float


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Medians by system and kind of load: milliseconds of each phase and of all, and the number of `threads`; every sample."""

    bundle: str
    tokens: int
    is_evicted: bool
    phases: dict[str, Phases]
    parts: Phases
    samples: dict[str, list[Phases]]
    memory: dict[str, Memory]


def measure(
    bundle: Path, rounds: int, tokens: int, workers: int, pythons: Mapping[str, str], evict: bool, options: Mapping[str, object]
) -> Start:
    """Start so many processes of each kind, in turn.

    Args:
        bundle: with engines for `cpu`.
        rounds: counted ones.
        tokens: of the prompt.
        workers: processes at once, whose memory is measured; 0: that is left out.
        pythons: interpreters that have a foveal each, by what they are called.
        evict: drop the bundle from the page cache before each start.
        options: of `load`, as verify; they must be known to every foveal.

    Raises:
        ConfigError: a process failed; its last line says why.
    """
    samples: dict[str, list[Phases]] = {}
    parts: list[Phases] = []
    with scratch_directory() as scratch:
        for counted in [False] + [True] * rounds:
            for name, python in pythons.items():
                kept = scratch / f"{name} kept"
                for kind, cache in (("first", scratch / f"{name} {len(samples.get(f'{name}, first', ()))}"), ("later", kept)):
                    if evict:
                        drop_from_page_cache(bundle)
                    with _process(python, _START, bundle, tokens, options, cache, scratch) as found:
                        if counted:
                            samples.setdefault(f"{name}, {kind}", []).append(found.phases)
            with _process(sys.executable, _PARTS, bundle, tokens, {}, scratch / "parts", scratch) as found:
                if counted:
                    parts.append(found.phases)
        memory = {
            name: _memory(python, bundle, tokens, options, scratch, workers) for name, python in pythons.items() if workers
        }
    return Start(
        bundle=bundle.name,
        tokens=tokens,
        is_evicted=evict,
        phases={name: _medians(each) for name, each in samples.items()},
        parts={name: value for name, value in _medians(parts).items() if name not in ("", "all", "threads")},
        samples=samples,
        memory=memory,
    )


def _medians(samples: list[Phases]) -> Phases:
    return {name: median(sample[name] for sample in samples) for name in samples[0]}


class _Started(msgspec.Struct, frozen=True):
    pid: int
    phases: Phases


@contextmanager
def _process(
    python: str, code: str, bundle: Path, tokens: int, options: Mapping[str, object], cache: Path, scratch: Path
) -> Iterator[_Started]:
    """A process that has come to its end and lives on until the block ends."""
    command = [python, "-c", code, str(bundle), str(tokens), json.dumps(options)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"FOVEAL_CACHE": str(cache)}
    with (scratch / "errors").open("w+") as errors:
        began = time.clock_gettime(time.CLOCK_MONOTONIC)
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=scratch
        ) as running:
            try:
                yield _Started(running.pid, _phases(running.stdout, began, errors))
            finally:
                if running.stdin is not None:
                    running.stdin.close()


def _phases(stdout: IO[str] | None, began: float, errors: IO[str]) -> Phases:
    line = stdout.readline() if stdout is not None else ""
    if not line:
        errors.seek(0)
        raise ConfigError(f"a measured process failed: {(errors.read().strip().splitlines() or ['it said nothing'])[-1]}")
    found, before = Phases(), began
    marks, threads = json.loads(line)
    for name, at in marks:
        found[name], before = (at - before) * 1e3, at
    return found | {"all": (before - began) * 1e3, "threads": threads}


def _memory(python: str, bundle: Path, tokens: int, options: Mapping[str, object], scratch: Path, workers: int) -> Memory:
    with ExitStack() as stack:
        each = [
            stack.enter_context(_process(python, _START, bundle, tokens, options, scratch / "workers", scratch)).pid
            for _ in range(workers)
        ]
        found = [_mapped(pid) for pid in each]
    return Memory(
        resident=_mean_mb(found, "Rss"),
        proportional=_mean_mb(found, "Pss"),
        private=_mean_mb(found, "Private_Clean") + _mean_mb(found, "Private_Dirty"),
    )


def _mapped(pid: int) -> dict[str, int]:
    """Kilobytes by kind, as Linux counts them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.removesuffix(":"): int(size) for name, size, *_ in map(str.split, lines)}


def _mean_mb(found: list[dict[str, int]], kind: str) -> float:
    return sum(each[kind] for each in found) / len(found) / 1e3


def drop_from_page_cache(bundle: Path) -> None:
    """Have the next reader of a bundle read it from the disk; pages that another process has mapped stay."""
    for file in bundle.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # a page that is not written yet is not dropped
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _show(found: Start, console: Console) -> None:
    where = "from the disk" if found.is_evicted else "from the page cache"
    console.print(f"{found.bundle}, {where}: milliseconds to the first token behind a prompt of {found.tokens}")
    table = Table("", *found.phases, box=None)
    for name in next(iter(found.phases.values())):
        table.add_row(name, *(f"{each[name]:.0f}" for each in found.phases.values()))
    console.print(table)
    console.print("of which, each alone:", *(f"{name} {ms:.0f}" for name, ms in found.parts.items()), sep="\n  ")
    for name, memory in found.memory.items():
        each = f"{memory.resident:.0f} resident, {memory.proportional:.0f} proportional, {memory.private:.0f} private"
        console.print(f"{name}: MB of each worker: {each}")


def main() -> None:
    """Measure, print a table and save the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128, help="of the prompt")
    parser.add_argument("--workers", type=int, default=4, help="processes whose memory is measured; 0: none")
    parser.add_argument("--against", metavar="PYTHON", help="an interpreter with another version of foveal")
    parser.add_argument("--verify", help="as of load; older versions have none")
    parser.add_argument("--evict", action="store_true", help="drop the bundle from the page cache before each start")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    for name, least in (("rounds", 1), ("tokens", 1), ("workers", 0)):
        if (count := getattr(given, name)) < least:
            raise ConfigError(f"{name} must be at least {least}, got {count}")
    pythons = {"this": sys.executable} | ({"other": given.against} if given.against else {})
    options: dict[str, Any] = {} if given.verify is None else {"verify": given.verify}
    bundle = given.bundle.resolve()
    found = measure(bundle, given.rounds, given.tokens, given.workers, pythons, given.evict, options)
    _show(found, Console())
    if given.save:
        write_atomically(given.save, msgspec.json.encode({"environment": read_environment(), "start": found}))


if __name__ == "__main__":
    run_script(main)
