"""Programs out of the graphs of small models: which there are, and what they are made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from precisions import PrecisionZoo
from specimens import ZOO, Zoo, random_model

from foveal.bundle import Bundle
from foveal.contract.program import Embed, Product, Program
from foveal.export import convert_model
from foveal.json_files import decode
from foveal.precision import Plan


def program(bundle: Bundle, stage: str) -> Program:
    """What is in the bundle."""
    names = bundle.program(stage)
    assert names is not None, bundle.sidecar("cpu", stage).native
    return decode(bundle.file(names[0]).read_bytes(), Program)


def steps(found: Program) -> Counter[str]:
    """How many there are of each kind."""
    return Counter(str(step.__struct_config__.tag) for step in found.steps)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_all_stages_of_foveals_own_models_have_a_program(zoo: Zoo, name: str) -> None:
    """Whatever resamples their rows, and whatever tells positions."""
    bundle = zoo[name].bundle
    for entry in bundle.manifest.stages:
        assert steps(program(bundle, entry.spec.name))["attend"] == entry.spec.layers


@pytest.mark.parametrize("precision", ["fp32", "int8", "w8", "w4"])
def test_a_layer_is_seven_steps(precise: PrecisionZoo, precision: str) -> None:
    """Biases, activations and what is added to a product are part of it, and positions of the embedding."""
    found = precise["vanilla"]
    bundle = found.full if precision == "fp32" else found.build(Plan(default=precision))
    made = program(bundle, "1")
    assert steps(made) == {"embed": 1, "norm": 5, "product": 9, "attend": 2, "take": 1}
    assert {step.weight.format for step in made.steps if isinstance(step, Product)} == {precision}
    (embed,) = (step for step in made.steps if isinstance(step, Embed))
    assert embed.positions is not None
    assert len(made.buffers) <= 8, "results that nobody reads any more give their buffers away"


def test_tables_of_8_bits_stay_so(precise: PrecisionZoo) -> None:
    """They are looked up as they are."""
    made = program(precise["vanilla"].build(Plan(default="w8", embedding=True)), "1")
    (embed,) = (step for step in made.steps if isinstance(step, Embed))
    assert embed.dtype == "uint8"


def test_a_stage_without_a_program_says_which_node_was_in_the_way(precise: PrecisionZoo) -> None:
    """In fp16 it is the first rounding."""
    bundle = precise["vanilla"].build(Plan(default="fp16"))
    assert bundle.program("1") is None
    assert bundle.sidecar("cpu", "1").native.startswith("a cast to float16 (Cast ")


@pytest.mark.parametrize("architecture", ["bottom-up", "top-down"])
def test_all_stages_of_other_orders_have_a_program(architecture: str, tmp_path: Path) -> None:
    """Scales that read the newest of a group, and tokens that choose among scales, too."""
    hierarchy = {"bottom-up": "1@1 1@2 1@8 1@1", "top-down": "1@8 1@2 1@1"}[architecture]
    bundle = convert_model(random_model(hierarchy, architecture=architecture), tmp_path / "b")
    reasons = {entry.spec.name: bundle.sidecar("cpu", entry.spec.name).native for entry in bundle.manifest.stages}
    assert not any(reasons.values()), reasons
