"""fp32 bundles become bundles of another precision, whole or not at all, and say what every product became."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from precisions import CACHE, HIERARCHIES, LOSSY, PrecisionZoo, cpu_engines, logits, needs_int8_caches

from foveal import BuildError, BundleError, CalibrationError, ConfigError, load, open_bundle
from foveal.bundle import write_manifest
from foveal.export import build, building, convert, convert_model
from foveal.models.checkpoint import save_checkpoint
from foveal.precision import CALIBRATED, Plan, write_plan

QKV = "1/stack/layers/0/attention/qkv"


def files(directory: Path) -> dict[str, bytes]:
    """Everything under a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", HIERARCHIES)
@pytest.mark.parametrize("precision", LOSSY)
def test_every_product_is_accounted_for(precision: str, name: str, precise: PrecisionZoo) -> None:
    """Asked, obtained and kernel of each, in the sidecar beside its engine; where the two differ, the reason."""
    bundle = precise[name].build(Plan(default=precision, cache=CACHE))
    assert bundle.manifest.precision == precision
    listed = []
    for entry in bundle.manifest.stages:
        sidecar = bundle.sidecar("cpu", entry.spec.name)
        listed += sidecar.products
        assert sidecar.precision_asked == (precision if sidecar.products else "fp32")
        obtained = {product.obtained for product in sidecar.products} or {"fp32"}
        assert sidecar.precision_obtained == (obtained.pop() if len(obtained) == 1 else "mixed")
    assert {product.product for product in listed} == set(precise[name].calibration.products)
    for product in listed:
        assert product.kernel
        assert (product.obtained == product.asked == precision) == (product.reason == "")


@pytest.mark.parametrize("precision", LOSSY)
def test_a_built_bundle_is_a_bundle(precision: str, precise: PrecisionZoo) -> None:
    """It is read, checked and run as any; model, stages and tokenizer are those of the bundle it came from."""
    full, bundle = precise["nested"].full, precise["nested"].build(Plan(default=precision, cache=CACHE))
    opened = open_bundle(bundle.path)
    assert opened.manifest.model == full.manifest.model
    assert opened.manifest.tokenizer == "bytes"
    assert opened.manifest.plan == Plan(default=precision, cache=CACHE)
    for entry, source in zip(opened.manifest.stages, full.manifest.stages, strict=True):
        assert msgspec.structs.replace(entry.spec, cache_dtype="float32") == source.spec
        assert entry.weight_bytes <= source.weight_bytes
        assert entry.table_bytes == source.table_bytes
    text = "".join(load(opened, threads=1).generate("the sea", max_new_tokens=8, seed=1))
    assert isinstance(text, str)


@needs_int8_caches
def test_int8_caches_are_an_engine_s_own(precise: PrecisionZoo) -> None:
    """A quarter of the bytes per row; the portable graph's caches stay fp32. Asked for fp32, or without text, they are fp32."""
    specimen = precise["vanilla"]
    small, large = specimen.build(Plan(default="w8")), specimen.build(Plan(default="w8", cache="fp32"))
    (entry,) = small.manifest.stages
    assert entry.spec.cache_dtype == "float32"
    assert small.sidecar("cpu", "1").cache_dtype == "int8"
    assert len(small.sidecar("cpu", "1").cache_scales) == 2
    for wide in (large, specimen.build(Plan(default="w8"), calibrated=False)):
        assert wide.sidecar("cpu", "1").cache_dtype == "float32"
        assert wide.cache_bytes_per_row("cpu", entry.spec) == 4 * small.cache_bytes_per_row("cpu", entry.spec)


@pytest.mark.parametrize("precision", ["w8", "w4"])
def test_weights_alone_need_no_text(precision: str, precise: PrecisionZoo) -> None:
    """Nothing depends on activations then."""
    bundle = precise["vanilla"].build(Plan(default=precision), calibrated=False)
    assert {product.obtained for product in bundle.sidecar("cpu", "1").products} == {precision}


@pytest.mark.parametrize("precision", CALIBRATED)
@pytest.mark.parametrize("where", ["default", "stages", "products"])
def test_activations_need_text(where: str, precision: str, precise: PrecisionZoo, tmp_path: Path) -> None:
    """The remedy is spelt out for both users, before anything is done."""
    plan = {
        "default": Plan(default=precision),
        "stages": Plan(stages={"1": precision}),
        "products": Plan(products={QKV: precision}),
    }[where]
    with pytest.raises(ConfigError) as caught:
        build(precise["vanilla"].full, tmp_path / "b", plan)
    assert str(caught.value) == (
        f"{precision if where == 'default' else 'the plan'} needs text to calibrate on, got none; "
        "give files that are like what the model will read: calibration=[...], or --calibration FILE"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(stages={"2": "w8"}), 'the plan names the stage "2", expected one of 1'),
        (
            Plan(products={"1/head": "w8"}),
            'the plan names the product "1/head", which the model has not; it has for instance "1/exit/logits"',
        ),
    ],
)
def test_a_plan_for_another_model(plan: Plan, reason: str, precise: PrecisionZoo, tmp_path: Path) -> None:
    """What it names and the model has not is refused, and nothing is written."""
    with pytest.raises(ConfigError, match=f"^{re.escape(reason)}$"):
        build(precise["vanilla"].full, tmp_path / "b", plan)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_mean_nothing(precise: PrecisionZoo, tmp_path: Path) -> None:
    """The ones there are get listed."""
    full = precise["vanilla"].full
    (tmp_path / "no_plan.json").write_text('{"default": "int8", "stage": {}}')
    for call, reason in (
        (lambda: build(full, tmp_path / "b", "int3"), 'unknown precision "int3"; expected one of fp32, fp16, int8, w8, w4'),
        (lambda: Plan(stages={"1": "bf16"}), 'unknown precision "bf16"; expected one of'),
        (lambda: Plan(products={QKV: "int4"}), 'unknown precision "int4"; expected one of'),
        (lambda: Plan(cache="fp8"), 'unknown cache "fp8"; expected one of auto, fp32'),
        (lambda: build(full, tmp_path / "b", "w8", "tpu"), 'unknown target "tpu"; expected one of cpu'),
        (lambda: build(full, tmp_path / "b", tmp_path / "none.json"), "no plan at .*: No such file .*; write one with `foveal"),
        (lambda: build(full, tmp_path / "b", tmp_path / "no_plan.json"), "is not a precision plan: .*unknown field `stage`"),
    ):
        with pytest.raises(ConfigError, match=reason):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["no_plan.json"]


def test_a_plan_from_its_file(precise: PrecisionZoo, tmp_path: Path) -> None:
    """Read as it was written; the bundle's precision is mixed, and each product its own."""
    plan = Plan(default="w8", products={QKV: "fp32"}, head=False, cache="fp32")
    write_plan(tmp_path / "plan.json", plan)
    bundle = build(precise["vanilla"].full, tmp_path / "b", tmp_path / "plan.json")
    assert (bundle.manifest.plan, bundle.manifest.precision) == (plan, "mixed")
    found = {product.product: product.obtained for product in bundle.sidecar("cpu", "1").products}
    assert (found.pop(QKV), found.pop("1/exit/logits")) == ("fp32", "fp32")
    assert set(found.values()) == {"w8"}


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (Plan(default="w8", stages={"6": "fp32"}), "mixed"),
        (Plan(stages={"6": "w8"}), "mixed"),
        (Plan(default="w8", stages={"6": "w8"}), "w8"),
        (Plan(default="w8", head=False), "w8"),
        (Plan(embedding=True), "fp32"),
    ],
)
def test_the_precision_of_a_bundle_is_one_word(plan: Plan, expected: str, precise: PrecisionZoo, tmp_path: Path) -> None:
    """Or "mixed"; only what is fp32 throughout may be taken for an fp32 bundle."""
    bundle = build(precise["nested"].full, tmp_path / "b", plan)
    assert bundle.manifest.precision == expected


def test_a_bundle_that_is_not_fp32_is_not_built_from(precise: PrecisionZoo, tmp_path: Path) -> None:
    """Rounding twice loses twice."""
    small = precise["vanilla"].build(Plan(default="int8", cache=CACHE))
    for given in (small, small.path):
        with pytest.raises(ConfigError, match="^the bundle is int8, expected fp32; build from the bundle it was made from$"):
            build(given, tmp_path / "b", "w4")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_bundle_is_not_overwritten(precise: PrecisionZoo, tmp_path: Path) -> None:
    """A slip of the hand costs nobody a directory."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is not a bundle; choose another path or remove it yourself"):
        build(precise["vanilla"].full, tmp_path, "w8")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_bundle_itself_is_not_overwritten(precise: PrecisionZoo, tmp_path: Path) -> None:
    """However its path is spelt: what was rounded away could not be had back."""
    path = Path(shutil.copytree(precise["vanilla"].full.path, tmp_path / "b"))
    before = files(path)
    for out in (path, tmp_path / "x" / ".." / "b", Path(os.path.relpath(path))):
        with pytest.raises(ConfigError, match="is the bundle to start from; choose another path for the one to write"):
            build(path, out, "w8")
    assert files(path) == before


FAILURES: dict[str, Callable[..., object]] = {
    "write_precision": lambda *_: (_ for _ in ()).throw(CalibrationError("no")),
    "compile_stage": lambda *_: (_ for _ in ()).throw(BuildError("no")),
}


@pytest.mark.parametrize("step", FAILURES)
def test_a_failed_build_leaves_the_old_bundle(
    step: str, precise: PrecisionZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no half of a new one; where there was nothing, there is nothing."""
    full, old = precise["vanilla"].full, tmp_path / "old"
    build(full, old, "w8")
    before = files(old)
    monkeypatch.setattr(building, step, FAILURES[step])
    for out in (old, tmp_path / "new"):
        with pytest.raises((CalibrationError, BuildError), match="no"):
            build(full, out, "w4")
    assert files(old) == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_product_on_another_kernel_fails_the_build(
    precise: PrecisionZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left at `out`, and the products are named."""
    monkeypatch.setattr("foveal.export.cpu.products.KERNELS", {"w8": ("SomethingBetter",)})
    with pytest.raises(BuildError, match=rf"does not run these products as asked: {QKV} \(asked w8, kernel \w+\), .*report it"):
        build(precise["vanilla"].full, tmp_path / "b", "w8")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_at_out_is_replaced(precise: PrecisionZoo, tmp_path: Path) -> None:
    """As a whole, and the source is as it was."""
    full = precise["vanilla"].full
    before = files(full.path)
    build(full, tmp_path / "b", "w8")
    assert build(full, tmp_path / "b", "w4").manifest.precision == "w4"
    assert files(full.path) == before


def test_steps_are_reported(precise: PrecisionZoo, tmp_path: Path) -> None:
    """Every stage is written and compiled; the count goes up to its end."""
    seen: list[tuple[str, int, int]] = []
    build(precise["nested"].full, tmp_path / "b", "w8", on_progress=lambda *step: seen.append(step))
    assert [doing for doing, _, _ in seen[:2]] == ["writing stage 1.pre", "compiling stage 1.pre for cpu"]
    assert seen[-2:] == [("hashing", 10, 11), ("done", 11, 11)]
    assert [done for _, done, _ in seen] == list(range(12))


def test_converting_to_a_precision_is_converting_and_building(precise: PrecisionZoo, tmp_path: Path) -> None:
    """From the checkpoint in one call: the same products and the same logits; only the small bundle is written."""
    specimen, plan = precise["vanilla"], Plan(default="int8", cache=CACHE)
    save_checkpoint(specimen.model, tmp_path / "checkpoint", torch.float32)
    direct = convert(tmp_path / "checkpoint", tmp_path / "b", precision=plan, calibration=[specimen.text], tokenizer="bytes")
    two_steps = specimen.build(plan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "checkpoint"]
    assert direct.manifest.precision == "int8"
    assert direct.manifest.plan == two_steps.manifest.plan
    assert direct.manifest.stages == two_steps.manifest.stages
    assert direct.sidecar("cpu", "1").products == two_steps.sidecar("cpu", "1").products
    assert direct.sidecar("cpu", "1").cache_scales == two_steps.sidecar("cpu", "1").cache_scales
    ids = specimen.ids(1, 50)
    np.testing.assert_array_equal(logits(direct, cpu_engines(direct), ids), logits(two_steps, cpu_engines(two_steps), ids))


def test_a_conversion_checks_before_it_works(precise: PrecisionZoo, tmp_path: Path) -> None:
    """An export takes long; what is wrong is said at once."""
    model, seen = precise["vanilla"].model, []
    (tmp_path / "thesis.tex").write_text("years of work")
    for settings, error, reason in (
        ({"precision": "int8"}, ConfigError, "int8 needs text to calibrate on, got none"),
        ({"precision": "fp16"}, ConfigError, "fp16 needs text to calibrate on, got none"),
        ({"precision": "int3"}, ConfigError, 'unknown precision "int3"'),
        ({"precision": "w8", "out": tmp_path}, BundleError, "exists and is not a bundle"),
    ):
        with pytest.raises(error, match=reason):
            convert_model(model, **{"out": tmp_path / "b", **settings}, on_progress=lambda *step: seen.append(step))
    assert seen == []
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_text_of_a_bundle_without_tokenizer(precise: PrecisionZoo, tmp_path: Path) -> None:
    """There is nothing to read it with."""
    specimen, path = precise["vanilla"], tmp_path / "ids_only"
    shutil.copytree(specimen.full.path, path)
    write_manifest(path, msgspec.structs.replace(specimen.full.manifest, tokenizer=None))
    with pytest.raises(ConfigError, match="ids_only has no tokenizer, so it can't read text; convert the checkpoint with one"):
        build(path, tmp_path / "b", "int8", calibration=[specimen.text])
    assert [item.name for item in tmp_path.iterdir()] == ["ids_only"]
