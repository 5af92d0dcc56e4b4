"""The subject beside all others."""

from __future__ import annotations

from ...bench.result import ModelResult
from ..document import Report
from ..lookup import ratio_of
from ..numbers import label, megabytes, millions, significant, times
from ..pictures.bars import describe_rates, draw_rates
from .section import Picture, Section, Table


def comparison(report: Report) -> Section:
    """Rates, latencies and sizes of everything that was measured in the run."""
    models = report.measured.models
    return Section(
        name="comparison",
        title="Beside the others",
        lead=[
            f"All in one run, their rounds in turn: a prompt of {report.measured.prompt_tokens:,} tokens, then "
            f"{report.measured.new_tokens:,} tokens one by one, {report.measured.rounds} rounds and one to warm up. A bar is "
            f"the median of rounds, the line on it goes from the slowest to the fastest. Ratios to {label(report.subject)} "
            "are geometric means over pairs of rounds, with their 95 % intervals."
        ],
        pictures=[
            Picture(
                "rates",
                "Tokens per second while decoding",
                describe_rates(models),
                lambda: draw_rates(models, _families(report)),
            )
        ],
        shown=[_rates(report)],
        tables=[_latencies(report), _sizes(report)],
        commands=[report.commands.measurement],
    )


def _families(report: Report) -> list[int]:
    """Bundles of one model have one number; whatever has no bundle has one of its own."""
    family = {model.name: model.same_as for model in report.models}
    names = [family.get(model.name, model.name) for model in report.measured.models]
    order = list(dict.fromkeys(names))
    return [order.index(name) for name in names]


def _rates(report: Report) -> Table:
    return Table(
        title="Decoding",
        header=["", "tokens/s", f"times {label(report.subject)} (95 %)", "p50, ms", "p99"],
        rows=[
            [
                label(model.name),
                significant(model.latency.decode_tokens_per_s),
                _ratio(report, model.name),
                significant(model.latency.itl_ms.p50),
                significant(model.latency.itl_ms.p99),
            ]
            for model in report.measured.models
        ],
    )


def _latencies(report: Report) -> Table:
    rows = []
    for model in report.measured.models:
        one = model.latency
        figures = [one.itl_ms.mean, one.itl_ms.p90, one.itl_ms.p95, one.itl_ms.max, one.ttft_ms.p50, one.prefill_tokens_per_s]
        rows.append([label(model.name), *map(significant, figures), _peak(model)])
    return Table(
        title="More of their times, and the peak of a process",
        header=["", "mean, ms", "p90", "p95", "max", "first token, ms", "prefill, tokens/s", "peak, MB"],
        rows=rows,
    )


def _peak(model: ModelResult) -> str:
    return megabytes(None if model.memory is None else model.memory.peak_bytes)


def _ratio(report: Report, name: str) -> str:
    if name == report.subject:
        return "1"
    ratio = ratio_of(report, name, report.subject)
    if ratio.low is None or ratio.high is None:
        return times(ratio.ratio)
    return f"{times(ratio.ratio)} ({times(ratio.low)} to {times(ratio.high)})"


def _sizes(report: Report) -> Table:
    rows = []
    for model in report.measured.models:
        weights = None if model.memory is None else model.memory.weights_bytes
        rows.append(
            [
                label(model.name),
                model.precision,
                model.hierarchy,
                str(model.layers),
                f"{model.layer_equivalents:.2f}",
                millions(model.parameters),
                megabytes(weights),
                model.runtime,
            ]
        )
    return Table(
        title="What they are",
        header=["", "precision", "hierarchy", "layers", "run per token", "parameters", "weights, MB", "runs on"],
        rows=rows,
        texts=frozenset({1, 2, 7}),
    )
