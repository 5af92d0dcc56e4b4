"""Figures of a bundle from a file that `foveal bench --save` wrote."""

from __future__ import annotations

from pathlib import Path

from ..bench.result import ModelResult, read_result
from ..bundle import Manifest, open_bundle
from ..errors import ConfigError
from ..hub.card import Figures


def figures_of(path: Path, bundle: Path) -> list[Figures]:
    """What a file says of a bundle.

    Raises:
        ConfigError: it can't be read, is no result of a bench, or is one of other models.
    """
    result = read_result(path)
    manifest = open_bundle(bundle, "used").manifest
    found = [model for model in result.models if _is_of(model, manifest)]
    if not found:
        has = ", ".join(f"{model.hierarchy} in {model.precision} ({model.parameters:,} parameters)" for model in result.models)
        raise ConfigError(
            f"{path} has no figures of {bundle}, {manifest.model.hierarchy} in {manifest.precision} "
            f"({manifest.model.parameters:,} parameters), but of {has or 'no model'}; run `foveal bench {bundle} --save FILE`"
        )
    of, at = result.environment, result.environment.created_utc[:10]
    runtime = ", ".join(f"{name} {of.packages[name]}" for name in ("foveal", "onnxruntime") if of.packages.get(name))
    machine = f"{of.cpu or of.system}, {of.cpus_usable} CPUs, {runtime}, {at}"
    return [
        Figures(
            runtime=model.runtime,
            threads=model.threads,
            ttft_ms=model.latency.ttft_ms.p50,
            itl_ms=model.latency.itl_ms.p50,
            tokens_per_s=model.latency.decode_tokens_per_s,
            prompt_tokens=result.prompt_tokens,
            machine=machine,
            command=result.command,
        )
        for model in found
    ]


def _is_of(model: ModelResult, manifest: Manifest) -> bool:
    return (model.hierarchy, model.precision, model.parameters) == (
        manifest.model.hierarchy,
        manifest.precision,
        manifest.model.parameters,
    )
