"""What the figures were measured on."""

from __future__ import annotations

from ...bench.environment import Environment
from ..document import Report
from ..numbers import significant
from .section import Section, Table


def environment(report: Report) -> Section:
    """Machine and versions of the measurement; and of the report, where that is another."""
    measured = report.measured.environment
    tables = [_machine("The measurement", measured)]
    if report.was_saved:
        tables.append(_machine("This report: losses, and firings where the data decides", report.machine))
    threads = sorted({model.threads for model in report.measured.models})
    return Section(
        name="environment",
        title="Where it was measured",
        lead=[
            f"{report.measured.prompt_tokens:,} prompt and {report.measured.new_tokens:,} new tokens of "
            f"{report.measured.reads}, {report.measured.rounds} rounds, seed {report.measured.seed}, batch 1, "
            f"{', '.join(map(str, threads))} threads, engines for {report.target}."
        ],
        shown=tables,
    )


def _machine(title: str, found: Environment) -> Table:
    device, gpu = found.device, None if found.device is None else found.device.gpu
    rows = [
        ["date", found.created_utc],
        ["CPU", f"{found.cpu or 'not known'}, {found.cpus_usable} usable"],
        ["memory", "not known" if found.memory_bytes is None else f"{significant(found.memory_bytes / 1e9)} GB"],
        [
            "memory reads",
            "not measured" if found.memory_bandwidth_gb_s is None else f"{significant(found.memory_bandwidth_gb_s)} GB/s",
        ],
        ["load average", "not known" if found.load_1min is None else f"{found.load_1min:.2f} when it began"],
        ["system", found.system],
        ["Python", found.python],
        ["packages", ", ".join(f"{name} {version}" for name, version in found.packages.items() if version)],
    ]
    if device is not None:
        rows.append(["board", device.board or "none is named"])
        rows.append(
            [
                "GPU",
                (gpu.name or "without a name") if gpu is not None else f"not run: {device.missing.get('gpu', 'there is none')}",
            ]
        )
        if device.power_mode is not None:
            rows.append(["power mode", device.power_mode])
    return Table(title=title, header=["", ""], rows=rows, texts=frozenset({1}))
