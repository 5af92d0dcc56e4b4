"""Prefixes of a stage as engines: what `compare --cuts` would run on a GPU."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from precisions import PrecisionZoo

from foveal.bundle import Bundle, sidecar_name
from foveal.export import EngineOptions, build
from foveal.export.comparison.compare_layers import cut_system
from foveal.export.comparison.layer_prefixes import cuts_of
from foveal.export.comparison.systems import System
from foveal.export.tensorrt.layers import read_layers
from foveal.precision import Plan

TARGET = "tensorrt-rtx"


@pytest.fixture(scope="module")
def specimen(precise: PrecisionZoo, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An int8 bundle with engines that hold 64 tokens."""
    full = precise["resampled"]
    plan, path = Plan(default="int8", cache="fp32"), tmp_path_factory.mktemp("rtx") / "b"
    options = EngineOptions(capacity=64, max_prefill=16)
    return build(full.full, path, plan, TARGET, calibration=full.calibration, options=options)


def test_prefixes_are_built_as_the_stage_was(specimen: Bundle, tmp_path: Path) -> None:
    """With its limits and its precisions; kernels are added from cut to cut, and the whole stage is the stage's own engine."""
    entry = next(entry for entry in specimen.manifest.stages if entry.spec.name == "2")
    kernels, products = [], []
    for index, cut in enumerate((*cuts_of(entry.spec, specimen.file(entry.graph)), None)):
        built = cut_system(System(specimen, TARGET), "2", cut, tmp_path / str(index)).bundle
        sidecar = built.sidecar(TARGET, "2")
        assert sidecar.limits == specimen.sidecar(TARGET, "2").limits
        assert sidecar_name(built.manifest.engines[TARGET]["2"]) in built.manifest.files
        kernels.append(len(read_layers(built.engine(TARGET, "2")).kernels))
        products.append([(product.product, product.obtained) for product in sidecar.products])
    assert kernels == sorted(kernels)
    assert len(kernels) == 4
    assert all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(products))
    assert {obtained for _, obtained in products[-1]} == {"int8"}
    assert products[-1] == [(p.product, p.obtained) for p in specimen.sidecar(TARGET, "2").products]
