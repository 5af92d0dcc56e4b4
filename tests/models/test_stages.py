"""How a model splits into stages."""

from __future__ import annotations

import pytest
from specimens import random_model

from foveal.contract import InputSpec


@pytest.mark.parametrize(
    ("hierarchy", "names", "strides"),
    [
        ("3@1", ["1"], [1]),
        ("2@1 8@4 2@1", ["1.pre", "4", "1.post"], [1, 4, 1]),
        ("2@1 1@2 4@8 1@2 2@1", ["1.pre", "2.pre", "8", "2.post", "1.post"], [1, 2, 8, 2, 1]),
    ],
)
def test_names_and_strides(hierarchy: str, names: list[str], strides: list[int]) -> None:
    """In dataflow order, named after their scale."""
    specs = [stage.spec for stage in random_model(hierarchy).stages()]
    assert [spec.name for spec in specs] == names
    assert [spec.stride for spec in specs] == strides


def test_what_each_stage_reads() -> None:
    """A window ends with its newest row; stream and context are read row by row."""
    specs = {stage.spec.name: stage.spec for stage in random_model("2@1 1@2 4@8 1@2 2@1").stages()}
    assert specs["2.pre"].inputs == (InputSpec(kind="window", source="1.pre", count=2, shift=1, width=24),)
    assert specs["8"].inputs == (InputSpec(kind="window", source="2.pre", count=4, shift=3, width=24),)
    stream, context = InputSpec(kind="stream", source="2.pre", width=24), InputSpec(kind="context", source="8", width=24)
    assert specs["2.post"].inputs == (stream, context)
    assert (specs["8"].output_rows, specs["2.post"].output_rows, specs["1.post"].output) == (4, 2, "logits")


def test_stages_share_the_models_weights() -> None:
    """Splitting copies nothing; only a tied embedding belongs to two stages."""
    model = random_model("1@1 1@4 1@1")
    parameters = {id(parameter) for parameter in model.parameters()}
    for stage in model.stages():
        assert {id(parameter) for parameter in stage.module.parameters()} <= parameters
