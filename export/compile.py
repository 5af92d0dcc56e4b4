"""A portable stage graph becomes a target's engine, with the sidecar that says what it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnx
import onnx_ir as ir
from onnx.external_data_helper import load_external_data_for_model

from ..bundle import SAMPLER, chunks_name, data_name
from ..contract import StageSpec, needs_clocks
from ..errors import BuildError
from ..files import sha256_of, write_atomically
from ..precision import CacheScale, ProductPrecision
from ..progress import Progress, silent
from ..runtime.engines.onnxruntime_library import INT8_CACHES_SINCE, has_int8_caches, import_onnxruntime
from ..sidecar import ChunkEngine, EngineSidecar
from .cpu.attention import cache_widths, uses_kernel
from .cpu.lower import lower as lower_for_cpu
from .cpu.native.write import write_program
from .cpu.products import CHUNK_KERNELS, KERNELS, LEAST_ROWS, read_back
from .graphs.gpu import DeviceFamily, lower, lower_sampler
from .graphs.saving import save_graph
from .tensorrt.compile import UNKNOWN, compile_engine, compile_lowered
from .tensorrt.family import Family

_NO_PROGRAMS = "built with native=False (--no-native)"


def compile_stage(
    directory: Path,
    spec: StageSpec,
    target: str,
    products: Sequence[ProductPrecision] = (),
    cache_scales: Sequence[CacheScale] = (),
    family: DeviceFamily | None = None,
    on_progress: Progress = silent,
    native: bool = True,
) -> str:
    """Compile `stages/<name>.onnx` in `directory`; returns the engine's path in the bundle.

    Args:
        directory: the bundle being written.
        spec: the stage.
        target: `"cpu"`, or that of `family`.
        products: what each of the stage's products was written in.
        cache_scales: by layer, of int8 caches; none: fp32 caches. `"cpu"` only.
        family: what engines of a model on a device have in common.
        on_progress: called while an engine is built that takes long.
        native: whether `cpu` engines get programs of native steps, where all of a stage's graph is such steps.

    Raises:
        BuildError: the graph can't be lowered, a product did not get the precision it was written in, or onnxruntime is too
            old for int8 caches.
    """
    source = directory / "stages" / f"{spec.name}.onnx"
    engine = _place(target, spec.name, family)
    if family is None:
        sidecar = _compile_for_cpu(source, directory / engine, spec, products, cache_scales, native)
    elif isinstance(family, Family):
        sidecar = _compile_with_tensorrt(source, directory / engine, spec, products, family, on_progress)
    else:
        sidecar = _compile_for_cuda(source, directory / engine, spec, products, family)
    _write_sidecar(directory / engine, sidecar)
    return engine


def compile_sampler(directory: Path, target: str, family: DeviceFamily | None) -> dict[str, str]:
    """Compile what draws tokens on a device; its name and its path in the bundle. None for `cpu`, where the host draws.

    None either where the data decides what fires: the host looks at every step there, and draws.

    Raises:
        BuildError: the library refuses it.
    """
    if family is None or needs_clocks(family.stages):
        return {}
    engine = _place(target, SAMPLER, family)
    lowered = lower_sampler(directory / engine, family)
    shared = {"dialect": family.dialect.name, "limits": family.limits, "cache_widths": ()}
    if isinstance(family, Family):
        compiled = compile_lowered(lowered, directory / engine, family)
        shared |= {"engine_sha256": compiled.engine_sha256, "build": compiled.build}
    else:
        save_graph(ir.from_proto(onnx.load_model_from_string(lowered.model)), directory / engine)
        shared |= _hashes_of_graph(directory / engine)
    _write_sidecar(directory / engine, _sidecar(None, lowered.spec, target, (), **shared))
    return {SAMPLER: engine}


def _place(target: str, name: str, family: DeviceFamily | None) -> str:
    return f"engines/{target}/{name}.{'engine' if isinstance(family, Family) else 'onnx'}"


def _write_sidecar(engine: Path, sidecar: EngineSidecar) -> None:
    write_atomically(engine.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n")


def _compile_for_cpu(
    source: Path,
    engine: Path,
    spec: StageSpec,
    products: Sequence[ProductPrecision],
    cache_scales: Sequence[CacheScale],
    native: bool,
) -> EngineSidecar:
    cache_scales = cache_scales if uses_kernel(spec) else ()  # only the kernel reads int8
    if cache_scales and not has_int8_caches():
        raise BuildError(
            f"int8 caches need onnxruntime {INT8_CACHES_SINCE} or later, got {import_onnxruntime().__version__}; "
            "upgrade it, or build with --cache fp32"
        )
    has_kernel = lower_for_cpu(source, engine, spec, cache_scales)
    widths, cache_dtype = cache_widths(spec), "int8" if cache_scales else "float32"
    return _sidecar(
        source,
        spec,
        "cpu",
        read_back(engine, products) if products else (),
        cache_widths=widths,
        cache_dtype=cache_dtype,
        native=write_program(engine, spec, widths, cache_dtype) if native else _NO_PROGRAMS,
        cache_scales=tuple(cache_scales),
        batch_one_chunks=has_kernel,
        chunks=_compile_chunks(source, engine, spec, products, cache_scales),
        **_hashes_of_graph(engine),
    )


def _compile_chunks(
    source: Path, engine: Path, spec: StageSpec, products: Sequence[ProductPrecision], cache_scales: Sequence[CacheScale]
) -> ChunkEngine | None:
    """The second engine, if many rows are multiplied by other kernels than a few."""
    if not any(CHUNK_KERNELS.get(product.obtained) != KERNELS.get(product.obtained) for product in products):
        return None
    chunks = Path(chunks_name(str(engine)))
    lower_for_cpu(source, chunks, spec, cache_scales, of_chunks=True)
    read_back(chunks, products, CHUNK_KERNELS)
    return ChunkEngine(least_rows=LEAST_ROWS, **_hashes_of_graph(chunks))


def _compile_with_tensorrt(
    source: Path, engine: Path, spec: StageSpec, products: Sequence[ProductPrecision], family: Family, on_progress: Progress
) -> EngineSidecar:
    compiled = compile_engine(source, engine, spec, family, products, on_progress)
    return _sidecar(
        source,
        spec,
        family.library.target,
        compiled.products,
        cache_widths=tuple(cache.width for cache in spec.caches),
        cache_dtype=spec.cache_dtype,
        engine_sha256=compiled.engine_sha256,
        dialect=family.dialect.name,
        limits=family.limits,
        own_positions=True,
        build=compiled.build,
    )


def _compile_for_cuda(
    source: Path, engine: Path, spec: StageSpec, products: Sequence[ProductPrecision], family: DeviceFamily
) -> EngineSidecar:
    """The graph that a GPU's execution provider compiles when it is loaded; what it makes of precisions shows only there."""
    lowered = lower(source, spec, family)
    model = onnx.load_model_from_string(lowered.model)
    load_external_data_for_model(model, str(source.parent))
    save_graph(ir.from_proto(model), engine)
    later = "decided by the execution provider that loads the graph"
    return _sidecar(
        source,
        spec,
        "cuda",
        [msgspec.structs.replace(product, obtained=UNKNOWN, kernel="", reason=later) for product in products],
        cache_widths=tuple(cache.width for cache in spec.caches),
        cache_dtype=spec.cache_dtype,
        dialect=family.dialect.name,
        limits=family.limits,
        own_positions=True,
        **_hashes_of_graph(engine),
    )


def _sidecar(
    source: Path | None, spec: StageSpec, target: str, products: Sequence[ProductPrecision], **its_own: Any
) -> EngineSidecar:
    """What sidecars of all targets say, and what is this target's own."""
    return EngineSidecar(
        target=target,
        stage=spec.name,
        builder=f"foveal {version()}",
        precision_asked=_summed_up(product.asked for product in products),
        precision_obtained=_summed_up(product.obtained for product in products),
        graph_sha256="" if source is None else sha256_of(source),
        graph_data_sha256="" if source is None else _data_sha256(source),
        products=tuple(products),
        **its_own,
    )


def _hashes_of_graph(engine: Path) -> dict[str, str]:
    """What binds a sidecar to an engine that is a graph."""
    return {"engine_sha256": sha256_of(engine), "engine_data_sha256": _data_sha256(engine)}


def _data_sha256(graph: Path) -> str:
    data = graph.with_name(data_name(graph.name))
    return sha256_of(data) if data.is_file() else ""


def version() -> str:
    """foveal's own version."""
    from .. import __version__

    return __version__


def _summed_up(precisions: Iterable[str]) -> str:
    used = set(precisions)
    return used.pop() if len(used) == 1 else "mixed" if used else "fp32"
