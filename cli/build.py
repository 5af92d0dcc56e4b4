"""`foveal build BUNDLE [OUT]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import typer

from ..errors import ConfigError
from .conditions import require
from .console import out, progress
from .engine_table import show_engines, show_forecast
from .options import Calibration, MaxTokens, Programs, native_counts, text_counts
from .precision_table import refuse_both, show_precisions

if TYPE_CHECKING:
    from ..precision import Plan

_ENGINES = "TensorRT engines"


def build(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle to start from: an fp32 one, if it is to be of another precision.")],
    destination: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="The bundle to write; if not given, engines are added to the first."),
    ] = None,
    precision: Annotated[Optional[str], typer.Option(help="fp16, int8, w8 or w4 for all stages; int8 if not given.")] = None,  # noqa: UP045
    plan: Annotated[Optional[Path], typer.Option(help="Or a plan, as `foveal calibrate --budget` writes it.")] = None,  # noqa: UP045
    calibration: Calibration = None,
    max_tokens: MaxTokens = None,
    head: Annotated[Optional[bool], typer.Option("--head/--no-head", help="The output head too; if not given, it is.")] = None,  # noqa: UP045
    embedding: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--embedding/--no-embedding", help="The token and position tables too; if not given, they are not."),
    ] = None,
    native: Programs = None,
    cache: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='Keys and values: "auto" (int8 with --calibration, else fp32), or "fp32".'),
    ] = None,
    target: Annotated[str, typer.Option(help="What to compile engines for.")] = "cpu",
    max_batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Sequences at once; 1 if not given.", rich_help_panel=_ENGINES),
    ] = None,
    capacity: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens that caches hold; the model's context if not given.", rich_help_panel=_ENGINES),
    ] = None,
    max_prefill: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens of one call; 512 if not given, or the capacity if that is less.", rich_help_panel=_ENGINES),
    ] = None,
    compute_capability: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Build for these GPUs, as 8.9; if not given, for all since 8.0; 7.5: fp16 and int8. tensorrt-rtx only.",
            rich_help_panel=_ENGINES,
        ),
    ] = None,
    timing_cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A file of kernel times, to take and to add to. tensorrt only.", rich_help_panel=_ENGINES),
    ] = None,
    error_on_miss: Annotated[
        bool, typer.Option("--error-on-miss", help="Build nothing that was not built before.", rich_help_panel=_ENGINES)
    ] = False,
    strip_weights: Annotated[
        bool, typer.Option("--strip-weights", help="Leave weights out of the engines.", rich_help_panel=_ENGINES)
    ] = False,
) -> None:
    """Write an fp32 bundle in another precision, or add engines for another target to a bundle; and say what became of them."""
    from .. import EngineOptions
    from .. import build as build_bundle
    from ..calibration.settings import CalibrationSettings

    given: dict[str, Any] = {
        "max_batch": max_batch,
        "capacity": capacity,
        "max_prefill": max_prefill,
        "compute_capabilities": tuple(compute_capability) if compute_capability else None,
        "timing_cache": timing_cache,
        "error_on_miss": error_on_miss or None,
        "strip_weights": strip_weights or None,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    if destination is not None and target != "cpu" and not (precision or plan or calibration):
        raise ConfigError(
            "a bundle to write is int8 if --precision is not given, and int8 needs text: --calibration FILE; to add engines "
            f"for {target} to {bundle} leave {destination} out, and for a copy with them alone say --precision fp32"
        )
    wanted = _precision(destination, precision, plan, {"head": head, "embedding": embedding, "cache": cache})
    require(context, {**_conditions(wanted, target, plan, calibration), "native": native_counts(target)})
    if target.startswith("tensorrt"):
        show_forecast(bundle)
    with progress("build") as report:
        made = build_bundle(
            bundle,
            destination,
            wanted,
            target,
            calibration=calibration or (),
            settings=CalibrationSettings(max_tokens=max_tokens) if max_tokens is not None else None,
            options=EngineOptions(**chosen) if chosen else None,
            native=native,
            on_progress=report,
        )
    out.print(f"{made.path}: {made.manifest.precision}, {made.total_bytes() / 1e6:.1f} MB, engines for {target}")
    if target.startswith("tensorrt"):
        show_engines(made, target)
    else:
        show_precisions(made, target)


def _conditions(
    wanted: str | Path | Plan | None, target: str, plan: Path | None, calibration: Sequence[Path] | None
) -> dict[str, tuple[bool, str]]:
    """When options do something."""
    reads = {"max_tokens": (bool(calibration), "--calibration")}
    if wanted is None or isinstance(wanted, (str, Path)):  # engines are added
        return {**reads, "calibration": (False, "a bundle to write, as graphs are what text changes: foveal build BUNDLE OUT")}
    is_narrow = wanted.label != "fp32", "a precision other than fp32"
    shrinks = msgspec.structs.replace(wanted, cache="auto").has_int8_caches(target)
    caches = "int8, w8 or w4 on --target cpu: else keys and values stay as the graphs have them"
    return {
        **reads,
        "calibration": text_counts(wanted, target, plan, calibration),
        **dict.fromkeys(("head", "embedding"), is_narrow),
        "cache": (shrinks, caches),
    }


def _precision(
    destination: Path | None, precision: str | None, path: Path | None, given: dict[str, Any]
) -> str | Path | Plan | None:
    """The plan that the options spell; without a destination what they say has to be what the bundle is."""
    from ..precision import Plan, read_plan

    refuse_both(precision, path)
    details = {name: value for name, value in given.items() if value is not None}
    if destination is None:
        for name, value in details.items():
            option = f"--no-{name}" if value is False else f"--{name}"
            raise ConfigError(f"{option} makes another bundle; say where to write it: foveal build BUNDLE OUT")
        return path or precision
    return msgspec.structs.replace(Plan(default=precision or "int8") if path is None else read_plan(path), **details)
