"""The page of `make gpu-check`: what docs/support.md can take as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from gpu_report import Check, Figure, GpuCheck
from gpu_subjects import no_gpu


def sentence_of(result: GpuCheck) -> str:
    """What a run says, in one sentence."""
    if not result.machine.gpus and all(result.subjects.values()):
        return f"Nothing was checked: {no_gpu(result.machine)}."
    counts = Counter(check.outcome for check in result.checks)
    on = ", ".join(subject for subject, missing in result.subjects.items() if missing is None) or "nothing"
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if counts[outcome])
    return f"Checked {on} on {device_of(result)}: {said}."


def device_of(result: GpuCheck) -> str:
    """The machine, as one names it."""
    board = result.environment.device.board if result.environment.device else None
    gpus = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in result.machine.gpus)
    return board or gpus or result.environment.cpu or result.environment.system


def page_of(result: GpuCheck) -> str:
    """The whole page, in Markdown."""
    parts = [
        [f"### gpu-check, {result.environment.created_utc[:10]}, {device_of(result)}"],
        [sentence_of(result)],
        _environment(result),
        _support(result),
        *_failures(result),
        *(part for subject in result.subjects for part in _figures(result, subject)),
        *_skipped(result),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _environment(result: GpuCheck) -> list[str]:
    machine, device = result.machine, result.environment.device
    libraries = ", ".join(f"{lib.package or name} {lib.version or 'broken'}" for name, lib in machine.libraries.items())
    lines = [f"{result.environment.system}, Python {result.environment.python}; {libraries or 'no engine library'}."]
    lines += [f"Driver {machine.driver or 'unknown'}, CUDA {machine.cuda or 'unknown'}."] if machine.gpus else []
    if device is not None and (device.power_mode or device.l4t):
        locked = "locked" if device.clocks_locked else "not locked"
        lines.append(f"{device.l4t or 'no L4T'}; power mode {device.power_mode or 'unknown'}, clocks {locked}.")
    return [*lines, f"`{result.command}`"]


def _support(result: GpuCheck) -> list[str]:
    """The rows of docs/support.md."""
    rows = [
        (subject, _version(result, subject), device_of(result) if missing is None else "", _cell(result, subject, missing))
        for subject, missing in result.subjects.items()
    ]
    return _table(("target", "version", "device", "state"), rows)


def _version(result: GpuCheck, subject: str) -> str:
    target, _, _provider = subject.partition(":")
    module = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx", "cuda": "onnxruntime"}[target]
    library = result.machine.libraries.get(module)
    return "" if library is None or library.version is None else library.version


def _cell(result: GpuCheck, subject: str, missing: str | None) -> str:
    if missing is not None:
        return f"not run: {missing}"
    counts = Counter(check.outcome for check in result.of(subject))
    date, whole = result.environment.created_utc[:10], counts["passed"] + counts["failed"]
    state = f"**{counts['failed']} failed**" if counts["failed"] else "all passed"
    return f"run on {date}: {whole} checks, {state}"


def _failures(result: GpuCheck) -> Iterator[list[str]]:
    failed = [check for check in result.checks if check.outcome == "failed"]
    if failed:
        yield ["#### What failed"]
        rows = [(check.subject, check.name, check.model or "", check.precision or "", check.reason or "") for check in failed]
        yield _table(("target", "check", "model", "precision", "why"), rows)


def _skipped(result: GpuCheck) -> Iterator[list[str]]:
    """Every check that was skipped, by reason; targets that share reason and checks share a row."""
    names: dict[tuple[str, str], dict[str, None]] = {}
    for check in result.checks:
        if check.outcome == "skipped":
            names.setdefault((check.subject, check.reason or ""), {})[check.name] = None
    subjects: dict[tuple[str, str], list[str]] = {}
    for (subject, reason), found in names.items():
        subjects.setdefault((reason, ", ".join(found)), []).append(subject)
    if subjects:
        yield ["#### What was skipped"]
        yield _table(("target", "why", "checks"), [(", ".join(of), why, checks) for (why, checks), of in subjects.items()])


def _figures(result: GpuCheck, subject: str) -> Iterator[list[str]]:
    """A table for each check of a subject that has figures."""
    by_name: dict[str, list[Check]] = {}
    for check in result.of(subject):
        if check.figures:
            by_name.setdefault(check.name, []).append(check)
    for name, checks in by_name.items():
        yield [f"#### {subject}: {name}"]
        yield _figure_table(checks)


def _figure_table(checks: Sequence[Check]) -> list[str]:
    """A row for each case, and each thing that it has figures of."""
    columns = list(dict.fromkeys((figure.name, figure.unit) for check in checks for figure in check.figures))
    header = ("model", "precision", "of", *(f"{name}, {unit}" if unit else name for name, unit in columns))
    rows = []
    for check in checks:
        for of in dict.fromkeys(figure.of for figure in check.figures):
            found = {figure.name: figure for figure in check.figures if figure.of == of}
            cells = [_value(found[name]) if name in found else "" for name, _ in columns]
            rows.append((check.model or "", check.precision or "", of, *cells))
    return _table(header, rows)


def _value(figure: Figure) -> str:
    value = figure.value
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(header), _line(["---"] * len(header)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
