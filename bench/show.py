"""A benchmark's result as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from .batch_result import BatchResult, name_of
from .device import DeviceState
from .power.result import PowerResult, PowerSetup
from .ratio import Ratio
from .result import BenchResult, Comparison, Metric, ModelResult, RooflineResult, StageResult
from .statistics import Summary

METRIC_NAMES: Mapping[Metric, str] = {
    "decode_tokens_per_s": "decode, tokens/s",
    "prefill_tokens_per_s": "prefill, tokens/s",
    "itl_p50_ms": "ITL p50, ms",
}


def show(result: BenchResult, console: Console) -> None:
    """Print models side by side, one column each, then each model's stages and what makes the figures doubtful."""
    environment = result.environment
    console.print(
        f"{environment.cpu}, {environment.cpus_usable} CPUs, {environment.created_utc[:10]}: "
        f"{result.prompt_tokens} prompt + {result.new_tokens} new tokens of {result.reads}, {result.rounds} rounds, "
        f"batch {result.batch}; "
        f"memory reads {environment.memory_bandwidth_gb_s or float('nan'):.1f} GB/s"
    )
    if environment.device is not None and environment.device.power_mode is not None:
        console.print(_mode_line(environment.device))
    if result.power is not None:
        console.print(_power_line(result.power))
    table = Table(box=None, header_style="bold")
    table.add_column("")
    for model in result.models:
        table.add_column(model.name, justify="right")
        for batch in model.batches:
            table.add_column(name_of(batch), justify="right")
    for label, cells in _lines(result.models) + ([] if result.power is None else _power_lines(result.models)):
        table.add_row(label, *cells)
    console.print(table)
    for model in result.models:
        if len(model.stages) > 1:
            console.print(_stage_table(model))
        if model.batches:
            console.print(_firing_set_table(model))
    if result.comparisons:
        console.print(_comparison_table(result.comparisons))
    for problem in result.problems:
        console.print(problem, style="yellow", markup=False)


def _comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Of each model the times of the first; the interval in brackets."""
    metrics = list(dict.fromkeys(one.metric for one in comparisons))
    title = f"times {comparisons[0].than}, with 95 % intervals from {comparisons[0].ratio.rounds} rounds that took turns"
    table = Table(title=title, box=None, title_justify="left", header_style="bold")
    table.add_column("")
    for metric in metrics:
        table.add_column(METRIC_NAMES[metric], justify="right")
    for name in dict.fromkeys(one.name for one in comparisons):
        table.add_row(name, *(interval_of(one.ratio) for one in comparisons if one.name == name))
    return table


def interval_of(ratio: Ratio) -> str:
    """A ratio, and its interval where there is one."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.ratio:.2f}"
    return f"{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _lines(models: list[ModelResult]) -> list[tuple[str, list[str]]]:
    """Of each model the cell of one sequence, and of each of its batches that of all of them."""

    def row(
        label: str, cell: Callable[[ModelResult], object], of_batch: Callable[[BatchResult], object] = lambda _: ""
    ) -> tuple[str, list[str]]:
        return label, [str(each) for model in models for each in (cell(model), *map(of_batch, model.batches))]

    rates = [
        row("  times one sequence", lambda _: "", lambda b: f"{b.times_one:.2f}"),
        row("  share of the rate of prefill", lambda _: "", lambda b: f"{b.share_of_prefill:.2f}"),
    ]
    return [
        row("runtime", lambda m: m.runtime),
        row("hierarchy", lambda m: m.hierarchy),
        row("precision", lambda m: m.precision),
        row("layers", lambda m: m.layers),
        row("  run per token", lambda m: f"{m.layer_equivalents:.2f}"),
        row("parameters", lambda m: f"{m.parameters / 1e6:.1f} M"),
        row("threads", lambda m: m.threads),
        row("prefill, tokens/s", lambda m: f"{m.latency.prefill_tokens_per_s:,.0f}"),
        row("TTFT, ms", lambda m: _cell(m.latency.ttft_ms.p50)),
        row("decode, tokens/s", lambda m: f"{m.latency.decode_tokens_per_s:,.0f}", lambda b: f"{b.tokens_per_s:,.0f}"),
        *(rates if any(model.batches for model in models) else []),
        row("ITL, ms: p50", lambda m: _cell(m.latency.itl_ms.p50), lambda b: _cell(b.itl_ms.p50)),
        row("  p90", lambda m: _cell(m.latency.itl_ms.p90), lambda b: _cell(b.itl_ms.p90)),
        row("  p95", lambda m: _cell(m.latency.itl_ms.p95), lambda b: _cell(b.itl_ms.p95)),
        row("  p99", lambda m: _cell(m.latency.itl_ms.p99), lambda b: _cell(b.itl_ms.p99)),
        row("  p99 / p50", lambda m: _ratio(m.latency.itl_ms), lambda b: _ratio(b.itl_ms)),
        row(
            "  p50 of steps in which a coarse stage runs",
            lambda m: _cell(m.latency.itl_fire_ms.p50),
            lambda b: _cell(b.itl_fire_ms.p50),
        ),
        row("  p50 of the other steps", lambda m: _cell(m.latency.itl_nofire_ms.p50), lambda b: _cell(b.itl_nofire_ms.p50)),
        row("host side, us per step", lambda m: _whole(m.host_us_per_step), lambda b: _whole(b.host_us_per_step)),
        row("copied, bytes per step", lambda m: _whole(m.copied_bytes_per_step), lambda b: _whole(b.copied_bytes_per_step)),
        row("weights, MB", lambda m: "-" if m.memory is None else _megabytes(m.memory.weights_bytes)),
        row(
            "state, MB",
            lambda m: "-" if m.memory is None else _megabytes(m.memory.state_reserved_bytes),
            lambda b: _megabytes(b.state_reserved_bytes),
        ),
        row("peak of a process, MB", lambda m: "-" if m.memory is None else _megabytes(m.memory.peak_bytes)),
        row("read per token, MB", lambda m: _roofline(m, lambda line: _megabytes(_bytes_per_token(line)))),
        row("  GB/s", lambda m: _roofline(m, lambda line: f"{line.achieved_gb_s:.1f}")),
        row("  share of memory bandwidth", lambda m: _roofline(m, lambda line: f"{line.share:.0%}")),
        row("  weights alone", lambda m: _roofline(m, lambda line: f"{line.weights_share:.0%}")),
    ]


def _mode_line(device: DeviceState) -> str:
    locked = "clocks locked" if device.clocks_locked else "clocks not locked"
    return f"{device.board or 'unknown board'}, power mode {device.power_mode}, {locked}"


def _power_line(setup: PowerSetup) -> str:
    sensor, idle = setup.sensor, setup.idle
    return (
        f"power by {sensor.sensor}, {' + '.join(sensor.rails)} ({sensor.sees}), every {sensor.interval_s * 1e3:.0f} ms; "
        f"idle {idle.mean_w:.2f} W over {idle.seconds:.0f} s, {idle.count} samples"
    )


def _power_lines(models: list[ModelResult]) -> list[tuple[str, list[str]]]:
    def row(label: str, figure: Callable[[PowerResult], float | int | None]) -> tuple[str, list[str]]:
        cells = []
        for model in models:
            cells += [_significant(None if model.power is None else figure(model.power)), *([""] * len(model.batches))]
        return label, cells

    return [
        row("decoding, W: mean", lambda p: p.mean_w),
        row("  peak", lambda p: p.peak_w),
        row("J", lambda p: p.energy_j),
        row("  net of idle", lambda p: p.energy_net_j),
        row("J per token", lambda p: p.j_per_token),
        row("  net of idle", lambda p: p.j_per_token_net),
        row("power samples", lambda p: p.window.count),
    ]


def _roofline(model: ModelResult, cell: Callable[[RooflineResult], str]) -> str:
    return "-" if model.roofline is None else cell(model.roofline)


def _bytes_per_token(line: RooflineResult) -> float:
    return line.weight_bytes_per_token + line.cache_bytes_per_token


def _stage_table(model: ModelResult) -> Table:
    table = Table(title=f"{model.name}: stages while decoding", box=None, title_justify="left", header_style="bold")
    for column in ("stage", "stride", "fires", "engine p50, ms", "ms per token", "runs on"):
        table.add_column(column, justify="left" if column in ("stage", "runs on") else "right")
    for stage in model.stages:
        cells = (stride_of(stage), stage.fires, _cell(stage.engine_ms.p50), f"{stage.ms_per_token:.3f}", stage.runs_on)
        table.add_row(stage.name, *map(str, cells))
    return table


def _firing_set_table(model: ModelResult) -> Table:
    """Of a batch's steps: for how many slots each stage fires, how often that is so, and what such a step takes."""
    title = f"{model.name}: steps by how many sequences fire a stage"
    table = Table(title=title, box=None, title_justify="left", header_style="bold")
    for column in ("policy", *(stage.name for stage in model.stages), "steps", "p50, ms", "p90"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for batch in model.batches:
        for one in sorted(batch.firing_sets, key=lambda one: -one.steps):
            fires = [one.fires.get(stage.name, "") for stage in model.stages]
            share = f"{one.steps / batch.itl_ms.count:.1%}"
            table.add_row(batch.policy, *map(str, fires), share, _cell(one.itl_ms.p50), _cell(one.itl_ms.p90))
    return table


def stride_of(stage: StageResult) -> str:
    """A stage's, or the tokens per firing that are expected where the data decides."""
    return str(stage.stride) if stage.expected is None else f"~{stage.expected:g}"


def _ratio(itl_ms: Summary) -> str:
    return "-" if itl_ms.p50 is None or itl_ms.p99 is None else f"{itl_ms.p99 / itl_ms.p50:.2f}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _significant(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.1f}"
