"""A bundle gets engines for one more target, in place, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..bundle import MANIFEST, Bundle, list_files, open_bundle, write_manifest
from ..files import new_directory
from ..precision import CacheScale, ProductPrecision
from ..progress import Progress, within
from .compile import compile_sampler, compile_stage, version
from .graphs.gpu import DeviceFamily
from .tensorrt.compile import UNKNOWN
from .tensorrt.turing import check_products, check_turing


def add_engines(bundle: Bundle, target: str, family: DeviceFamily | None, report: Progress) -> Bundle:
    """Add engines for `target`, in the precision that the stage graphs are in; those it has for that target are replaced.

    They are built in a copy beside the bundle, which takes its place at the end.

    Raises:
        ConfigError: GPUs to build for that have no matrix products of its precision.
        BuildError: as `compile_stage`; the bundle is as it was.
    """
    stages, steps = bundle.manifest.stages, len(bundle.manifest.stages) + 1
    check_turing(bundle.manifest.plan, family)
    for entry in stages:
        check_products(entry.spec.name, written(bundle, entry.spec.name)[0], family)
    with new_directory(bundle.path) as directory:
        _copy_files(bundle.path, directory, target)
        engines = {}
        for index, entry in enumerate(stages):
            doing, name = f"compiling stage {entry.spec.name} for {target}", entry.spec.name
            report(doing, index, steps)
            products, scales = written(bundle, name)
            inner = within(report, doing, index, steps)
            engines[name] = compile_stage(directory, entry.spec, target, products, scales, family, inner)
        engines |= compile_sampler(directory, target, family)
        report("hashing", steps - 1, steps)
        manifest = msgspec.structs.replace(
            bundle.manifest,
            foveal_version=version(),
            engines={**bundle.manifest.engines, target: engines},
            files=list_files(directory),
        )
        write_manifest(directory, manifest)
    report("done", steps, steps)
    return open_bundle(bundle.path)


def _copy_files(bundle: Path, directory: Path, target: str) -> None:
    """Copies, not hard links: onnx-ir refuses to read weights that have several, and a killed build would leave them so."""

    def what_is_made_anew(folder: str, names: list[str]) -> list[str]:
        where = Path(folder).relative_to(bundle)
        return [name for name in names if where / name in (Path(MANIFEST), Path("engines") / target)]

    shutil.copytree(bundle, directory, ignore=what_is_made_anew, symlinks=True, dirs_exist_ok=True)


def written(bundle: Bundle, stage: str) -> tuple[Sequence[ProductPrecision], Sequence[CacheScale]]:
    """What a stage's products were written in, as the sidecar of another target says, and the scales of the CPU's caches."""
    sidecars = {target: bundle.sidecar(target, stage) for target in bundle.manifest.engines}
    scales = sidecars["cpu"].cache_scales if "cpu" in sidecars else ()
    known = [sidecar.products for sidecar in sidecars.values() if sidecar.precision_obtained != UNKNOWN]
    products = known[0] if known else ()
    return [msgspec.structs.replace(product, kernel="") for product in products], scales
