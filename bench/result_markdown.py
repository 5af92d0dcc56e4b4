"""A benchmark's result as the tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .comparison import compare
from .environment import Environment
from .result import BenchResult, ModelResult, RooflineResult
from .show import interval_of, stride_of
from .statistics import QUIET_SPREAD, Summary, spread_of

_SHOWN = ("onnxruntime", "torch")


def markdown(result: BenchResult) -> str:
    """What it was measured on, and models side by side."""
    models = result.models
    rows = [("", [f"`{model.name}`" for model in models]), ("---", ["---"] * len(models)), *_rows(models)]
    table = "\n".join(f"| {' | '.join((label, *cells))} |" for label, cells in rows)
    return f"{_caption(result)}\n\n{table}"


def stage_markdown(result: BenchResult, name: str) -> str:
    """One model's stages while decoding."""
    (model,) = (model for model in result.models if model.name == name)
    heading = ["| stage | stride | fires | engine p50, ms | ms per token |", "| --- | --- | --- | --- | --- |"]
    rows = [
        f"| `{stage.name}` | {stride_of(stage)} | {stage.fires} | {_number(stage.engine_ms.p50)} | {stage.ms_per_token:.2f} |"
        for stage in model.stages
    ]
    return "\n".join([*heading, *rows])


def _rows(models: Sequence[ModelResult]) -> Iterator[tuple[str, list[str]]]:
    def row(label: str, cell: Callable[[ModelResult], str]) -> tuple[str, list[str]]:
        return label, [cell(model) for model in models]

    yield row("layers, run per token", lambda m: f"{m.layers}, {m.layer_equivalents:.2f}")
    yield row("decode, tokens/s", lambda m: f"**{m.latency.decode_tokens_per_s:,.0f}**")
    times = {one.name: interval_of(one.ratio) for one in compare(models) if one.metric == "decode_tokens_per_s"}
    yield row("times the first (95 %)", lambda m: times.get(m.name, "1"))
    yield row("latency p50, p90, p99, ms", lambda m: _percentiles(m.latency.itl_ms))
    yield row(
        "p50 of steps in which a coarse stage runs, of the others",
        lambda m: f"{_number(m.latency.itl_fire_ms.p50)}, {_number(m.latency.itl_nofire_ms.p50)}",
    )
    yield row("prefill, tokens/s", lambda m: f"{m.latency.prefill_tokens_per_s:,.0f}")
    yield row("host side, us per step", lambda m: "-" if m.host_us_per_step is None else f"{m.host_us_per_step:.0f}")
    yield row(
        "weights, state, peak of a process, MB",
        lambda m: (
            "-"
            if m.memory is None
            else f"{_megabytes(m.memory.weights_bytes)}, "
            f"{_megabytes(m.memory.state_reserved_bytes)}, {_megabytes(m.memory.peak_bytes)}"
        ),
    )
    lines = {model.name: model.roofline for model in models}
    yield row(
        "read per token, MB",
        lambda m: "-" if (x := lines[m.name]) is None else _megabytes(x.weight_bytes_per_token + x.cache_bytes_per_token),
    )
    yield row("GB/s, share of the memory's, of which weights", lambda m: _bandwidth(m.roofline))


def _bandwidth(line: RooflineResult | None) -> str:
    return "-" if line is None else f"{line.achieved_gb_s:.1f}, {line.share:.0%}, {line.weights_share:.0%}"


def _caption(result: BenchResult) -> str:
    """Machine, date, versions, load, and how quiet it was."""
    environment, models = result.environment, result.models
    spread = max(spread_of(model.latency.decode_tokens_per_s_by_round) for model in models)
    quiet = f"rounds differed by up to {spread:.0%}" + ("" if spread <= QUIET_SPREAD else ": the machine was not quiet")
    threads = ", ".join(sorted({str(model.threads) for model in models}))
    native = "native steps" if any("native" in model.runtime for model in models) else "no native steps"
    return (
        f"{_machine(environment)}; {environment.created_utc[:10]}; {result.prompt_tokens} tokens of prompt, "
        f"{result.new_tokens} decoded, {result.rounds} rounds that took turns, {threads} threads, {native}; memory read at "
        f"{environment.memory_bandwidth_gb_s or float('nan'):.1f} GB/s; {quiet}."
    )


def _machine(environment: Environment) -> str:
    versions = (f"{name} {environment.packages[name]}" for name in _SHOWN if environment.packages.get(name))
    return ", ".join([f"{environment.cpu}, {environment.cpus_usable} CPUs", f"Python {environment.python}", *versions])


def _percentiles(summary: Summary) -> str:
    return ", ".join(map(_number, (summary.p50, summary.p90, summary.p99)))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.1f}"
