"""A benchmark's result as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .result import BenchResult, ModelResult
from .statistics import Summary


def show(result: BenchResult, console: Console) -> None:
    """Print models side by side, one column each, then each model's stages and what makes the figures doubtful."""
    environment = result.environment
    console.print(
        f"{environment.cpu}, {environment.cpus_usable} CPUs, {environment.created_utc[:10]}: "
        f"{result.prompt_tokens} prompt + {result.new_tokens} new tokens, {result.rounds} rounds, batch {result.batch}"
    )
    table = Table(box=None, header_style="bold")
    table.add_column("")
    for model in result.models:
        table.add_column(model.name, justify="right")
    for label, cells in _lines(result.models):
        table.add_row(label, *cells)
    console.print(table)
    for model in result.models:
        if len(model.stages) > 1:
            console.print(_stage_table(model))
    for problem in result.problems:
        console.print(f"[yellow]{problem}[/yellow]")


def _lines(models: list[ModelResult]) -> list[tuple[str, list[str]]]:
    def row(label: str, cell: object) -> tuple[str, list[str]]:
        return label, [str(cell(model)) for model in models]  # type: ignore[operator]

    return [
        row("runtime", lambda m: m.runtime),
        row("hierarchy", lambda m: m.hierarchy),
        row("layers, layer-equivalents", lambda m: f"{m.layers}, {m.layer_equivalents:.2f}"),
        row("parameters", lambda m: f"{m.parameters / 1e6:.1f} M"),
        row("threads", lambda m: m.threads),
        row("TTFT", lambda m: f"{_cell(m.ttft_ms.p50)} ms"),
        row("prefill", lambda m: f"{m.prefill_tokens_per_s:,.0f} tokens/s"),
        row("decode", lambda m: f"{m.decode_tokens_per_s:,.0f} tokens/s"),
        row("ITL p50 / p90 / p95 / p99, ms", lambda m: _percentiles(m.itl_ms)),
        row("  steps that fire", lambda m: _percentiles(m.itl_fire_ms)),
        row("  steps that do not", lambda m: _percentiles(m.itl_nofire_ms)),
        row("host side per step", lambda m: "" if m.host_us_per_step is None else f"{m.host_us_per_step:.0f} us"),
        row("copied per step", lambda m: "" if m.copied_bytes_per_step is None else f"{m.copied_bytes_per_step:.0f} bytes"),
        row("weights", lambda m: "" if m.memory is None else _megabytes(m.memory.weights_bytes)),
        row("state", lambda m: "" if m.memory is None else _megabytes(m.memory.state_reserved_bytes)),
        row("peak of a process", lambda m: "" if m.memory is None else _megabytes(m.memory.peak_bytes)),
        row("read per token", lambda m: "" if m.roofline is None else _megabytes(_bytes_per_token(m))),
        row("memory bandwidth reached", lambda m: _share(m)),
    ]


def _bytes_per_token(model: ModelResult) -> float:
    return 0.0 if model.roofline is None else model.roofline.weight_bytes_per_token + model.roofline.cache_bytes_per_token


def _share(model: ModelResult) -> str:
    if model.roofline is None:
        return ""
    line = model.roofline
    reached = f"{line.achieved_gb_s:.1f} of {line.memory_bandwidth_gb_s:.1f} GB/s"
    return f"{reached}, {line.share:.0%} (weights {line.weights_share:.0%})"


def _stage_table(model: ModelResult) -> Table:
    table = Table(title=f"{model.name}: stages while decoding", box=None, title_justify="left", header_style="bold")
    for column in ("stage", "stride", "fires", "engine p50, ms", "ms per token"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in model.stages:
        cells = (stage.stride, stage.fires, _cell(stage.engine_ms.p50), f"{stage.ms_per_token:.3f}")
        table.add_row(stage.name, *map(str, cells))
    return table


def _percentiles(summary: Summary) -> str:
    return " / ".join(_cell(value) for value in (summary.p50, summary.p90, summary.p95, summary.p99))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.1f} MB"
