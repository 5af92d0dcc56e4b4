"""Plans: which product gets which precision, and what is no plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal import ConfigError
from foveal.precision import CACHES, PRECISIONS, Plan, check_precision, read_plan, write_plan

names = st.text(min_size=1, max_size=20)
precisions = st.sampled_from(PRECISIONS)
plans = st.builds(
    Plan,
    default=precisions,
    stages=st.dictionaries(names, precisions, max_size=4),
    products=st.dictionaries(names, precisions, max_size=4),
    head=st.booleans(),
    embedding=st.booleans(),
    cache=st.sampled_from(CACHES),
)


@given(plans)
def test_a_plan_comes_back_from_its_file(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    """Any plan, as JSON that people can read; names are whatever they are."""
    path = tmp_path_factory.mktemp("plan") / "folder" / "plan.json"
    write_plan(path, plan)
    assert read_plan(path) == read_plan(str(path)) == plan
    assert path.read_text(encoding="utf-8").startswith('{\n  "default": ')


def test_what_a_file_leaves_out_has_its_default(tmp_path: Path) -> None:
    """An empty object is fp32 throughout."""
    path = tmp_path / "plan.json"
    path.write_text("{}")
    assert read_plan(path) == Plan()
    path.write_text('{"stages": {"4": "w4"}, "cache": "fp32"}')
    assert read_plan(path) == Plan(default="fp32", stages={"4": "w4"}, products={}, head=True, embedding=False, cache="fp32")


def test_exceptions_come_first() -> None:
    """A product's own precision, else its stage's, else the default."""
    plan = Plan(default="fp16", stages={"4": "int8"}, products={"4/exit/wide": "w8", "1/up": "fp32"})
    assert (plan.of_stage("1"), plan.of_stage("4")) == ("fp16", "int8")
    assert plan.of_product("4", "4/exit/wide") == "w8"
    assert plan.of_product("4", "4/up") == "int8"
    assert plan.of_product("1", "1/up") == "fp32"
    assert plan.of_product("1", "1/down") == "fp16"


@pytest.mark.parametrize(
    ("plan", "label"),
    [
        (Plan(), "fp32"),
        (Plan(default="w4"), "w4"),
        (Plan(default="w4", stages={"4": "w4"}, products={"4/up": "w4"}), "w4"),
        (Plan(stages={"4": "int8"}), "mixed"),  # the other stages are fp32
        (Plan(default="int8", stages={"4": "fp32"}), "mixed"),
        (Plan(default="int8", products={"4/up": "fp16"}), "mixed"),
    ],
)
def test_a_plan_in_one_word(plan: Plan, label: str) -> None:
    """A bundle is called fp32 only if nothing in it is anything else."""
    assert plan.label == label


@pytest.mark.parametrize(
    ("plan", "needs"),
    [
        (Plan(), False),
        (Plan(default="w8", stages={"4": "w4"}, products={"4/up": "fp32"}), False),
        (Plan(default="fp16"), True),
        (Plan(stages={"4": "int8"}), True),
        (Plan(default="w4", products={"4/up": "int8"}), True),
    ],
)
def test_what_depends_on_text(plan: Plan, needs: bool) -> None:
    """Blocks of weights do not, wherever they are; integers and halves of activations do."""
    assert plan.needs_calibration() == needs


@pytest.mark.parametrize("choice", [{"default": "fp64"}, {"stages": {"4": "fp64"}}, {"products": {"4/up": "fp64"}}])
def test_an_unknown_precision(choice: dict[str, Any]) -> None:
    """Wherever it stands, those that there are get listed."""
    with pytest.raises(ConfigError, match='unknown precision "fp64"; expected one of fp32, fp16, int8, w8, w4'):
        Plan(**choice)


def test_an_unknown_cache() -> None:
    """So do the caches."""
    with pytest.raises(ConfigError, match='unknown cache "int8"; expected one of auto, fp32'):
        Plan(cache="int8")


def test_every_precision_is_known() -> None:
    """By its own name only."""
    for precision in PRECISIONS:
        check_precision(precision)
    with pytest.raises(ConfigError, match='unknown precision "FP32"'):
        check_precision("FP32")


def test_no_file(tmp_path: Path) -> None:
    """The message says how to make one."""
    reason = r"no plan at .*none\.json: No such file or directory; write one with `foveal calibrate BUNDLE --budget 1%`"
    with pytest.raises(ConfigError, match=reason):
        read_plan(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"default": "int8", "heads": true}', "Object contains unknown field `heads`"),
        ('{"head": "yes"}', r"Expected `bool`, got `str` - at `\$.head`"),
        ('{"stages": ["4"]}', r"Expected `object`, got `array` - at `\$.stages`"),
        ('{"stages": {"4": "int4"}}', 'unknown precision "int4"; expected one of fp32'),
        ('{"default": ', "Input data was truncated"),
        ('"int8"', "Expected `object`, got `str`"),
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, content: str, reason: str) -> None:
    """The file, and where in it."""
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"plan\.json is not a precision plan: .*{reason}"):
        read_plan(path)
