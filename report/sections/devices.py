"""Other devices: what the subject needs of one, and what it would do on those that are known."""

from __future__ import annotations

from ..document import ModelFacts, Report
from ..lookup import memory_of, needs_of
from ..numbers import label, megabytes, significant
from ..summary import ran_on
from .section import Section, Table


def devices(report: Report) -> Section:
    """Memory that must be free, the most that a bandwidth allows, and forecasts for devices by name."""
    forecast = [model for model in report.models if model.name not in report.forecasts_missing]
    reasons = "; ".join(f"{label(name)}: {reason}" for name, reason in report.forecasts_missing.items())
    return Section(
        name="devices",
        title="On another device",
        lead=[
            ran_on(report),
            "What it needs does not depend on the device: memory for weights, for the state of one sequence at the full "
            "context, and to work in; Python with its libraries comes on top (a process’s peak is under Memory). The most "
            "tokens/s is arithmetic: a device that reads memory at so many GB/s decodes at most so many times the last "
            "column; most reach a part of it.",
            "Forecasts rest on the bytes and operations of each stage, how often it fires, and the makers’ figures of the "
            "device (foveal forecast). They were not measured.",
        ],
        shown=[
            Table(
                title="What it needs",
                header=[
                    "bundle",
                    "weights, MB",
                    "state, MB",
                    "working, MB",
                    "in all, MB",
                    "read per token, MB",
                    "tokens/s per GB/s, at most",
                ],
                rows=[_row(report, model) for model in report.models],
            ),
            *([_forecast(report, forecast)] if forecast else []),
        ],
        tables=[_details(report, model) for model in forecast],
        missing=f"No forecast of {reasons}." if reasons else None,
        commands=report.commands.forecasts,
    )


def _forecast(report: Report, models: list[ModelFacts]) -> Table:
    by_device = [[row for row in report.forecasts if row.device == device] for device in _devices(report)]
    return Table(
        title="Forecast, not measured: tokens/s of one sequence",
        header=["device", "fits", *(label(model.name) for model in models)],
        rows=[[rows[0].device, _fits(rows[0].fits), *(significant(row.tokens_per_s) for row in rows)] for rows in by_device],
        texts=frozenset({1}),
    )


def _devices(report: Report) -> list[str]:
    return list(dict.fromkeys(row.device for row in report.forecasts))


def _fits(fits: bool | None) -> str:
    return "not known" if fits is None else "yes" if fits else "no"


def _details(report: Report, model: ModelFacts) -> Table:
    return Table(
        title=f"Forecast, not measured: {label(model.name)}",
        header=["device", "tokens/s", "from", "to", "worst step, ms", "memory, MB", "fits", "bound by"],
        rows=[
            [
                row.device,
                *map(significant, (row.tokens_per_s, row.at_least, row.at_most, row.worst_step_ms)),
                megabytes(row.memory),
                _fits(row.fits),
                row.bound,
            ]
            for row in report.forecasts
            if row.name == model.name
        ],
        texts=frozenset({6, 7}),
    )


def _row(report: Report, model: ModelFacts) -> list[str]:
    full, needs = memory_of(report, model.name).points[-1], needs_of(report, model.name)
    sizes = (full.weights, full.state, full.working, needs.memory, needs.bytes_per_token)
    return [label(model.name), *map(megabytes, sizes), significant(needs.tokens_per_s_per_gb_s)]
