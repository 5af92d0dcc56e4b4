"""`foveal inspect BUNDLE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from ..bundle import Bundle, open_bundle
from ..contract import InputSpec, StageSpec
from ..errors import ConfigError
from .conditions import require
from .console import out, print_json
from .engine_table import show_engines, show_layers
from .precision_table import show_precisions


def inspect(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle to describe.")],
    tokens: Annotated[int, typer.Option(help="Length of the timeline.")] = 33,
    layers: Annotated[bool, typer.Option("--layers", help="Print the kernels of its TensorRT engines too.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="With --layers: run them, on their GPU, and say what share of a step each takes.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the description as JSON.")] = False,
) -> None:
    """Describe a bundle: its stages, and which of them fires at which token."""
    require(context, {"layers": (not json, "a table, which --json is not"), "profile": (layers, "--layers")})
    opened = open_bundle(bundle)
    built = [target for target in opened.manifest.engines if target.startswith("tensorrt")]
    if layers and not built:
        raise ConfigError(f"{bundle} has no TensorRT engines; add them: foveal build {bundle} --target tensorrt-rtx")
    if json:
        print_json(msgspec.json.encode(_description(opened, tokens)))
        return
    show_bundle(opened, tokens)
    for target in built if layers else ():
        show_layers(opened, target, _shares(opened, target) if profile else None)


def show_bundle(opened: Bundle, tokens: int = 33) -> None:
    """Print what a bundle is, its stages, its engines and a timeline of so many tokens."""
    manifest, model = opened.manifest, opened.manifest.model
    out.print(f'{opened.path}: {model.architecture} "{model.hierarchy}" from a {model.source_format} checkpoint')
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
    out.print(_stage_table(opened))
    if manifest.precision != "fp32":
        for target in manifest.engines:
            if not target.startswith("tensorrt"):
                show_precisions(opened, target)
    for target in manifest.engines:
        if target.startswith("tensorrt"):
            show_engines(opened, target)
    out.print(_timeline([entry.spec for entry in manifest.stages], tokens), markup=False)


def _shares(bundle: Bundle, target: str) -> dict[str, dict[str, float]]:
    from ..bench.layer_times import layer_shares

    return layer_shares(bundle, target)


def _stage_table(bundle: Bundle) -> Table:
    table = Table(box=None, header_style="bold")
    for column in ("stage", "stride", "layers", "parameters", "weights, MB", "cache, MB/1k", "reads"):
        table.add_column(column, justify="left" if column in ("stage", "reads") else "right")
    for entry in bundle.manifest.stages:
        spec = entry.spec
        weights, cache = f"{entry.weight_bytes / 1e6:.2f}", _cache_megabytes(bundle, spec, 1000)
        reads = " + ".join(map(_read, spec.inputs))
        table.add_row(spec.name, str(spec.stride), str(spec.layers), f"{spec.parameters:,}", weights, cache, reads)
    return table


def _read(given: InputSpec) -> str:
    if given.source is None:
        return "tokens"
    return given.source if given.count == 1 else f"{given.count} rows of {given.source}"


def _cache_megabytes(bundle: Bundle, spec: StageSpec, tokens: int) -> str:
    """By target, as engines may keep their caches narrower than the graph has them."""
    rows = spec.capacity_firings(tokens)
    return " ".join(f"{rows * bundle.cache_bytes_per_row(target, spec) / 1e6:.2f}" for target in bundle.manifest.engines)


def _timeline(specs: list[StageSpec], tokens: int) -> str:
    """One line per stage, one column per token: `#` where it fires."""
    width = max(len("token"), *(len(spec.name) for spec in specs)) + 2
    ruler = "".join(str(token // 10 % 10) if token % 10 == 0 else " " for token in range(tokens))
    lines = ["token".ljust(width) + ruler]
    for spec in specs:
        fires = "".join("#" if len(spec.firings(token, 1)) else "." for token in range(tokens))
        lines.append(spec.name.ljust(width) + fires)
    return "\n".join(lines)


def _description(bundle: Bundle, tokens: int) -> dict[str, object]:
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
        "timeline": {
            entry.spec.name: [token for token in range(tokens) if len(entry.spec.firings(token, 1))]
            for entry in manifest.stages
        },
    }
