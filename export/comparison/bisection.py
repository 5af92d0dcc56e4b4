"""Which matrix product is it that a precision breaks? Found by halves, in dataflow order, by building and measuring."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec

from ...bundle import Bundle, open_bundle
from ...calibration.calibrate import Calibration, calibrate
from ...calibration.graph_files import load_graph
from ...calibration.planner import check_budget
from ...calibration.products import expose_products, find_products
from ...calibration.quality import NotFiniteError, evaluate
from ...calibration.text import Texts, as_texts
from ...errors import ConfigError
from ...files import scratch_directory
from ...precision import INTEGERS, Plan, check_precision
from ...progress import Progress, silent
from ...runtime.engines.onnxruntime_library import has_int8_caches
from ...storage import storage_errors
from ..building import build, require_text

Measure = Literal["bits", "kl"]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that was built and measured: how many products were in the precision, and what that loses."""

    tried: str
    products: int
    loss: float


class BisectReport(msgspec.Struct, frozen=True, kw_only=True):
    """What breaks a budget.

    Attributes:
        measure: what losses are: `bits`, the relative rise of bits per byte, or `kl`, nats of divergence from fp32.
        trials: what was measured on the way, in that order; the first is everything in the precision, as `build` makes it.
        caches: not products break it, but the int8 keys and values that come with them.
        stage, product: the first in dataflow order that breaks it, together with all before it; None: none does.
        alone: each product of that stage, alone in the precision, the worst first.
    """

    bundle: str
    precision: str
    target: str
    measure: Measure
    budget: float
    trials: tuple[Trial, ...]
    caches: bool = False
    stage: str | None = None
    product: str | None = None
    alone: tuple[Trial, ...] = ()


@storage_errors()
def bisect(
    bundle: str | Path | Bundle,
    precision: str,
    budget: float,
    texts: Texts,
    *,
    calibration: Texts | Calibration = (),
    measure: Measure = "bits",
    target: str = "cpu",
    window: int | None = None,
    limit: int | None = None,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> BisectReport:
    """Find the first stage, and in it the first product, at which a precision breaks a budget.

    Of the products in dataflow order the first n are in the precision, the others fp32; the least n that breaks the budget is
    found by halves, which takes losses that grow with n. Where some cancel, what is found still breaks it, and n - 1 do not.
    Then each product of that stage is measured alone.

    Args:
        bundle: fp32.
        precision: any other.
        budget: largest loss, in the unit of the measure: 0.005 for a rise of 0.5 %.
        texts: to measure on; files, or directories of `*.txt`.
        calibration: other text, or what `calibrate` found in it; `int8` and `fp16` need it.
        measure: `"bits"` or `"kl"`.
        target: whose engines are built and run.
        window, limit: as `evaluate`.
        threads: of `cpu` engines, and of the calibration, which runs on them.
        on_progress: called before each trial.

    Raises:
        ConfigError: a bundle that is not fp32; a precision, budget or measure that means nothing; no text where it is needed.
        Others: as `build` and `evaluate`.
    """
    _check(precision, budget, measure)
    require_text(Plan(default=precision), calibration)
    opened, report = bundle if isinstance(bundle, Bundle) else open_bundle(bundle), on_progress or silent
    ranges = calibration
    if not isinstance(calibration, Calibration) and as_texts(calibration):
        ranges = calibrate(opened, calibration, threads=threads, on_progress=on_progress)

    running = threads if target == "cpu" else None

    def loss_of(plan: Plan) -> float:
        with scratch_directory() as directory:
            built = build(opened, directory / "b", plan, target, calibration=ranges)
            try:
                found = evaluate(built, texts, reference=opened, target=target, threads=running, window=window, limit=limit)
            except NotFiniteError as error:
                if error.whose == str(opened.path):
                    raise
                return math.inf
        loss = found.kl_nats if measure == "kl" else found.bits_per_byte_change
        return math.inf if loss is None else loss

    search = _Search(products_of(opened), precision, budget, loss_of, report)
    found = search.find(has_caches=target == "cpu" and precision in INTEGERS and has_int8_caches())
    alone = search.alone(found.stage) if found.stage is not None else ()
    report("done", 1, 1)
    return BisectReport(
        bundle=str(opened.path),
        precision=precision,
        target=target,
        measure=measure,
        budget=budget,
        trials=tuple(search.trials),
        caches=found.caches,
        stage=found.stage,
        product=found.product,
        alone=alone,
    )


def products_of(bundle: Bundle) -> dict[str, list[str]]:
    """The matrix products of each stage that has some, in dataflow order."""
    found = {}
    for entry in bundle.manifest.stages:
        model = load_graph(bundle.file(entry.graph))
        expose_products(model, entry.spec.name)
        found[entry.spec.name] = [product.name for product in find_products(model)]
    return {stage: products for stage, products in found.items() if products}


class _Found(NamedTuple):
    stage: str | None = None
    product: str | None = None
    caches: bool = False


class _Search:
    """Measures plans and halves; caches stay fp32 in all trials but the first, so that a loss is a product's."""

    def __init__(
        self,
        products: Mapping[str, Sequence[str]],
        precision: str,
        budget: float,
        loss_of: Callable[[Plan], float],
        report: Progress,
    ) -> None:
        self._products, self._precision, self._budget = products, precision, budget
        self._loss_of, self._report = loss_of, report
        self.trials: list[Trial] = []

    def find(self, has_caches: bool) -> _Found:
        """What breaks the budget; nothing, if everything in the precision keeps it."""
        count = sum(map(len, self._products.values()))
        if not self._breaks("everything", count, Plan(default=self._precision)):
            return _Found()
        plan = Plan(default=self._precision, cache="fp32")
        if has_caches and not self._breaks("everything, keys and values in fp32", count, plan):
            return _Found(caches=True)
        stages = list(self._products)
        stage = stages[_least(len(stages), lambda n: self._prefix_breaks(stages[:n], []))]
        before, products = stages[: stages.index(stage)], self._products[stage]
        product = products[_least(len(products), lambda n: self._prefix_breaks(before, products[:n]))]
        return _Found(stage, product)

    def alone(self, stage: str) -> tuple[Trial, ...]:
        """Each product of a stage alone in the precision, the worst first."""
        trials = [self._trial(name, 1, self._plan([], [name])) for name in self._products[stage]]
        return tuple(sorted(trials, key=lambda trial: -trial.loss))

    def _prefix_breaks(self, stages: Sequence[str], products: Sequence[str]) -> bool:
        """Whether these stages, and these products of the next, do."""
        count = len(products) + sum(len(self._products[stage]) for stage in stages)
        last = products[-1] if products else f"stage {stages[-1]}"
        return self._breaks(f"all up to {last}", count, self._plan(stages, products))

    def _plan(self, stages: Sequence[str], products: Sequence[str]) -> Plan:
        return Plan(
            stages=dict.fromkeys(stages, self._precision), products=dict.fromkeys(products, self._precision), cache="fp32"
        )

    def _breaks(self, tried: str, products: int, plan: Plan) -> bool:
        self.trials.append(self._trial(tried, products, plan))
        return self.trials[-1].loss > self._budget

    def _trial(self, tried: str, products: int, plan: Plan) -> Trial:
        self._report(f"{self._precision}: {tried}", len(self.trials), 0)
        return Trial(tried=tried, products=products, loss=self._loss_of(plan))


def _least(count: int, breaks: Callable[[int], bool]) -> int:
    """The least n in [1, count] that breaks, less 1; n = count is known to."""
    return bisect_left(range(1, count), True, key=breaks)


def _check(precision: str, budget: float, measure: str) -> None:
    check_precision(precision)
    check_budget(budget)
    if precision == "fp32":
        raise ConfigError("fp32 is what losses are measured against, so it loses nothing; give another precision")
    if measure not in get_args(Measure):
        raise ConfigError(f'unknown measure "{measure}"; expected one of {", ".join(get_args(Measure))}')
