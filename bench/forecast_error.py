"""How far forecasts of this machine are off: twelve models, forecast from hierarchies and this machine's rates, and decoded.

Rates come from measurements of their own (`bench/rates`), none of which is of any of these models. Those and the models take
turns, as the speed of a machine that others share changes from minute to minute.

python -m foveal.bench.forecast_error DIRECTORY [--rounds N] [--threads N] [--save F.json] [--document docs/forecast.md]
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec
import numpy as np

from ..files import write_atomically
from ..forecast.devices import Engines, MeasuredDevice
from ..forecast.forecast import Forecast, Work, forecast
from ..forecast.model_shapes import shape_of_hierarchy
from ..models.sizes import Sizes
from ..precision import PRECISIONS
from ..runtime.engines.onnxruntime_library import share_threads
from ..runtime.model import load
from ..runtime.rows import Ids
from ..runtime.session import Session
from .document import insert
from .environment import Environment, read_environment, usable_cpus
from .random_models import RandomModels
from .rates.machine import QUIET_S, ROUNDS, MachineRates
from .script import run_script

_PERIOD = 16
"""Tokens in which every stage of all cases fires."""
_STEPS = 3 * _PERIOD
"""Tokens decoded behind the prompt while time counts."""
_TEXT = Path(__file__).parents[1] / "models" / "checkpoints" / "text" / "calibration.txt"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A model, how it is built, and behind how many tokens it decodes."""

    hierarchy: str
    dim: int
    vocab_size: int = 256
    context: int
    precision: str
    native: bool
    prompt_tokens: int

    @property
    def sizes(self) -> Sizes:
        """Heads of 64 columns, feed forward blocks of four times the width."""
        return Sizes(self.dim, self.dim // 64, 4 * self.dim, self.vocab_size, self.context)

    @property
    def kind(self) -> Engines:
        """Of its engines."""
        return "native" if self.native else "graph"

    def bundle(self, directory: Path) -> Path:
        """Where it is built, once for all cases that differ in nothing that is built."""
        folder = directory / f"{self.dim} {self.vocab_size} {self.context}"
        return folder / (self.hierarchy if self.precision == "fp32" else f"{self.hierarchy} {self.precision}")


_WIDE, _DEEP, _SMALL = "2@1 8@4 2@1", "4@1 5@4 9@16 4@4 4@1", "2@1 2@4 3@16 2@4 2@1"
CASES = (
    Case(hierarchy="12@1", dim=512, context=1024, precision="fp32", native=True, prompt_tokens=96),
    Case(hierarchy="12@1", dim=512, context=1024, precision="int8", native=False, prompt_tokens=512),
    Case(hierarchy="12@1", dim=512, context=1024, precision="w4", native=True, prompt_tokens=896),
    Case(hierarchy=_WIDE, dim=512, context=1024, precision="fp32", native=True, prompt_tokens=896),
    Case(hierarchy=_WIDE, dim=512, context=1024, precision="int8", native=True, prompt_tokens=128),
    Case(hierarchy=_WIDE, dim=512, context=1024, precision="w8", native=False, prompt_tokens=896),
    Case(hierarchy=_DEEP, dim=512, context=1024, precision="fp32", native=False, prompt_tokens=512),
    Case(hierarchy=_DEEP, dim=512, context=1024, precision="w4", native=True, prompt_tokens=512),
    Case(hierarchy=_SMALL, dim=256, vocab_size=4096, context=512, precision="fp32", native=True, prompt_tokens=256),
    Case(hierarchy=_SMALL, dim=256, vocab_size=4096, context=512, precision="int8", native=False, prompt_tokens=256),
    Case(hierarchy="4@16 3@4 4@1", dim=384, context=512, precision="fp32", native=True, prompt_tokens=384),
    Case(hierarchy="2@1 2@4 2@16 2@1", dim=256, vocab_size=32_000, context=512, precision="w8", native=True, prompt_tokens=256),
)
"""Vanilla, nested, top-down and bottom-up; weights far beyond caches and within them; both kinds of engines."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One case: what was forecast, and what was measured in each round."""

    case: Case
    forecast: Forecast
    step_ms: list[float]
    worst_step_ms: list[float]
    first_token_ms: list[float]

    @property
    def tokens_per_s(self) -> float:
        """Median over rounds."""
        return 1e3 / median(self.step_ms)

    @property
    def error(self) -> float:
        """By how much the forecast is above what was measured."""
        return self.forecast.tokens_per_s / self.tokens_per_s - 1


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All cases, and the rates that forecasts were made from."""

    command: str
    environment: Environment
    device: MeasuredDevice
    rows: list[Row]


@dataclass
class _Running:
    """A case whose bundle is loaded."""

    case: Case
    session: Session
    step_ms: list[float] = field(default_factory=list)
    worst_step_ms: list[float] = field(default_factory=list)
    first_token_ms: list[float] = field(default_factory=list)

    def round(self) -> None:
        """Read the prompt, and decode greedily behind it."""
        session, case = self.session, self.case
        prompt = np.random.default_rng(0).integers(0, case.vocab_size, (1, case.prompt_tokens))
        session.reset()
        began = perf_counter()
        token = session.advance(prompt, last_only=True)[:, 0].argmax(-1)[:, None]
        self.first_token_ms.append((perf_counter() - began) * 1e3)
        self._warm_up(token)
        taken = []
        for _ in range(_STEPS):
            began = perf_counter()
            token = session.advance(token, last_only=True)[:, 0].argmax(-1)[:, None]
            taken.append((perf_counter() - began) * 1e3)
        self.step_ms.append(sum(taken) / len(taken))
        self.worst_step_ms.append(max(median(taken[phase::_PERIOD]) for phase in range(_PERIOD)))

    def _warm_up(self, token: Ids) -> None:
        """Decode, and take it back, until caches hold what the model reads and ONNX Runtime's threads are at rest."""
        began = perf_counter()
        while perf_counter() - began < QUIET_S:
            for _ in range(_PERIOD):
                token = self.session.advance(token, last_only=True)[:, 0].argmax(-1)[:, None]
            self.session.rewind(_PERIOD)


class Comparison:
    """All cases, and this machine's rates, ready to be timed in turns; a context manager.

    Args:
        directory: where bundles are built, or were.
        cases: to compare.
        threads: of all engines.
    """

    def __init__(self, directory: Path, cases: Sequence[Case], threads: int) -> None:
        self._directory, self._cases, self._threads = directory, cases, threads
        self._running: list[_Running] = []

    def __enter__(self) -> Comparison:
        share_threads(self._threads)
        for case in self._cases:
            if not case.bundle(self._directory).exists():
                _build(case, self._directory)
        kinds = tuple(dict.fromkeys(case.kind for case in self._cases))
        used = {case.precision for case in self._cases}
        precisions = [precision for precision in PRECISIONS if precision in used]
        with ExitStack() as stack:
            self._rates = stack.enter_context(MachineRates(kinds, precisions, self._threads, _say, self._directory / "probes"))
            for case in self._cases:
                model = load(case.bundle(self._directory), "cpu", self._threads, native=case.native)
                self._running.append(_Running(case, model.session()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.clear()
        self._stack.close()

    def round(self) -> None:
        """Time this machine's rates, and every case."""
        self._rates.sample()
        for running in self._running:
            running.round()

    def result(self, command: str) -> Result:
        """Forecasts by the rates so far, beside what was measured."""
        device = self._rates.device()
        rows = [
            Row(
                case=one.case,
                forecast=_forecast(one.case, device),
                step_ms=one.step_ms,
                worst_step_ms=one.worst_step_ms,
                first_token_ms=one.first_token_ms,
            )
            for one in self._running
        ]
        return Result(command=command, environment=read_environment(), device=device, rows=rows)


def _forecast(case: Case, device: MeasuredDevice) -> Forecast:
    """In the middle of the tokens that count."""
    shape = shape_of_hierarchy(case.hierarchy, case.sizes, case.precision)
    work = Work(context=case.context, prompt_tokens=case.prompt_tokens + _STEPS // 2, native=case.native)
    return forecast(shape, device, work)


def _build(case: Case, directory: Path) -> None:
    models = RandomModels(**asdict(case.sizes))
    folder = case.bundle(directory).parent
    models.convert([case.hierarchy], folder, _say, [case.precision], [_TEXT])


def _say(doing: str, done: int, steps: int) -> None:
    print(f"{doing}, {done} of {steps}", flush=True)


def table_of(result: Result) -> str:
    """A table in Markdown, a line for each case, and what it was measured on."""
    columns = "hierarchy", "d, vocabulary", "precision, engines", "behind", "forecast, tokens/s", "measured", "in rounds"
    head = f"| {' | '.join(columns)} | error | bound |"
    lines = [head, "| --- | --- | --- | ---: | ---: | ---: | --- | ---: | --- |", *(_line(row) for row in result.rows)]
    errors, environment = [abs(row.error) for row in result.rows], result.environment
    packages = ", ".join(f"{name} {environment.packages[name]}" for name in ("foveal", "onnxruntime", "numpy"))
    told = [
        f"Largest error {max(errors):.0%}, mean {sum(errors) / len(errors):.0%}.",
        f"{environment.cpu}, {environment.cpus_usable} CPUs, {environment.system}, Python {environment.python}; {packages};",
        f"{environment.created_utc[:10]}; {result.device.threads} threads, {len(result.rows[0].step_ms)} rounds.",
        f"Command: `{result.command}`",
    ]
    lines += ["", " ".join(told)]
    return "\n".join(lines)


def _line(row: Row) -> str:
    case, rates = row.case, sorted(1e3 / taken for taken in row.step_ms)
    cells = [
        f"`{case.hierarchy}`",
        f"{case.dim}, {case.vocab_size:,}",
        f"{case.precision}, {case.kind}",
        f"{case.prompt_tokens}",
        f"{row.forecast.tokens_per_s:,.0f}",
        f"{row.tokens_per_s:,.0f}",
        f"{rates[0]:,.0f} to {rates[-1]:,.0f}",
        f"{row.error:+.0%}",
        row.forecast.bound,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Build, time and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="for bundles, which are kept")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--save", type=Path, help="for the result, as JSON")
    parser.add_argument("--document", type=Path, help="a document with a place for the table")
    given = parser.parse_args()
    with Comparison(given.directory, CASES, given.threads) as comparison:
        for number in range(given.rounds):
            _say("rounds", number, given.rounds)
            comparison.round()
        result = comparison.result(shlex.join(["python", "-m", "foveal.bench.forecast_error", *sys.argv[1:]]))
    write(result, given.save, given.document)


def write(result: Result, save: Path | None, document: Path | None) -> None:
    """Print the table, and put it where it was asked for."""
    table = table_of(result)
    print(table)
    if save is not None:
        write_atomically(save, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    if document is not None:
        text = insert(document.read_text("utf-8"), {"forecast error": table})
        write_atomically(document, text.encode())


if __name__ == "__main__":
    run_script(main)
