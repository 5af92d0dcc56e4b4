"""Shapes: of hierarchies nothing is built, and they are what bundles of the same models say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specimens import ZOO, Zoo

from foveal.bench.random_models import RandomModels
from foveal.bundle import open_bundle
from foveal.errors import ConfigError
from foveal.export import build
from foveal.forecast.model_shapes import Growing, shape_of_hierarchy, shape_of_model
from foveal.forecast.shapes import Shape, shape_of_bundle
from foveal.forecast.traffic import reads_per_token
from foveal.models.sizes import Sizes
from foveal.progress import silent

SIZES = Sizes(24, 3, 32, 41, 96)


@pytest.mark.parametrize("name", ZOO)
def test_a_bundle_and_its_model_have_one_shape(name: str, zoo: Zoo) -> None:
    """When stages fire, what they read, remember and multiply; weights up to what graphs share or leave out."""
    specimen = zoo[name]
    said = shape_of_bundle(specimen.bundle, on_gpu=False)
    found = shape_of_model(specimen.model, "fp32", on_gpu=False, widest=32)
    assert (said.parameters, said.layer_equivalents, said.context) == (
        found.parameters,
        found.layer_equivalents,
        found.context,
    )
    for one, other in zip(said.stages, found.stages, strict=True):
        assert one.spec == other.spec
        folded = 4 * 41 * 24 if name == "vanilla" else 0  # a tied table this small is transposed once, into a copy
        assert one.table_bytes == other.table_bytes + folded
        assert one.weight_bytes == pytest.approx(other.weight_bytes, rel=0.05, abs=600)
        assert one.multiplied == pytest.approx(other.multiplied, rel=0.06, abs=200)


def test_a_bundle_with_integers(zoo: Zoo, tmp_path: Path) -> None:
    """Its sidecars list products; weights are a quarter, and their scales."""
    narrow = build(zoo["vanilla"].bundle, tmp_path / "narrow", "w8")
    said = shape_of_bundle(narrow, on_gpu=False)
    found = shape_of_model(zoo["vanilla"].model, "w8", on_gpu=False, widest=32)
    assert [stage.products for stage in said.stages] == [stage.products for stage in found.stages] == [3 * 4 + 1]
    assert said.stages[0].weight_bytes == pytest.approx(found.stages[0].weight_bytes, rel=0.1)  # scales of blocks of 24 rows


def test_a_tied_table_is_read_whole(tmp_path: Path) -> None:
    """By the product that gives logits; in integers that has a matrix of its own, and the table is looked up in."""
    (fp32, w8) = RandomModels(24, 3, 48, 2048, 96).convert(["1@1"], tmp_path, silent, ["fp32", "w8"])
    head, positions, found = 2048 * 24, 96 * 24, {"fp32": 0, "w8": 4 * 2048 * 24}
    for precision, path in {"fp32": fp32, "w8": w8}.items():
        bundle = open_bundle(path)
        (entry,), (said,) = bundle.manifest.stages, shape_of_bundle(bundle, on_gpu=False).stages
        (expected,) = shape_of_hierarchy("1@1", Sizes(24, 3, 48, 2048, 96), precision, on_gpu=False).stages
        assert entry.table_bytes == expected.table_bytes == 4 * positions + found[precision]
        assert said.multiplied >= expected.multiplied > head
        assert said.multiplied == pytest.approx(expected.multiplied, abs=500)  # norms and biases
        (reads,) = reads_per_token(bundle, "cpu")
        assert reads.weights == entry.weight_bytes - entry.table_bytes
        assert reads.weights == pytest.approx(expected.weight_bytes, rel=0.15)  # scales of blocks of 24 rows


def test_int8_caches_are_those_of_the_cpu_alone() -> None:
    """A row of three heads of eight: 24 bytes there, in fp32 on GPUs, in half of that in fp16."""

    def row(precision: str, on_gpu: bool) -> int:
        return shape_of_hierarchy("1@1", SIZES, precision, on_gpu).stages[0].row_bytes["0.key"]

    assert (row("w8", False), row("w8", True), row("fp16", True), row("fp16", False)) == (24, 96, 48, 96)


@pytest.mark.parametrize(
    ("hierarchy", "sizes", "says"),
    [
        ("2@1 8@4", SIZES, "malformed hierarchy"),
        ("deep", SIZES, 'got the entry "deep", expected layers@factor'),
        ("1@1", Sizes(dim=24, heads=5), "heads must divide the width 24, got 5"),
        ("1@1", Sizes(dim=0), "dim must be at least 1, got 0"),
        ("1@1", Sizes(vocab_size=0), "vocab_size must be at least 1, got 0"),
    ],
)
def test_what_can_be_no_model_is_refused(hierarchy: str, sizes: Sizes, says: str) -> None:
    """In one sentence."""
    with pytest.raises(ConfigError, match=says):
        shape_of_hierarchy(hierarchy, sizes)


STRIDES = st.sampled_from([(1,), (1, 4, 1), (4, 1), (1, 2, 8, 2, 1), (8, 2, 1), (1, 2, 8, 1)])


@settings(max_examples=25, deadline=None)
@given(strides=STRIDES, data=st.data(), precision=st.sampled_from(["fp32", "w4"]))
def test_shapes_grow_by_layers(strides: tuple[int, ...], data: st.DataObject, precision: str) -> None:
    """Of any numbers of layers a search finds the shape that the model itself has."""
    layers = tuple(data.draw(st.integers(1, 5)) for _ in strides)
    hierarchy = " ".join(f"{count}@{stride}" for count, stride in zip(layers, strides, strict=True))
    grown: Shape = Growing.of(strides, SIZES, precision, on_gpu=False).at(layers)
    assert grown == shape_of_hierarchy(hierarchy, SIZES, precision)
