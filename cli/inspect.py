"""`foveal inspect BUNDLE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import msgspec
import typer
from rich.table import Table

from ..bundle import Bundle, check_target, open_bundle
from ..contract import InputSpec, StageSpec, rules_by_name
from ..errors import ConfigError
from ..forecast.traffic import StageReads, reads_per_token
from ..runtime.native_engines import runs_on
from .conditions import require
from .console import out, print_json
from .engine_table import show_engines, show_layers
from .precision_table import show_precisions
from .profile_table import show_profile
from .threads import pool_threads
from .timeline import Timeline, as_json, by_strides, drawn, of_text, told

if TYPE_CHECKING:
    from ..bench.operator_times import Profile


def inspect(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle to describe.")],
    tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Length of the timeline; if not given, 33, or the whole text."),
    ] = None,
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Draw the timeline of this text, or of the file of that name: where the data decides, it tells."),
    ] = None,
    ids: Annotated[Optional[str], typer.Option(help="Draw that of these token ids.")] = None,  # noqa: UP045
    layers: Annotated[bool, typer.Option("--layers", help="Print the kernels of its TensorRT engines too.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Decode some tokens, and say what each stage and type of operator takes.")
    ] = False,
    target: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Whose engines to run or to profile: cpu, tensorrt or tensorrt-rtx; if not given, the bundle's first."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the description as JSON.")] = False,
) -> None:
    """Describe a bundle: its stages, which of them fires at which token, and the bytes that a token reads."""
    runs = text is not None or ids is not None
    require(
        context,
        {"layers": (not json, "a table, which --json is not"), "target": (profile or runs, "--profile, --text or --ids")},
    )
    if tokens is not None and tokens < 1:
        raise ConfigError(f"--tokens is {tokens}, expected at least 1, the length of the timeline")
    opened = open_bundle(bundle)
    built = [target for target in opened.manifest.engines if target.startswith("tensorrt")]
    if layers and not built:
        raise ConfigError(f"{bundle} has no TensorRT engines; add them: foveal build {bundle} --target tensorrt-rtx")
    profiled = _profile(opened, target) if profile else None
    timeline = of_text(opened, _target(opened, target), text, ids, tokens) if runs else _strides(opened, tokens)
    if json:
        profiles = {} if profiled is None else {"profile": profiled}
        print_json(msgspec.json.encode({**_description(opened), **as_json(timeline), **profiles}))
        return
    show_bundle(opened, timeline)
    show_reads(opened)
    for name in built if layers else ():
        show_layers(opened, name)
    if profiled is not None:
        show_profile(profiled, _is_expected(opened))


def _profile(bundle: Bundle, target: str | None) -> Profile:
    from ..bench.operator_times import profile

    chosen = _target(bundle, target)
    native = False if chosen == "cpu" else None  # operators are timed in the graphs
    threads = pool_threads(bundle.path, chosen, None, native) if chosen in bundle.manifest.engines else None
    return profile(bundle, chosen, threads=threads)


def _target(bundle: Bundle, asked: str | None) -> str:
    chosen = asked or next(iter(bundle.manifest.engines), "cpu")
    check_target(chosen)
    return chosen


def _strides(bundle: Bundle, tokens: int | None = None) -> Timeline:
    return by_strides([entry.spec for entry in bundle.manifest.stages], tokens or 33)


def show_reads(bundle: Bundle) -> None:
    """Print what decoding a token reads from memory; once for all targets whose engines read the same."""
    by_reads: dict[tuple[StageReads, ...], list[str]] = {}
    for target in bundle.manifest.engines:
        by_reads.setdefault(reads_per_token(bundle, target), []).append(target)
    for reads, targets in by_reads.items():
        _show_reads(bundle, reads, ", ".join(targets))


def _show_reads(bundle: Bundle, stages: tuple[StageReads, ...], targets: str) -> None:
    context, is_narrow = bundle.manifest.model.context, bundle.manifest.precision != "fp32"
    table = Table(box=None, header_style="bold")
    table.add_column("read per token, MB")
    columns = "fires", "weights", "in fp32", f"cache at {context // 2:,}", f"at {context:,}"
    for column in columns:
        if is_narrow or column != "in fp32":
            table.add_column(column, justify="right")
    for stage in (*stages, _all(stages)):
        wide = [_megabytes(stage.weights_fp32)] if is_narrow else []
        rate = f"{stage.fires_per_token:.3g}" if stage.name != _ALL else ""
        figures = _megabytes(stage.weights), *wide, _megabytes(stage.caches_half), _megabytes(stage.caches_full)
        table.add_row(stage.name, rate, *figures)
    how_often = "how often a stage fires" + " (expected of text, where the data decides)" * _is_expected(bundle)
    out.print(f"\nDecoding with {targets}, weights by {how_often}, keys and values behind so many tokens:", soft_wrap=True)
    out.print(table, markup=False)
    whole = _all(stages)
    most = 1e9 / (whole.weights + whole.caches_half)
    out.print(
        f"Each GB/s of memory bandwidth allows at most {most:,.3g} tokens/s behind {context // 2:,} tokens (docs/devices.md)"
    )


def _is_expected(bundle: Bundle) -> bool:
    return any(entry.spec.clock is not None for entry in bundle.manifest.stages)


_ALL = "all"


def _all(stages: tuple[StageReads, ...]) -> StageReads:
    wide = [stage.weights_fp32 for stage in stages]
    return StageReads(
        name=_ALL,
        fires_per_token=0.0,
        weights=sum(stage.weights for stage in stages),
        weights_fp32=None if None in wide else sum(width for width in wide if width is not None),
        caches_half=sum(stage.caches_half for stage in stages),
        caches_full=sum(stage.caches_full for stage in stages),
    )


def _megabytes(given: float | None) -> str:
    return "-" if given is None else f"{given / 1e6:.3g}"


def show_bundle(opened: Bundle, timeline: Timeline | None = None) -> None:
    """Print what a bundle is, its stages, its engines and a timeline; None: of strides."""
    manifest, model = opened.manifest, opened.manifest.model
    out.print(f'{opened.path}: {model.architecture} "{model.hierarchy}" from a {model.source_format} checkpoint')
    if model.source is not None:
        out.print(f"from {model.source.name}, license {model.source.license or 'not named'}")
    for note in model.notes:
        out.print(f"note: {note}", markup=False)
    out.print(
        f"{model.parameters:,} parameters, width {model.dim}, vocabulary {model.vocab_size}, context {model.context} tokens, "
        f"{model.layer_equivalents:.2f} layers' worth of work per token"
    )
    out.print(
        f"dialect {manifest.dialect}, {manifest.precision}, engines: {', '.join(manifest.engines) or 'none'}, "
        f"tokenizer: {manifest.tokenizer or 'none'}, {opened.total_bytes() / 1e6:.1f} MB on disk"
    )
    for name, rules in rules_by_name(model.end_rules).items():
        out.print(f"end rule {name}: {' or '.join(map(str, rules))}")
    out.print(_stage_table(opened))
    _show_native(opened)
    if manifest.precision != "fp32":
        for target in manifest.engines:
            if not target.startswith("tensorrt"):
                show_precisions(opened, target)
    for target in manifest.engines:
        if target.startswith("tensorrt"):
            show_engines(opened, target)
    _show_timeline(opened, timeline or _strides(opened))


def _show_native(opened: Bundle) -> None:
    """Which stages run native steps here, and why others don't."""
    told = runs_on(opened) if "cpu" in opened.manifest.engines else {}
    by_kind: dict[str, list[str]] = {}
    for name, on in told.items():
        by_kind.setdefault(on, []).append(name)
    for on, names in by_kind.items():
        out.print(f"cpu: {', '.join(names)} run{'s' * (len(names) == 1)} on {on}", markup=False, highlight=False)


def _show_timeline(opened: Bundle, timeline: Timeline) -> None:
    out.print(drawn(timeline), markup=False, highlight=False, soft_wrap=True)
    for line in told(timeline.schedule):
        out.print(line, markup=False)
    left_out = [entry.spec for entry in opened.manifest.stages if entry.spec.name not in timeline.fires]
    if left_out:
        names = ", ".join(spec.name for spec in left_out)
        out.print(
            f"the data decides when {names} fire{'s' * (len(left_out) == 1)}: give a text (--text) to see it", markup=False
        )


def _stage_table(bundle: Bundle) -> Table:
    table = Table(box=None, header_style="bold")
    for column in ("stage", "stride", "layers", "parameters", "weights, MB", "cache, MB/1k", "reads"):
        table.add_column(column, justify="left" if column in ("stage", "reads") else "right")
    for entry in bundle.manifest.stages:
        spec = entry.spec
        weights, cache = f"{entry.weight_bytes / 1e6:.2f}", _cache_megabytes(bundle, spec, 1000)
        reads = " + ".join(map(_read, spec.inputs))
        table.add_row(spec.name, _stride(spec), str(spec.layers), f"{spec.parameters:,}", weights, cache, reads)
    return table


def _stride(spec: StageSpec) -> str:
    """Where the data decides, what is expected."""
    return str(spec.stride) if spec.clock is None else f"~{spec.tokens_per_firing:g}"


def _read(given: InputSpec) -> str:
    if given.source is None:
        return "tokens"
    if given.reads == "span":
        return f"spans of {given.source}"
    return given.source if given.count == 1 else f"{given.count} rows of {given.source}"


def _cache_megabytes(bundle: Bundle, spec: StageSpec, tokens: int) -> str:
    """By target, as engines may keep their caches narrower than the graph has them."""
    rows = spec.capacity_firings(tokens)
    return " ".join(f"{rows * bundle.cache_bytes_per_row(target, spec) / 1e6:.2f}" for target in bundle.manifest.engines)


def _description(bundle: Bundle) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "path": str(bundle.path),
        "model": manifest.model,
        "dialect": manifest.dialect,
        "precision": manifest.precision,
        "tokenizer": manifest.tokenizer,
        "targets": list(manifest.engines),
        "bytes": bundle.total_bytes(),
        "stages": manifest.stages,
        "runs_on": runs_on(bundle) if "cpu" in manifest.engines else {},
        "reads_per_token": {target: reads_per_token(bundle, target) for target in manifest.engines},
    }
