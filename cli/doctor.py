"""`foveal doctor`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from ..errors import BackendUnavailable, ConfigError, install
from ..runtime.engines.native_library import INSTALL, native_library
from .console import out, print_json

# What each verb or target needs, and the extra that brings it.
_NEEDS = (
    ("running on cpu", "onnxruntime", "cpu"),
    ("native steps on cpu", "foveal-native", "native"),
    ("running on cuda", "onnxruntime-gpu", "cuda"),
    ("convert, verify, train", "torch", "export"),
    ("convert, verify", "onnx", "export"),
    ("convert, verify", "onnxscript", "export"),
    ("building for tensorrt-rtx", "tensorrt-rtx", "rtx"),
    ("building for tensorrt", "tensorrt", "tensorrt"),
    ("serve", "fastapi", "serve"),
    ("serve", "uvicorn", "serve"),
    ("serve", "prometheus-client", "serve"),
    ("serve --ray, generate --ray", "ray", "ray"),
    ("JSON schemas, regular expressions, grammars", "llguidance", "guided"),
)


class Finding(msgspec.Struct, frozen=True):
    """One package foveal can use; `mend` is what to run when it is missing."""

    use: str
    package: str
    version: str | None
    mend: str | None


def doctor(json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Say what this machine can do, and what to install for the rest."""
    from ..bench.environment import read_environment

    native = _native()
    power, findings, conflicts = _power(), [_find(*need) for need in _NEEDS], _conflicts()
    environment = read_environment()
    if json:
        print_json(
            msgspec.json.encode(
                {
                    "environment": environment,
                    "findings": findings,
                    "conflicts": conflicts,
                    "native": native,
                    "power": power,
                }
            )
        )
        return
    out.print(f"{environment.cpu}, {environment.cpus_usable} CPUs, {environment.system}, Python {environment.python}")
    table = Table(box=None, header_style="bold")
    for column in ("for", "package", "version", "to install"):
        table.add_column(column)
    for finding in findings:
        table.add_row(finding.use, finding.package, finding.version or "missing", finding.mend or "", style=None)
    out.print(table, markup=False)
    out.print(f"native steps: {native}", markup=False)
    out.print(f"power: {power}", markup=False)
    for conflict in conflicts:
        out.print(conflict, style="red")


def _native() -> str:
    """Which instructions they use on this machine, or why there are none."""
    try:
        library = native_library()
    except BackendUnavailable as error:
        return str(error)
    return f"{library.isa}, {library.path}"


def _power() -> str:
    """The sensor `foveal bench --power` would use, or why there is none."""
    from ..bench.power.find import find_sensor

    try:
        info = find_sensor().info
    except ConfigError as error:
        return str(error)
    return f"{info.sensor}, {' + '.join(info.rails)}: {info.sees}"


def _find(use: str, package: str, extra: str) -> Finding:
    try:
        return Finding(use, package, version(package), None)
    except PackageNotFoundError:
        return Finding(use, package, None, INSTALL if package == "foveal-native" else install(extra))


def _conflicts() -> list[str]:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _find("", name, "").version]
    if len(installed) == 2:
        return ["onnxruntime and onnxruntime-gpu overwrite each other; uninstall both, then install one of them"]
    return []
