"""What a constraint costs: its masks, and what generation waits for them beside a step of the engines (docs/constraints.md).

python -m foveal.bench.constraints --tokenizer models/checkpoints/hourglass/tokenizer.json

A model that draws any allowed token writes texts; a step of the engines is a computation of so many milliseconds on one core or
on all of them, without Python's lock, as theirs are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from ..runtime.guides.constraint import Constraint
from ..runtime.guides.guides import Guides
from ..runtime.spelling import Spelling
from ..runtime.tokenizer import ByteTokenizer, HuggingFaceTokenizer, TextTokenizer
from .environment import read_environment, usable_cpus
from .script import run_script
from .statistics import percentile

_RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 4},
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
        },
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
}
_WIDE = {
    "type": "object",
    "properties": {f"field_{index}": {"anyOf": [_RECORD, {"type": "number"}, {"type": "string"}]} for index in range(200)},
    "additionalProperties": False,
}
CONSTRAINTS = {
    "any JSON": Constraint("json_schema", "{}"),
    "a record": Constraint("json_schema", json.dumps(_RECORD)),
    "200 fields": Constraint("json_schema", json.dumps(_WIDE)),
    "regex": Constraint("regex", r"([A-Z][a-z]{2,12} ){3,20}[a-z]+\."),
    "grammar": Constraint(
        "grammar", 'start: sum\nsum: product (("+" | "-") product)*\nproduct: item ("*" item)*\nitem: /[0-9]+/ | "(" sum ")"'
    ),
}


class _Larger(ByteTokenizer):
    """A vocabulary as large as one likes: pairs of another's tokens behind its own."""

    def __init__(self, tokenizer: TextTokenizer, size: int) -> None:
        spelling = tokenizer.spelling()
        own, rng = [*spelling.written], np.random.default_rng(0)
        pairs = rng.integers(len(own), size=(size, 2)).tolist()
        written = [*own, *(own[first] + own[second] for first, second in pairs)][:size]
        self._spelling = Spelling(written, spelling.encode)

    def spelling(self) -> Spelling:
        """Its own."""
        return self._spelling


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json, measured beside bytes")
    parser.add_argument("--large", type=int, default=128_000, help="a vocabulary of so many made-up tokens as well")
    parser.add_argument("--tokens", type=int, default=3000, help="masks of each kind")
    parser.add_argument("--waits", type=int, default=1000, help="tokens beside each step")
    parser.add_argument("--step-ms", nargs="+", type=float, default=[0.25, 1, 4])
    given = parser.parse_args()
    shipped = HuggingFaceTokenizer(given.tokenizer)
    made_up = _Larger(shipped, given.large)
    kinds: dict[str, TextTokenizer] = {"bytes": ByteTokenizer(), given.tokenizer.parent.name: shipped, "made up": made_up}
    console, found = Console(width=150), read_environment()
    console.print(f"{found.cpu}, {found.cpus_usable} CPUs, load {found.load_1min}, {found.created_utc}")
    made = {}
    for name, kind in kinds.items():
        size = len(kind.spelling().written)
        began = perf_counter()
        made[f"{name}, {size:,}"] = Guides(kind, size)
        console.print(f"{name}: guides for {size:,} ids made in {(perf_counter() - began) * 1e3:.0f} ms")
    console.print(_mask_table(made, given.tokens))
    console.print(_wait_table(made, given.waits, given.step_ms))


def _mask_table(made: dict[str, Guides], tokens: int) -> Table:
    table = Table("vocabulary", "constraint", "begun in, ms", "median", "p99", "most", title="a mask, us", box=None)
    for name, guides in made.items():
        for title, constraint in CONSTRAINTS.items():
            rng = np.random.default_rng(0)
            begun: list[float] = []
            masks: list[float] = []
            while len(masks) < tokens:
                began = perf_counter()
                guide = guides.guide(constraint)
                begun.append(perf_counter() - began)
                before = 0.0
                for token in _draws(guide.allowed, rng):
                    masks.append(guide.seconds - before)
                    before = guide.seconds
                    guide.take(token)
                guide.close()
            table.add_row(
                name, title, f"{_at(begun, 0.5) * 1e3:.1f}", *(f"{_at(masks, share) * 1e6:,.0f}" for share in (0.5, 0.99, 1))
            )
    return table


def _wait_table(made: dict[str, Guides], tokens: int, steps_ms: Sequence[float]) -> Table:
    title = "beside a step: what is waited for a mask, us, and what a token takes more than without, us"
    table = Table("vocabulary", "step, ms", "cores", "waits, median", "p99", "most", "more, median", title=title, box=None)
    with ThreadPoolExecutor(usable_cpus()) as threads:
        for name, guides in made.items():
            for milliseconds in steps_ms:
                for cores in sorted({1, usable_cpus()}):
                    waits, more = _beside(guides, tokens, _Step(milliseconds, cores, threads))
                    row = [f"{_at(waits, share) * 1e6:,.0f}" for share in (0.5, 0.99, 1)]
                    table.add_row(name, f"{milliseconds:g}", str(cores), *row, f"{more * 1e6:,.0f}")
    return table


def _beside(guides: Guides, tokens: int, step: _Step) -> tuple[list[float], float]:
    """Seconds waited per token, and by how much the median token is slower than a step alone; rounds of both take turns."""
    rng = np.random.default_rng(0)
    waits: list[float] = []
    guided: list[float] = []
    alone: list[float] = []
    while len(waits) < tokens:
        guide = guides.guide(CONSTRAINTS["a record"])
        for token in _draws(guide.allowed, rng):
            before = guide.waited_seconds
            began = perf_counter()
            guide.take(token)
            step.run()
            guide.allowed()
            guided.append(perf_counter() - began)
            waits.append(guide.waited_seconds - before)
            began = perf_counter()
            step.run()
            alone.append(perf_counter() - began)
        guide.close()
    return waits, _at(guided, 0.5) - _at(alone, 0.5)


class _Step:
    """A computation of so many milliseconds on so many cores."""

    def __init__(self, milliseconds: float, cores: int, threads: ThreadPoolExecutor) -> None:
        self._threads, self._cores = threads, cores
        sample = bytes(1 << 22)
        took = min(self._hash(sample) for _ in range(5))
        self._data = bytes(int(len(sample) * milliseconds / 1e3 / took))

    def run(self) -> None:
        others = [self._threads.submit(self._hash, self._data) for _ in range(self._cores - 1)]
        self._hash(self._data)
        for other in others:
            other.result()

    @staticmethod
    def _hash(data: bytes) -> float:
        began = perf_counter()
        hashlib.sha256(data)  # without Python's lock
        return perf_counter() - began


def _draws(allowed: Callable[[], npt.NDArray[np.bool_]], rng: np.random.Generator, most: int = 200) -> Iterator[int]:
    """Tokens drawn among those that are allowed, until none is."""
    for _ in range(most):
        ids = np.flatnonzero(allowed())
        if not ids.size:
            return
        yield int(rng.choice(ids))


def _at(samples: Sequence[float], share: float) -> float:
    found = percentile(sorted(samples), share) if share < 1 else max(samples)
    return float("nan") if found is None else found


if __name__ == "__main__":
    run_script(main)
