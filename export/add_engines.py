"""A bundle gets engines for one more target, in place, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..bundle import MANIFEST, OWN, Bundle, list_files, new_bundle, open_bundle, write_manifest
from ..errors import BundleError
from ..precision import CacheScale, ProductPrecision
from ..progress import Progress, within
from .compile import compile_sampler, compile_stage, version
from .graphs.gpu import DeviceFamily
from .tensorrt.compile import UNKNOWN
from .tensorrt.turing import check_products, check_turing


def add_engines(bundle: Bundle, target: str, family: DeviceFamily | None, report: Progress, native: bool = True) -> Bundle:
    """Add engines for `target`, in the precision that the stage graphs are in; those it has for that target are replaced.

    They are built in a copy, which takes the bundle's place at the end. Engines that another command added meanwhile stay.

    Raises:
        ConfigError: GPUs to build for that have no matrix products of its precision.
        BuildError: as `compile_stage`; the bundle is as it was.
        BundleError: another command made another bundle of it meanwhile.
        StorageError: the bundle can't be written, or the disk is full.
    """
    check_turing(bundle.manifest.plan, family)
    for entry in bundle.manifest.stages:
        check_products(entry.spec.name, written(bundle, entry.spec.name)[0], family)
    with new_bundle(bundle.path, report) as directory:
        current = _as_it_is_now(bundle)
        stages, steps = current.manifest.stages, len(current.manifest.stages) + 1
        _copy_files(current.path, directory, target)
        engines = {}
        for index, entry in enumerate(stages):
            doing, name = f"compiling stage {entry.spec.name} for {target}", entry.spec.name
            report(doing, index, steps)
            products, scales = written(current, name)
            inner = within(report, doing, index, steps)
            engines[name] = compile_stage(directory, entry.spec, target, products, scales, family, inner, native)
        engines |= compile_sampler(directory, target, family)
        report("hashing", steps - 1, steps)
        manifest = msgspec.structs.replace(
            current.manifest,
            foveal_version=version(),
            engines={**current.manifest.engines, target: engines},
            files=list_files(directory),
        )
        write_manifest(directory, manifest)
    report("done", steps, steps)
    return open_bundle(bundle.path)


def _as_it_is_now(bundle: Bundle) -> Bundle:
    """Read again, now that nobody else writes."""
    current = open_bundle(bundle.path)
    if (current.manifest.model, current.manifest.stages) != (bundle.manifest.model, bundle.manifest.stages):
        raise BundleError(f"another command made another bundle of {bundle.path} meanwhile; look at it, and build again")
    return current


def _copy_files(bundle: Path, directory: Path, target: str) -> None:
    """Contents only: links and modes stay behind, and what is made anew.

    No hard links: onnx-ir refuses to read weights that have several, and a killed build would leave them so.
    """
    made_anew = bundle / "engines" / target
    for name in OWN:
        for source in (bundle / name, *sorted((bundle / name).rglob("*"))):
            if source.is_file() and name != MANIFEST and made_anew not in source.parents:
                copy = directory / source.relative_to(bundle)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)


def written(bundle: Bundle, stage: str) -> tuple[Sequence[ProductPrecision], Sequence[CacheScale]]:
    """What a stage's products were written in, as the sidecar of another target says, and the scales of the CPU's caches."""
    sidecars = {target: bundle.sidecar(target, stage) for target in bundle.manifest.engines}
    scales = sidecars["cpu"].cache_scales if "cpu" in sidecars else ()
    known = [sidecar.products for sidecar in sidecars.values() if sidecar.precision_obtained != UNKNOWN]
    products = known[0] if known else ()
    return [msgspec.structs.replace(product, kernel="") for product in products], scales
