"""A checkpoint becomes a bundle: split, export every stage, compile for a target, hash, rename into place."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from torch import nn

from ..bundle import (
    MANIFEST,
    SCHEMA_VERSION,
    Bundle,
    EngineSidecar,
    Manifest,
    ModelInfo,
    StageEntry,
    check_precision,
    check_target,
    list_files,
    open_bundle,
    write_manifest,
)
from ..errors import BundleError, ConfigError
from ..files import new_directory, sha256_of, write_atomically
from ..models.hourglass import Hourglass
from ..models.loading import load_model
from ..models.stages import Stage, split
from .cpu import lower, padded_head_dim
from .dialect import dialect_named
from .graph import export_stage

_log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]
"""Called with what is being done, the steps done and the steps in all."""


def convert(
    checkpoint: str | Path,
    out: str | Path,
    target: str = "cpu",
    precision: str = "fp32",
    *,
    tokenizer: Literal["bytes"] | str | Path | None = None,
    dialect: str = "modern",
    on_progress: Progress | None = None,
) -> Bundle:
    """Convert a checkpoint directory, foveal's own or lucidrains', into a bundle with engines for `target`.

    Args:
        checkpoint: a directory with `config.json` and weights.
        out: the bundle to write; a bundle that is there is replaced, anything else is left alone and refused.
        target: `"cpu"`.
        precision: `"fp32"`.
        tokenizer: a `tokenizer.json`, or `"bytes"` if ids are UTF-8 bytes; None: the checkpoint's own, if it has one.
        dialect: the ONNX vocabulary of the stage graphs.
        on_progress: called before each step.

    Raises:
        ConfigError: unknown target, precision or dialect, or `out` holds something else.
        CheckpointError: the checkpoint is not what its configuration says.
        ExportError, BuildError: a stage could not be exported or compiled.
    """
    check_target(target)
    check_precision(precision)
    dialect_named(dialect)
    loaded = load_model(checkpoint)
    return convert_model(
        loaded.model,
        out,
        target,
        precision,
        tokenizer=tokenizer if tokenizer is not None else loaded.tokenizer_path,
        source_format=loaded.source_format,
        dialect=dialect,
        on_progress=on_progress,
    )


def convert_model(
    model: Hourglass,
    out: str | Path,
    target: str = "cpu",
    precision: str = "fp32",
    *,
    tokenizer: str | Path | None = None,
    source_format: str = "foveal",
    dialect: str = "modern",
    on_progress: Progress | None = None,
) -> Bundle:
    """As `convert`, from a model in memory."""
    check_target(target)
    check_precision(precision)
    path, vocabulary, report = Path(out), dialect_named(dialect), on_progress or _ignore
    _check_out(path)
    stages = split(model.eval())
    steps = 2 * len(stages) + 1
    with new_directory(path) as directory:
        kind = _place_tokenizer(tokenizer, directory)
        entries = []
        for index, stage in enumerate(stages):
            report(f"exporting stage {stage.spec.name}", index, steps)
            graph = f"stages/{stage.spec.name}.onnx"
            weight_bytes = export_stage(stage, model.config, directory / graph, vocabulary)
            entries.append(StageEntry(spec=stage.spec, graph=graph, weight_bytes=weight_bytes, table_bytes=_table_bytes(stage)))
        engines = {}
        for index, stage in enumerate(stages):
            report(f"compiling stage {stage.spec.name} for {target}", len(stages) + index, steps)
            engines[stage.spec.name] = _compile(stage, directory, target, precision)
        report("hashing", steps - 1, steps)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            foveal_version=_version(),
            model=_model_info(model, source_format),
            dialect=dialect,
            precision=precision,
            tokenizer=kind,
            stages=tuple(entries),
            engines={target: engines},
            files=list_files(directory),
        )
        write_manifest(directory, manifest)
    report("done", steps, steps)
    return open_bundle(path)


def _ignore(_doing: str, _done: int, _steps: int) -> None:
    pass


def _version() -> str:
    from .. import __version__

    return __version__


def _check_out(out: Path) -> None:
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} exists and is not a bundle; choose another path or remove it yourself")


def _place_tokenizer(tokenizer: str | Path | None, directory: Path) -> Literal["tokenizer.json", "bytes"] | None:
    if tokenizer is None:
        return None
    if tokenizer == "bytes":
        return "bytes"
    if not Path(tokenizer).is_file():
        raise ConfigError(f'no tokenizer at {tokenizer}; expected a tokenizer.json, or "bytes"')
    shutil.copyfile(tokenizer, directory / "tokenizer.json")
    return "tokenizer.json"


def _model_info(model: Hourglass, source_format: str) -> ModelInfo:
    config = model.config
    return ModelInfo(
        architecture="vanilla" if config.levels.is_vanilla else "hourglass",
        source_format=source_format,
        hierarchy=str(config.levels),
        vocab_size=config.vocab_size,
        dim=config.dim,
        max_positions=config.max_positions if config.positions == "learned" else None,
        context=config.max_positions,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layer_equivalents=config.levels.layer_equivalents,
    )


def _table_bytes(stage: Stage) -> int:
    tables = [module.weight for module in stage.module.modules() if isinstance(module, nn.Embedding)]
    return sum(table.numel() * table.element_size() for table in tables)


def _compile(stage: Stage, directory: Path, target: str, precision: str) -> str:
    """Compile one stage for a target; returns the engine's path in the bundle."""
    source = directory / "stages" / f"{stage.spec.name}.onnx"
    engine = f"engines/{target}/{stage.spec.name}.onnx"
    lower(source, directory / engine, stage.spec)
    sidecar = EngineSidecar(
        target=target,
        stage=stage.spec.name,
        builder=f"foveal {_version()}",
        precision_asked=precision,
        precision_obtained=precision,
        graph_sha256=sha256_of(source),
        cache_head_dim=padded_head_dim(stage.spec.head_dim),
        batch_one_chunks=True,
    )
    data = msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n"
    write_atomically((directory / engine).with_suffix(".json"), data)
    return engine
