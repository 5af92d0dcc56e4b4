"""A checkpoint becomes a bundle: split, export every stage, compile for a target, hash, rename into place."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..bundle import (
    SCHEMA_VERSION,
    Bundle,
    Manifest,
    ModelInfo,
    StageEntry,
    check_target,
    list_files,
    new_bundle,
    open_bundle,
    write_manifest,
)
from ..calibration.graph_files import load_graph
from ..calibration.settings import CalibrationSettings
from ..calibration.text import Texts, require_texts
from ..contract import StageSpec, problem_of
from ..errors import ConfigError, ExportError
from ..hierarchy import Hierarchy
from ..hub.names import Source
from ..models.architecture import Architecture, Description, Stage
from ..models.checkpoint import not_finite
from ..models.readers.loading import load_model
from ..precision import Plan
from ..progress import Progress, silent, within
from ..runtime.tokenizer import check_tokenizer, first_byte_id
from ..storage import storage_errors
from .building import check_stages, check_text_counts, copy_chat_files, plan_of, wants_programs, write_in_precision
from .comparison.probe import Surroundings
from .comparison.sizes import check_module, check_sizes
from .compile import compile_sampler, compile_stage, version
from .cpu.attention import is_of_kernel
from .graphs.dialect import Dialect, dialect_named
from .graphs.export_stage import export_stage
from .graphs.gpu import DeviceFamily
from .graphs.own_modules import asked
from .precision.write_embedding import table_bytes
from .targets import family_for
from .tensorrt.options import EngineOptions
from .tensorrt.turing import check_turing


@storage_errors()
def convert(
    checkpoint: str | Path,
    out: str | Path,
    target: str = "cpu",
    precision: str | Plan | Path = "fp32",
    *,
    calibration: Texts = (),
    settings: CalibrationSettings | None = None,
    tokenizer: str | Path | None = None,
    boundaries: str | None = None,
    threshold: float | None = None,
    dialect: str = "modern",
    options: EngineOptions | None = None,
    native: bool | None = None,
    on_progress: Progress | None = None,
) -> Bundle:
    """Convert a checkpoint of any layout foveal knows (docs/models.md) into a bundle with engines for `target`.

    Args:
        checkpoint: a directory with weights and, for most layouts, a `config.json`; or a file of weights that says enough; or
            the name of either on a hub, `hf:owner/name@revision/path` (docs/hub.md).
        out: the bundle to write; a bundle that is there is replaced, anything else is left alone and refused.
        target: `"cpu"`, `"tensorrt"` or `"tensorrt-rtx"`.
        precision: `"fp32"`, `"fp16"`, `"int8"`, `"w8"`, `"w4"`, or a plan that says it for each stage.
        calibration: text files, like what the model will read; `"fp16"` and `"int8"` need them.
        settings: how text becomes ranges.
        tokenizer: a `tokenizer.json`, or `"bytes"` if ids are UTF-8 bytes, `"bytes+4"` if they are bytes plus 4; None: the
            checkpoint's own, if it has one.
        boundaries: of a BLT, another rule for where patches end than its patcher: `"space"`, or `"fixed:4"` bytes.
        threshold: of a BLT, another than its `config.json` has, in nats.
        dialect: the ONNX vocabulary of the stage graphs: `"modern"`, or `"classic"`, which TensorRT 10.3 parses.
        options: of TensorRT engines: their largest shapes, and how they are built.
        native: as `build`.
        on_progress: called before each step, and as far as it is known within it.

    Raises:
        ConfigError: unknown target, precision or dialect, or options that mean nothing to the target.
        BackendUnavailable: the target's library is not installed.
        CheckpointError: the checkpoint is not what its configuration says.
        CalibrationError: too little text, or activations that are not finite.
        ExportError, BuildError: a stage could not be exported or compiled.
        BundleError: `out` holds something else than a bundle, or is inside one.
        StorageError: nothing can be written at `out` (known before anything is exported), or the disk is full.
        HubError: a hub does not give the checkpoint.
    """
    check_target(target)
    plan_of(precision)
    dialect_named(dialect)
    loaded = load_model(checkpoint, boundaries, threshold, on_progress)
    return convert_model(
        loaded.model,
        out,
        target,
        precision,
        calibration=calibration,
        settings=settings,
        tokenizer=tokenizer if tokenizer is not None else loaded.tokenizer_path or loaded.ids,
        source_format=loaded.source_format,
        notes=loaded.notes,
        source=loaded.source,
        dialect=dialect,
        options=options,
        native=native,
        on_progress=on_progress,
    )


@storage_errors()
def convert_model(
    model: Architecture,
    out: str | Path,
    target: str = "cpu",
    precision: str | Plan | Path = "fp32",
    *,
    calibration: Texts = (),
    settings: CalibrationSettings | None = None,
    tokenizer: str | Path | None = None,
    source_format: str = "foveal",
    notes: Sequence[str] = (),
    source: Source | None = None,
    dialect: str = "modern",
    options: EngineOptions | None = None,
    native: bool | None = None,
    on_progress: Progress | None = None,
) -> Bundle:
    """As `convert`, from a model in memory, in eval mode: foveal's own, or any `nn.Module` that is an `Architecture`.

    `notes` are lines on where the model is from, for the manifest, and `source` its place on a hub.

    Raises:
        ExportError: weights that are not float32 or not finite, which are named; else as `convert`.
    """
    check_target(target)
    plan, path, vocabulary, report = plan_of(precision), Path(out), dialect_named(dialect), on_progress or silent
    programs = wants_programs(native, target)
    require_float32(model)
    stages: Sequence[Stage] = asked(model, "stages")
    check_stages(plan, [stage.spec for stage in stages])
    _check_program([stage.spec for stage in stages])
    info = _model_info(model, stages, source_format, notes, source)
    family = family_for(info, [stage.spec for stage in stages], target, options)
    _check_tokenizer(tokenizer, info.vocab_size)
    check_turing(plan, family)
    given = _Source(info, stages, tokenizer, vocabulary)
    check_text_counts(plan, calibration, settings)
    if plan != Plan():
        require_texts(calibration, tokenizer is not None, "the model")
    with new_bundle(path, report) as directory:
        if plan == Plan():
            _write_fp32(given, directory, target, family, report, programs)
        else:
            full = directory.with_name("fp32")  # to calibrate on; it goes with the work folder
            full.mkdir()
            _write_fp32(given, full, "cpu", None, report, native=False)
            write_in_precision(open_bundle(full), directory, plan, target, family, calibration, settings, report, programs)
    return open_bundle(path)


def require_float32(model: Architecture) -> None:
    """Raise an ExportError that names a weight or buffer that is not float32, or a weight that is not finite.

    Graphs are exported in float32; of a model in memory nothing is changed, so that widening is left to whoever owns it.
    """
    if not isinstance(model, nn.Module):
        return
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, value in tensors:
        is_weight = isinstance(value, nn.Parameter)
        if value.dtype != torch.float32 and (is_weight or value.is_floating_point()):
            kind = str(value.dtype).removeprefix("torch.")
            remedy = "give model.float()" if value.is_floating_point() else "give the model before it was quantised"
            raise ExportError(f"{name} of the model is {kind}, expected float32, in which stages are exported; {remedy}")
    broken = not_finite(dict(model.named_parameters()))
    if broken:
        raise ExportError(f"{broken}, expected numbers; the training had gone astray")


class _Source(NamedTuple):
    """What is converted, and into which vocabulary."""

    info: ModelInfo
    stages: Sequence[Stage]
    tokenizer: str | Path | None
    dialect: Dialect


def _write_fp32(
    source: _Source, directory: Path, target: str, family: DeviceFamily | None, report: Progress, native: bool
) -> None:
    stages = source.stages
    steps = 2 * len(stages) + 1
    around = Surroundings(source.info.vocab_size, [stage.spec for stage in stages], source.info.context)
    for stage in stages:
        check_module(stage, around)
    kind = _place_tokenizer(source.tokenizer, directory)
    entries = []
    for index, stage in enumerate(stages):
        report(f"exporting stage {stage.spec.name}", index, steps)
        graph = f"stages/{stage.spec.name}.onnx"
        weight_bytes = export_stage(stage, directory / graph, source.dialect)
        check_sizes(stage, directory / graph, around)
        tables = table_bytes(load_graph(directory / graph))
        entries.append(StageEntry(spec=stage.spec, graph=graph, weight_bytes=weight_bytes, table_bytes=tables))
    engines = {}
    for index, stage in enumerate(stages):
        doing = f"compiling stage {stage.spec.name} for {target}"
        report(doing, len(stages) + index, steps)
        inner = within(report, doing, len(stages) + index, steps)
        engines[stage.spec.name] = compile_stage(directory, stage.spec, target, family=family, on_progress=inner, native=native)
    engines |= compile_sampler(directory, target, family)
    report("hashing", steps - 1, steps)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        foveal_version=version(),
        model=source.info,
        dialect=source.dialect.name,
        precision="fp32",
        tokenizer=kind,
        stages=tuple(entries),
        engines={target: engines},
        files=list_files(directory),
    )
    write_manifest(directory, manifest)
    report("done", steps, steps)


def _check_program(stages: Sequence[StageSpec]) -> None:
    """Whether stages can run together: raises ConfigError for borrowed caches that they can't, ExportError for all else."""
    _check_borrows(stages)
    if problem := problem_of(stages):
        raise ExportError(f"{problem}; see docs/your-own-model.md")


def _check_borrows(stages: Sequence[StageSpec]) -> None:
    """Kernels keep the caches of their layers as they like (padded, in fp16 or int8), so nobody else may read those."""
    by_name = {stage.name: stage for stage in stages}
    for stage in stages:
        for borrowed in stage.borrows:
            lender = by_name.get(borrowed.stage)
            if lender is None or borrowed.cache not in lender.caches:
                raise ConfigError(
                    f'stage "{stage.name}" borrows {borrowed.cache.name} of "{borrowed.stage}", which has no such cache; '
                    f"expected one of {', '.join(f'{s.name}: {c.name}' for s in stages for c in s.caches) or 'none'}"
                )
            if is_of_kernel(lender, borrowed.cache):
                raise ConfigError(
                    f'stage "{stage.name}" borrows {borrowed.cache.name} of "{lender.name}", which are keys or values of a '
                    "fused kernel; let the lender write a cache of its own for it, with state.write"
                )


def _check_tokenizer(tokenizer: str | Path | None, vocab_size: int) -> None:
    first = first_byte_id(tokenizer)
    if tokenizer is None or first == 0:
        return
    if first is None:
        check_tokenizer(Path(tokenizer), vocab_size)
    elif first + 256 > vocab_size:
        raise ConfigError(
            f'ids of "{tokenizer}" go up to {first + 255}, the model has only {vocab_size} tokens; give a smaller first id'
        )


def _place_tokenizer(tokenizer: str | Path | None, directory: Path) -> str | None:
    if tokenizer is None or first_byte_id(tokenizer) is not None:
        return None if tokenizer is None else str(tokenizer)
    shutil.copyfile(tokenizer, directory / "tokenizer.json")
    copy_chat_files(Path(tokenizer).parent, directory)
    return "tokenizer.json"


def _model_info(
    model: Architecture, stages: Sequence[Stage], source_format: str, notes: Sequence[str], source: Source | None
) -> ModelInfo:
    described: Description = asked(model, "describe")
    for rule in described.end_rules:
        if max(rule.ids, default=0) >= described.vocab_size:
            raise ExportError(f"end rule {rule.name} has ids {list(rule.ids)}, expected ids below {described.vocab_size}")
    return ModelInfo(
        architecture=described.architecture,
        source_format=source_format,
        notes=tuple(notes),
        source=source,
        hierarchy=described.hierarchy,
        vocab_size=described.vocab_size,
        dim=described.dim,
        max_positions=described.max_positions,
        context=described.context,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layer_equivalents=Hierarchy.parse(described.hierarchy).layer_equivalents,
        end_rules=described.end_rules,
    )
