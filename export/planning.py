"""Plan precisions for a bundle: measure what each stage loses and gains, choose, and measure the choice as a whole.

Sessions are made of engines, one for a stage, so any mixture of precisions can be run without writing a bundle for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np

from ..bundle import Bundle, open_bundle
from ..calibration.calibrate import Calibration, calibrate_ids, limited
from ..calibration.planner import Choice, Option, Unit, check_budget, choose, frontier, plan_of_choice, uniform_choice
from ..calibration.quality import NotFiniteError, log_probabilities, token_losses
from ..calibration.settings import CalibrationSettings
from ..calibration.text import Ids, Texts, evenly, read_ids, windows
from ..contract import StageSpec, clocks_of
from ..errors import CalibrationError, ConfigError
from ..files import scratch_directory
from ..precision import Plan, ProductPrecision, check_precision
from ..progress import Progress, silent
from ..runtime.engines.onnxruntime import OnnxRuntimeEngine
from ..runtime.model import Model, load
from ..runtime.schedules import Schedule
from ..runtime.session import Session
from ..sidecar import read_sidecar
from ..storage import storage_errors
from .compile import compile_stage
from .deciders import Decider, Followed, bytes_saved, narrow_name, weigh_decider, with_stage
from .pace import Pace
from .precision.write_precision import HEAD, write_precision

HELD_OUT_EVERY = 5
"""Of every five windows of the text four calibrate and one measures."""
_ROUNDS, _STEPS, _ATTEMPTS = 5, 64, 6


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A whole system: milliseconds per decode step spent in engines, and the relative rise of bits per byte."""

    ms_per_token: float
    loss: float


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a plan came about.

    Attributes:
        plan: what `build` reads.
        chosen: the plan, measured as a whole; its loss is within the budget.
        units: what was chosen among, with what each costs alone.
        uniform: each precision used throughout, measured.
        rivals: for each of them, the fastest other plan that was measured and loses no more.
        frontier: the best plans for other budgets, predicted.
        held_out_tokens: tokens that losses were measured on; none of them calibrated anything.
        deciders: of a model whose firings the data decides, each stage that decides. All losses are of plans' own schedules.
    """

    plan: Plan
    budget: float
    chosen: Measured
    predicted: Choice
    units: tuple[Unit, ...]
    uniform: dict[str, Measured]
    rivals: dict[str, Measured]
    frontier: tuple[Choice, ...]
    held_out_tokens: int
    threads: int
    deciders: tuple[Decider, ...] = ()


@storage_errors()
def plan_precision(
    bundle: str | Path | Bundle,
    texts: Texts,
    budget: float,
    *,
    precisions: Sequence[str] = ("int8", "w8", "w4"),
    settings: CalibrationSettings | None = None,
    windows_measured: int = 48,
    head: bool = True,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> PlanReport:
    """Choose a precision for every stage, and for every product of the most sensitive one, for the CPU.

    Args:
        bundle: fp32.
        texts: as for `calibrate`; a fifth of their windows is held out to measure losses on.
        budget: largest relative rise of bits per byte, 0.01 for 1 %.
        precisions: besides fp32.
        settings: how text becomes ranges; of `max_tokens` a fifth is held out, too.
        windows_measured: at most so many held-out windows.
        head: whether the output head takes part.
        threads: None: measured.
        on_progress: called before each measurement.

    Raises:
        ConfigError: unknown precision, a budget that can't be kept, a bundle that is not fp32.
        CalibrationError: too little text.
    """
    check_budget(budget)
    for precision in precisions:
        check_precision(precision)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    model = load(opened, threads=threads)
    settings = settings or CalibrationSettings()
    ids = limited(read_ids(texts, model).ids, model, settings.max_tokens)
    calibrating, held_out = _split(model, ids, windows_measured)
    report = on_progress or silent
    calibration = calibrate_ids(model, calibrating, settings, on_progress)
    with scratch_directory() as directory:
        workshop = _Workshop(model, calibration, directory, held_out, head, report)
        return workshop.plan(budget, tuple(precisions))


def _split(model: Model, ids: Ids, most: int) -> tuple[Ids, list[Ids]]:
    length = min(model.manifest.model.context, 512)
    parts = list(windows(ids, length))
    held_out = parts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    if not held_out:
        raise CalibrationError(f"the text has {len(ids)} tokens, expected at least {HELD_OUT_EVERY * length}; give more text")
    calibrating = np.concatenate([part for index, part in enumerate(parts) if index % HELD_OUT_EVERY != HELD_OUT_EVERY - 1])
    return calibrating, evenly(held_out, most)


class _Kept(NamedTuple):
    """A plan whose loss was measured as a whole."""

    choice: Choice
    plan: Plan
    engines: Mapping[str, OnnxRuntimeEngine]
    loss: float


class _Workshop:
    """Makes engines of any precision for any stage, and measures systems made of them."""

    def __init__(
        self, model: Model, calibration: Calibration, directory: Path, held_out: list[Ids], head: bool, report: Progress
    ) -> None:
        self.model, self.calibration, self.directory, self.held_out = model, calibration, directory, held_out
        self.head, self._report, self._done = head, report, 0
        self.full = {engine.spec.name: engine for engine in model.host_engines}
        self.entries = {entry.spec.name: entry for entry in model.manifest.stages}
        self._engines: dict[tuple[str, str, tuple[tuple[str, str], ...]], OnnxRuntimeEngine] = {}
        self.products: dict[str, tuple[ProductPrecision, ...]] = {}
        self._written: dict[OnnxRuntimeEngine, tuple[ProductPrecision, ...]] = {}
        self.nats = 0.0
        self._schedules: list[Schedule] = []
        self._pace = Pace(model.specs)

    def plan(self, budget: float, precisions: Sequence[str]) -> PlanReport:
        """All of `plan_precision` after the calibration."""
        self.nats = self._nats_of_fp32()
        made = {name: {p: self._engine(name, Plan(default=p, head=self.head)) for p in precisions} for name in self.full}
        systems = {"fp32": self.full, **{p: {name: made[name][p] for name in made} for p in precisions}}
        stage_ms = self._stage_ms(systems)
        units = [self._stage_unit(name, made[name], stage_ms) for name in self.full]
        units = self._with_products(units, precisions, stage_ms)
        uniform = [self._kept(uniform_choice(units, p), units, p) for p in systems]
        found = [self._choose(units, budget), *(self._choose(units, kept.loss) for kept in uniform)]
        kept = [*uniform, *(plan for plan in found if plan is not None)]
        ms = self._whole_ms([plan.engines for plan in kept])
        measured = [Measured(ms_per_token=time, loss=plan.loss) for time, plan in zip(ms, kept, strict=True)]
        best = _fastest(measured, budget)
        if best is None:
            raise ConfigError(f"no plan kept the loss within {budget:.3%} when measured as a whole; allow more")
        rivals = {p: _fastest(measured, measured[i].loss, but=i) for i, p in enumerate(systems)}
        return PlanReport(
            plan=kept[best].plan,
            budget=budget,
            chosen=measured[best],
            predicted=kept[best].choice,
            units=tuple(units),
            uniform=dict(zip(systems, measured, strict=False)),
            rivals={p: measured[rival] for p, rival in rivals.items() if rival is not None},
            frontier=tuple(frontier(units)),
            held_out_tokens=sum(len(window) - 1 for window in self.held_out),
            threads=self.model.threads,
            deciders=tuple(self._decider(stage, kept[best].plan, precisions, stage_ms) for stage in self._deciders()),
        )

    def _deciders(self) -> list[str]:
        """Stages by whose rows others fire."""
        return [clock.stage for clock in clocks_of(self.model.specs) if clock.stage is not None]

    def _decider(self, stage: str, plan: Plan, precisions: Sequence[str], ms: Mapping[str, Mapping[str, float]]) -> Decider:
        """The plan with such a stage narrow and in fp32, whichever of them it has."""
        is_wide = all(product.obtained == "fp32" for product in self._products_of(stage, plan))
        by_time = sorted(precisions, key=lambda precision: ms[precision][stage])
        narrow_plan = plan
        if is_wide:  # the fastest in which anything is narrow: w4 leaves products of odd sizes in fp32
            plans = [with_stage(plan, stage, precision) for precision in by_time]
            narrow_plan = next((one for one in plans if narrow_name(self._products_of(stage, one)) != "fp32"), plans[0])
        wide_plan = plan if is_wide else with_stage(plan, stage, "fp32")
        products = self._products_of(stage, narrow_plan)
        return weigh_decider(
            stage,
            narrow_name(products),
            is_wide,
            self._followed(narrow_plan, f"stage {stage} narrow"),
            self._followed(wide_plan, f"stage {stage} in fp32"),
            bytes_saved(products) / self._pace.tokens_per_firing(stage),
        )

    def _products_of(self, stage: str, plan: Plan) -> tuple[ProductPrecision, ...]:
        return self._written[self._engine(stage, plan)]

    def _followed(self, plan: Plan, name: str) -> Followed:
        """What a plan loses on its own schedule and on that of fp32, and how many decisions flip."""
        engines = {stage: self._engine(stage, plan) for stage in self.full}
        self._report(f"measuring {name}", self._done, 0)
        nats, forced, flips = [], [], 0
        with self._session(engines) as session:
            for window, schedule in zip(self.held_out, self._schedules, strict=True):
                session.follow(None)
                nats.append(_sum_of_losses(session, name, window))
                session.follow(schedule)
                forced.append(_sum_of_losses(session, name, window))
                flips += sum(len(decided.flips) for decided in session.schedule.values())
        return Followed(np.array(nats), sum(forced), self.nats, flips, sum(map(len, self.held_out)))

    def _session(self, engines: Mapping[str, OnnxRuntimeEngine]) -> Session:
        longest = max(len(window) for window in self.held_out)
        return Session(list(engines.values()), self.model.manifest.model, 1, longest)

    def _nats_of_fp32(self) -> float:
        """And remember when it fires."""
        self._schedules = []
        nats = self._nats(self.full, "fp32", self._schedules)
        for window, schedule in zip(self.held_out, self._schedules, strict=True):
            self._pace.add(schedule, len(window))
        return nats

    def _engine(self, stage: str, plan: Plan) -> OnnxRuntimeEngine:
        """One stage as planned, written and compiled when it is first asked for."""
        own = {product: precision for product, precision in plan.products.items() if product.startswith(f"{stage}/")}
        key = (stage, plan.of_stage(stage), tuple(sorted(own.items())))
        if key not in self._engines:
            self._engines[key] = self._made(stage, plan)
            self._written[self._engines[key]] = self.products[stage]
        return self._engines[key]

    def _made(self, stage: str, plan: Plan) -> OnnxRuntimeEngine:
        entry, directory = self.entries[stage], self.directory / str(len(self._engines))
        written = write_precision(self.model.bundle.file(entry.graph), directory / entry.graph, stage, plan, self.calibration)
        self.products[stage] = written.products
        spec = msgspec.structs.replace(entry.spec, cache_dtype=written.cache_dtype)
        path = directory / compile_stage(directory, spec, "cpu", written.products, written.cache_scales, native=False)
        return OnnxRuntimeEngine(spec, path, read_sidecar(path), self.model.threads)

    def _stage_unit(self, stage: str, made: Mapping[str, OnnxRuntimeEngine], ms: Mapping[str, Mapping[str, float]]) -> Unit:
        options = [Option(precision="fp32", ms_per_token=ms["fp32"][stage], loss=0.0)]
        for precision, engine in made.items():
            loss = self._loss({**self.full, stage: engine}, f"stage {stage} in {precision}")
            options.append(Option(precision=precision, ms_per_token=ms[precision][stage], loss=loss))
        return Unit(name=stage, stage=stage, options=tuple(options))

    def _with_products(self, units: list[Unit], precisions: Sequence[str], ms: Mapping[str, Mapping[str, float]]) -> list[Unit]:
        """Replace the most sensitive stage by its products, each measured alone."""
        worst = max(units, key=lambda unit: max(option.loss for option in unit.options))
        products = [p for p in self.products[worst.name] if self.head or not p.product.endswith(HEAD)]
        weights = {p.product: p.rows * p.columns for p in products}
        split = []
        for name, weight in weights.items():
            # A product's time can't be told from outside its stage: it gets the stage's, by its share of the weights.
            share = weight / sum(weights.values())
            options = [Option(precision="fp32", ms_per_token=ms["fp32"][worst.name] * share, loss=0.0)]
            for precision in precisions:
                engine = self._engine(worst.name, Plan(products={name: precision}))
                loss = self._loss({**self.full, worst.name: engine}, f"{name} in {precision}")
                options.append(Option(precision=precision, ms_per_token=ms[precision][worst.name] * share, loss=loss))
            split.append(Unit(name=name, stage=worst.name, options=tuple(options)))
        return [unit for unit in units if unit is not worst] + split

    def _choose(self, units: Sequence[Unit], budget: float) -> _Kept | None:
        """The best choice whose measured loss keeps the budget; losses that do not add up tighten what is predicted with.

        None if none is found in a few attempts.
        """
        allowed = budget
        for _ in range(_ATTEMPTS if budget >= 0 else 0):
            kept = self._kept(choose(units, allowed), units, "the plan")
            if kept.loss <= budget:
                return kept
            allowed *= 0.9 * budget / kept.loss
        return None

    def _kept(self, choice: Choice, units: Sequence[Unit], name: str) -> _Kept:
        plan = plan_of_choice(choice, units, head=self.head)
        engines = {stage: self._engine(stage, plan) for stage in self.full}
        return _Kept(choice, plan, engines, self._loss(engines, name))

    def _loss(self, engines: Mapping[str, OnnxRuntimeEngine], name: str) -> float:
        try:
            return self._nats(engines, name) / self.nats - 1
        except NotFiniteError:
            return math.inf  # which no budget keeps

    def _nats(self, engines: Mapping[str, OnnxRuntimeEngine], name: str, schedules: list[Schedule] | None = None) -> float:
        """Nats per held-out token; `schedules`: where what the data decided of each window goes."""
        self._done += 1
        self._report(f"measuring {name}", self._done, 0)
        total, tokens = 0.0, 0
        with self._session(engines) as session:
            for window in self.held_out:
                total += _sum_of_losses(session, name, window)
                tokens += len(window) - 1
                if schedules is not None:
                    schedules.append(session.schedule)
        return total / tokens

    def _whole_ms(self, systems: Sequence[Mapping[str, OnnxRuntimeEngine]]) -> list[float]:
        """Milliseconds per token of whole systems, in the same rounds."""
        found = self._stage_ms({str(index): engines for index, engines in enumerate(systems)})
        return [sum(stages.values()) for stages in found.values()]

    def _stage_ms(self, systems: Mapping[str, Mapping[str, OnnxRuntimeEngine]]) -> dict[str, dict[str, float]]:
        """Milliseconds per token of each stage of each system: best of several rounds that take turns, weighted by firing."""
        context = self.model.manifest.model.context
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
        sessions = {name: Session(list(engines.values()), self.model.manifest.model) for name, engines in systems.items()}
        for _ in range(_ROUNDS):
            for name, session in sessions.items():
                rounds[name].append(_decode_ms(session, context // 2, min(_STEPS, context // 2), self._pace))
        return {name: {stage: min(r[stage] for r in found) for stage in found[0]} for name, found in rounds.items()}


def _fastest(measured: Sequence[Measured], budget: float, but: int | None = None) -> int | None:
    """Which of these plans is the fastest that keeps the budget; None if none does."""
    able = [index for index, plan in enumerate(measured) if plan.loss <= budget and index != but]
    return min(able, key=lambda index: measured[index].ms_per_token, default=None)


def _sum_of_losses(session: Session, name: str, window: Ids) -> float:
    return float(token_losses(log_probabilities(session, name, window), window).sum(dtype=np.float64))


def _decode_ms(session: Session, prompt_tokens: int, steps: int, pace: Pace) -> dict[str, float]:
    """Median milliseconds of each stage's engine call in decoding, by how many tokens fire it once."""
    times: dict[str, list[int]] = {}

    def record(spec: StageSpec, _firings: int, elapsed_ns: int) -> None:
        times.setdefault(spec.name, []).append(elapsed_ns)

    session.reset()
    session.follow(pace.even(prompt_tokens + steps))
    session.advance(np.zeros((1, prompt_tokens), np.int64), last_only=True)
    session.observer = record
    token = np.zeros((1, 1), np.int64)
    for _ in range(steps):
        session.advance(token, last_only=True)
    session.observer = None
    return {name: median(ns) * 1e-6 / pace.tokens_per_firing(name) for name, ns in times.items()}
