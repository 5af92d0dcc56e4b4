"""One stage of a bundle becomes a TensorRT engine, or is taken from those that were built before."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ...calibration.graph_files import load_graph
from ...calibration.products import find_products
from ...contract import StageSpec
from ...errors import BuildError
from ...files import write_atomically
from ...precision import ProductPrecision
from ...progress import Progress, silent
from ...sidecar import BuildRecord
from ..graphs.gpu import LoweredStage, lower
from .build import Built, build_engine
from .cache import CacheEntry, cache_key, find, keep
from .family import Family
from .forecast import warn_if_short
from .inspection import inspect
from .layers import EngineLayers, ExecutedProduct, LayersUnreadable, executed_products, layers_path
from .profiles import DECODE, PREFILL
from .record import record_of
from .turing import builds_for_turing, check_products, fit_turing

_log = logging.getLogger("foveal.tensorrt")
UNKNOWN = "unknown"
"""The precision of products of which the library does not say how it runs them."""


class CompiledStage(NamedTuple):
    """An engine file that was written: its hash, who built it, and what became of every matrix product."""

    engine_sha256: str
    build: BuildRecord
    products: tuple[ProductPrecision, ...]


def compile_engine(
    graph: Path,
    engine: Path,
    spec: StageSpec,
    family: Family,
    products: Sequence[ProductPrecision] = (),
    on_progress: Progress = silent,
) -> CompiledStage:
    """Write a stage's engine, and beside it the list of its layers, `<stage>.layers.json`.

    Args:
        graph: the portable stage graph.
        engine: the file to write.
        spec: the stage.
        family: what its engine has in common with those of the other stages.
        products: what each of its products was written in; none: fp32.
        on_progress: called as the build goes on, as `build_engine` does.

    Raises:
        ConfigError: the GPUs to build for have no such products.
        ExportError: the graph can't be said in the library's dialect.
        BuildError: the library refuses the graph, runs a product in another precision than it was written in, or must not be
            asked (`error_on_miss`).
    """
    products, lowered = products or products_in(graph), lower(graph, spec, family)
    if builds_for_turing(family):
        check_products(spec.name, products, family)
        lowered = fit_turing(lowered)
    return compile_lowered(lowered, engine, family, products, on_progress)


def compile_lowered(
    lowered: LoweredStage,
    engine: Path,
    family: Family,
    products: Sequence[ProductPrecision] = (),
    on_progress: Progress = silent,
) -> CompiledStage:
    """As `compile_engine`, of a graph that is lowered already."""
    engine.parent.mkdir(parents=True, exist_ok=True)
    entry = _find_or_build(lowered, engine, family, on_progress)
    found = _read_back(entry, products, family)
    data = msgspec.json.format(msgspec.json.encode(entry.layers), indent=1) + b"\n"
    write_atomically(layers_path(engine), data)
    return CompiledStage(entry.engine_sha256, entry.build, found)


def _find_or_build(lowered: LoweredStage, engine: Path, family: Family, on_progress: Progress) -> CacheEntry:
    """Write the engine's file, from the cache if it is there."""
    key, name = cache_key(lowered, family), lowered.spec.name
    if (found := find(key)) is not None:
        _log.info("stage %s: its engine was built before (%s)", name, key[:12])
        cached, entry = found
        shutil.copyfile(cached, engine)
        return entry
    if family.options.error_on_miss:
        raise BuildError(
            f'the engine cache has no engine for stage "{name}" ({key[:12]}) as {family.library} would build it here; '
            "build once without --error-on-miss"
        )
    warn_if_short(lowered)
    built = build_engine(lowered, family, on_progress)
    _log.info("stage %s: built in %.1f s (%s)", name, built.seconds, key[:12])
    layers, unreadable = _layers_of(built, family)
    entry = CacheEntry(engine_sha256="", build=record_of(built, layers, family, key), layers=layers, unreadable=unreadable)
    engine.write_bytes(built.engine)
    return keep(key, built.engine, entry)


def _layers_of(built: Built, family: Family) -> tuple[EngineLayers, str]:
    """As the inspector lists them where a GPU can load the engine, else as the builder did."""
    try:
        kernels = inspect(built.engine, family.library)
    except LayersUnreadable as error:
        return built.layers, str(error) if not built.layers.kernels else ""
    if kernels is None:
        return built.layers, built.unreadable
    return EngineLayers(network=built.layers.network, kernels=kernels), ""


def products_in(graph: Path) -> list[ProductPrecision]:
    """The products of a graph that was only converted: all of them fp32."""
    return [
        ProductPrecision(
            product=found.name, rows=found.weight.shape[0], columns=found.weight.shape[1], asked="fp32", obtained="fp32"
        )
        for found in find_products(load_graph(graph))
    ]


def _read_back(entry: CacheEntry, products: Sequence[ProductPrecision], family: Family) -> tuple[ProductPrecision, ...]:
    """Name every product's kernel in a decode step and a prefill; hold its precision against the one it was written in."""
    try:
        if entry.unreadable:
            raise LayersUnreadable(entry.unreadable)
        decode, prefill = (executed_products(entry.layers.of_profile(profile), products) for profile in (DECODE, PREFILL))
    except LayersUnreadable as error:
        _log.warning("%s does not say in words known here how it runs the products: %s", family.library, error)
        return tuple(msgspec.structs.replace(product, obtained=UNKNOWN, kernel="", reason=str(error)) for product in products)
    wrong = [
        f"{product.product} (written {product.obtained}, run as {ran.precision} by {ran})"
        for by_profile in (decode, prefill)
        for product, ran in zip(products, by_profile, strict=True)
        if ran.precision != product.obtained
    ]
    if wrong:
        raise BuildError(f"{family.library} does not run these products as they were written: {', '.join(wrong)}; report it")
    return tuple(
        msgspec.structs.replace(product, kernel=_kernels(*ran)) for product, *ran in zip(products, decode, prefill, strict=True)
    )


def _kernels(decode: ExecutedProduct, prefill: ExecutedProduct) -> str:
    return str(decode) if str(decode) == str(prefill) else f"{decode} (prefill: {prefill})"
