"""What the tests of TensorRT's build path share: models in every precision, and stages that were built and looked at."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from family_engines import check_reliance
from precisions import HIERARCHIES, Precise, PrecisionZoo, bytes_model, stored
from store import Store

from foveal.bundle import Bundle, StageEntry, open_bundle
from foveal.calibration.calibrate import calibrate
from foveal.calibration.settings import CalibrationSettings
from foveal.contract import resident_contract_of
from foveal.export import convert
from foveal.export.graphs.gpu import LoweredStage, lower
from foveal.export.tensorrt.build import Built, build_engine
from foveal.export.tensorrt.compile import products_in
from foveal.export.tensorrt.family import Family, family_of
from foveal.export.tensorrt.layers import ExecutedProduct, Kernel, executed_products
from foveal.export.tensorrt.options import EngineOptions
from foveal.export.tensorrt.profiles import DECODE, PREFILL
from foveal.models.readers.loading import load_model
from foveal.precision import ProductPrecision

NARROW = {"fp32": set(), "fp16": {"Half"}, "int8": {"Int8"}, "w8": {"Int8"}, "w4": {"Int4"}}
"""Types that kernels read in each precision, beside fp32."""
CHECKPOINTS = Path(__file__).parent.parent / "models" / "checkpoints"


class PreciseModels:
    """The small models that all tests of precisions share, one more, and the shipped checkpoint."""

    def __init__(self, small: PrecisionZoo, store: Store) -> None:
        self._small, self._store, self._found = small, store, {}  # type: PrecisionZoo, Store, dict[str, Precise]

    def __getitem__(self, name: str) -> Precise:
        if name in HIERARCHIES:
            return self._small[name]
        if name not in self._found:
            self._found[name] = self._shipped() if name == "shipped" else self._attention()
        return self._found[name]

    def _attention(self) -> Precise:
        """Resampled by attention alone."""
        model = bytes_model("1@1 1@3 1@1", shortening="attention", upsampling="attention")
        return stored(self._store, "precise/attention", model)

    def _shipped(self) -> Precise:
        """Averaged and repeated, with real weights and a text of real ranges."""
        text, settings = CHECKPOINTS / "text" / "calibration.txt", CalibrationSettings(max_tokens=3000)

        def make(directory: Path) -> None:
            calibrate(convert(CHECKPOINTS / "hourglass", directory / "full"), [text], settings, threads=1)

        full = open_bundle(self._store.once("precise/shipped", make) / "full")
        return Precise(load_model(CHECKPOINTS / "hourglass").model, full, calibrate(full, [text], settings, threads=1), text)


class Looked(NamedTuple):
    """A stage that was lowered and built, and what its products were written in."""

    entry: StageEntry
    lowered: LoweredStage
    built: Built
    products: Sequence[ProductPrecision]

    def executed(self, profile: int) -> tuple[ExecutedProduct, ...]:
        """How the kernels of a profile run the products."""
        return executed_products(self.built.layers.of_profile(profile), self.products)


def rtx_family(bundle: Bundle, **options: object) -> Family:
    """What TensorRT-RTX engines of a bundle have in common."""
    specs = [entry.spec for entry in bundle.manifest.stages]
    return family_of(bundle.manifest.model, specs, "tensorrt-rtx", EngineOptions(**options))  # type: ignore[arg-type]


def looked_at(bundle: Bundle, dialect: str = "modern") -> list[Looked]:
    """Every stage of a bundle, built once."""
    return [look_at(bundle, index, dialect) for index in range(len(bundle.manifest.stages))]


def look_at(bundle: Bundle, index: int, dialect: str = "modern") -> Looked:
    """One of them."""
    return _look_at(bundle.path, index, dialect)


@functools.cache
def _look_at(path: Path, index: int, dialect: str) -> Looked:
    bundle = open_bundle(path)
    entry, family = bundle.manifest.stages[index], rtx_family(bundle, dialect=dialect)
    lowered = lower(bundle.file(entry.graph), entry.spec, family)
    products = bundle.sidecar("cpu", entry.spec.name).products or products_in(bundle.file(entry.graph))
    return Looked(entry, lowered, build_engine(lowered, family), products)


def types_read(kernels: Sequence[Kernel]) -> set[str]:
    """Of activations and weights."""
    types = {tensor.type for kernel in kernels for tensor in (*kernel.inputs, *kernel.constants)}
    return types & {"Float", "Half", "Int8", "Int4"}


def assert_sound(stage: Looked) -> None:
    """Nothing to complain of, every input of the resident contract used, and every product as it was written."""
    check_reliance(stage.lowered.model)
    built, spec = stage.built, stage.entry.spec
    assert built.complaints == ()
    assert built.unreadable == ""
    assert set(built.inputs) == {tensor.name for tensor in resident_contract_of(spec).inputs}
    assert len(stage.products) >= 4 * spec.layers
    for profile in (DECODE, PREFILL):
        ran = {product.product: it.precision for product, it in zip(stage.products, stage.executed(profile), strict=True)}
        assert ran == {product.product: product.obtained for product in stage.products}
    assert [product for product in stage.products if product.obtained != product.asked and not product.reason] == []
