"""A portable stage graph becomes a target's engine, with the sidecar that says what it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from ..bundle import MANIFEST, EngineSidecar
from ..contract import StageSpec
from ..errors import BuildError, BundleError
from ..files import sha256_of, write_atomically
from ..precision import CacheScale, ProductPrecision
from ..runtime.engines.onnxruntime import INT8_CACHES_SINCE, has_int8_caches, import_onnxruntime
from .cpu import lower
from .cpu_attention import padded_head_dim
from .cpu_products import read_back


def compile_stage(
    directory: Path,
    spec: StageSpec,
    target: str,
    products: Sequence[ProductPrecision] = (),
    cache_scales: Sequence[CacheScale] = (),
) -> str:
    """Compile `stages/<name>.onnx` in `directory`; returns the engine's path in the bundle.

    Args:
        directory: the bundle being written.
        spec: the stage.
        target: `"cpu"`.
        products: what each of the stage's products was written in.
        cache_scales: by layer, of int8 caches; none: fp32 caches.

    Raises:
        BuildError: the graph can't be lowered, a product did not get the precision it was written in, or onnxruntime is too
            old for int8 caches.
    """
    if cache_scales and not has_int8_caches():
        raise BuildError(
            f"int8 caches need onnxruntime {INT8_CACHES_SINCE} or later, got {import_onnxruntime().__version__}; "
            "upgrade it, or build with --cache fp32"
        )
    source, engine = directory / "stages" / f"{spec.name}.onnx", f"engines/{target}/{spec.name}.onnx"
    lower(source, directory / engine, spec, cache_scales)
    found = read_back(directory / engine, products) if products else ()
    sidecar = EngineSidecar(
        target=target,
        stage=spec.name,
        builder=f"foveal {version()}",
        precision_asked=_summed_up(product.asked for product in found),
        precision_obtained=_summed_up(product.obtained for product in found),
        graph_sha256=sha256_of(source),
        cache_head_dim=padded_head_dim(spec.head_dim),
        cache_dtype="int8" if cache_scales else "float32",
        cache_scales=tuple(cache_scales),
        batch_one_chunks=True,
        products=tuple(found),
    )
    data = msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n"
    write_atomically((directory / engine).with_suffix(".json"), data)
    return engine


def check_out(out: Path) -> None:
    """Raise BundleError if writing a bundle at `out` would remove something that is not one."""
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} exists and is not a bundle; choose another path or remove it yourself")


def version() -> str:
    """foveal's own version."""
    from .. import __version__

    return __version__


def _summed_up(precisions: Iterable[str]) -> str:
    used = set(precisions)
    return used.pop() if len(used) == 1 else "mixed" if used else "fp32"
