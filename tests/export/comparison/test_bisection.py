"""`bisect` finds the product that can't be quantised, by name and in few steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from precisions import PrecisionZoo, bytes_model, needs_int8_caches, write_text

from foveal import Bundle, CalibrationError, ConfigError
from foveal.calibration.quality import NotFiniteError, Quality
from foveal.export import bisect, convert_model
from foveal.export.comparison import bisection
from foveal.export.comparison.bisection import products_of
from foveal.models.layers.attention import Attention
from foveal.precision import Plan

CHANNEL = 3
SETTINGS: dict[str, Any] = {"measure": "kl", "limit": 4, "threads": 1}


def with_loud_values(attention: Attention) -> None:
    """One channel of the values is 1000 times the others, and is read at a 1000th: int8 of `out`'s input knows nothing else."""
    loud = 2 * attention.heads * attention.head_dim + CHANNEL
    attention.qkv.weight[loud] *= 1000
    attention.out.weight[:, CHANNEL] /= 1000


def with_loud_keys(attention: Attention) -> None:
    """The same of the keys, which the queries make good: no product's input has it, but int8 caches do."""
    attention.qkv.weight[attention.heads * attention.head_dim + CHANNEL] *= 1000
    attention.qkv.weight[CHANNEL] /= 1000


def converted(spoil: Any, directory: Path) -> Bundle:
    """A model in which the attention of stage 2 was spoiled; in fp32 it computes what it did."""
    model = bytes_model("1@1 1@2 1@1", positions="learned")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        before = model(ids)
        spoil(model.root.inner.layers[0].attention)
        assert torch.allclose(model(ids), before, atol=1e-3)
    return convert_model(model, directory / "model", tokenizer="bytes")


def test_the_product_that_breaks_it(tmp_path: Path) -> None:
    """In dataflow order, by halves: of 3 stages in 2 steps, of 4 products in 2. Alone it is the worst of its stage."""
    bundle, text = converted(with_loud_values, tmp_path), write_text(tmp_path / "text.txt")
    found = bisect(bundle, "int8", 0.01, [text], calibration=[text], **SETTINGS)
    stages = products_of(bundle)
    assert (found.stage, found.product, found.caches) == ("2", "2/stack/layers/0/attention/out", False)
    steps = sum(math.ceil(math.log2(len(names))) for names in (stages, stages["2"]))
    assert len(found.trials) <= 2 + steps
    assert found.trials[0].tried == "everything"
    assert found.trials[0].products == sum(map(len, stages.values()))
    assert {trial.tried for trial in found.alone} == set(stages["2"])
    worst, second = found.alone[:2]
    assert worst.tried == found.product
    assert worst.loss > 0.01 > 10 * second.loss
    assert found.bundle == str(bundle.path)
    assert [path.name for path in tmp_path.iterdir()] == ["model", "text.txt"]


@needs_int8_caches
def test_int8_caches_that_break_it(tmp_path: Path) -> None:
    """They come with int8 products, but none of these is to blame."""
    bundle, text = converted(with_loud_keys, tmp_path), write_text(tmp_path / "text.txt")
    found = bisect(bundle, "int8", 0.002, [text], calibration=[text], **SETTINGS)
    assert (found.caches, found.stage, found.product, found.alone) == (True, None, None, ())
    assert [trial.loss > 0.002 for trial in found.trials] == [True, False]


def test_nothing_breaks_it(precise: PrecisionZoo) -> None:
    """One trial says so; precisions without activations need no calibration."""
    specimen = precise["resampled"]
    found = bisect(specimen.full, "w8", 0.1, [specimen.text], **SETTINGS)
    assert (found.stage, found.product, found.caches, len(found.trials), found.alone) == (None, None, False, 1, ())
    assert 0 < found.trials[0].loss < 0.1


def test_a_product_that_makes_logits_no_numbers(precise: PrecisionZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loses everything, and is found like any other; of the fp32 bundle itself that is an error."""
    specimen, guilty, measured = precise["vanilla"], "1/stack/layers/1/attention/out", bisection.evaluate

    def measure(bundle: Bundle, *given: Any, **settings: Any) -> Quality:
        if any(product.product == guilty and product.obtained == "w8" for product in bundle.sidecar("cpu", "1").products):
            raise NotFiniteError(str(bundle.path))
        return measured(bundle, *given, **settings)

    monkeypatch.setattr(bisection, "evaluate", measure)
    found = bisect(specimen.full, "w8", 0.1, [specimen.text], **SETTINGS)
    assert (found.product, found.alone[0].tried, found.alone[0].loss) == (guilty, guilty, math.inf)

    def refuse(*_: Any, reference: Bundle, **settings: Any) -> Quality:
        raise NotFiniteError(str(reference.path))

    monkeypatch.setattr(bisection, "evaluate", refuse)
    with pytest.raises(CalibrationError, match=f"^{specimen.full.path} gives logits that are infinite or NaN on this text"):
        bisect(specimen.full, "w8", 0.1, [specimen.text], **SETTINGS)


def test_a_budget_of_nothing(precise: PrecisionZoo) -> None:
    """Then the first product of all is the first to break it; what `calibrate` found serves as calibration."""
    specimen = precise["vanilla"]
    found = bisect(specimen.full, "int8", 0.0, [specimen.text], calibration=specimen.calibration, **SETTINGS)
    assert (found.stage, found.product) == ("1", next(iter(products_of(specimen.full)["1"])))
    assert all(trial.loss > 0 for trial in found.trials)


def test_products_come_in_dataflow_order(precise: PrecisionZoo) -> None:
    """As they are named in plans; stages without any are left out."""
    specimen = precise["nested"]
    found = products_of(specimen.full)
    small = specimen.build(Plan(default="w8", cache="fp32"))
    names = [entry.spec.name for entry in small.manifest.stages]
    expected = {name: [product.product for product in small.sidecar("cpu", name).products] for name in names}
    assert found == {stage: products for stage, products in expected.items() if products}
    assert list(found) == [name for name in names if name in found]


def test_what_can_t_be_bisected(precise: PrecisionZoo) -> None:
    """Refused before anything is built."""
    specimen = precise["vanilla"]
    small = specimen.build(Plan(default="w8", cache="fp32"))
    for bundle, precision, budget, more, message in (
        (specimen.full, "fp32", 0.1, {}, "fp32 is what losses are measured against, so it loses nothing; give another"),
        (specimen.full, "fp4", 0.1, {}, 'unknown precision "fp4"; expected one of fp32, fp16, int8, w8, w4'),
        (specimen.full, "w8", -0.1, {}, r"the budget is -0\.1, expected a share of at least 0"),
        (specimen.full, "w8", 0.1, {"measure": "bytes"}, 'unknown measure "bytes"; expected one of bits, kl'),
        (specimen.full, "int8", 0.1, {}, "int8 needs text to calibrate on, got none"),
        (small, "w8", 0.1, {}, "the bundle is w8, expected fp32; build from the bundle it was made from"),
    ):
        with pytest.raises(ConfigError, match=message):
            bisect(bundle, precision, budget, [specimen.text], **{**SETTINGS, **more})
