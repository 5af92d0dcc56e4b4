"""Searches find what trying everything finds."""

from __future__ import annotations

from itertools import product

import pytest

from foveal.errors import ConfigError
from foveal.forecast.devices import known_devices
from foveal.forecast.forecast import Work, forecast
from foveal.forecast.model_shapes import shape_of_hierarchy
from foveal.forecast.search import STRIDES, TOLERANCE, Wanted, candidates, search
from foveal.hierarchy import Hierarchy
from foveal.models.sizes import Sizes

SIZES = Sizes(32, 2, 64, 64, 128)
DEVICE = known_devices()["orin-nano-8gb-super"]
WORK = Work(context=128, prompt_tokens=64)


def every_hierarchy(layers: float) -> set[str]:
    """All of two and three levels with at most six layers at each, by trying them."""
    found = set()
    for stride in STRIDES:
        for fine, coarse in product(range(1, 7), range(1, 7 * stride)):
            for text in (f"{fine}@1 {coarse}@{stride} {fine}@1", f"{coarse}@{stride} {fine}@1"):
                if layers <= Hierarchy.parse(text).layer_equivalents <= layers + TOLERANCE:
                    found.add(text)
    return found | {f"{layers:g}@1"}


def test_candidates_are_all_there_are() -> None:
    """Of vanilla models, Hourglasses of one coarse level and top-down ones of one."""
    found = {
        " ".join(f"{count}@{stride}" for count, stride in zip(layers, strides, strict=True))
        for strides, all_layers in candidates(4)
        for layers in all_layers
    }
    few = {text for text in found if len(text.split()) < 3 or len(set(text.split())) == 2}
    assert {text for text in few if len(text.split()) != 3 or text.split()[0] == text.split()[2]} == every_hierarchy(4)
    for text in found:
        assert 4 - 1e-9 <= Hierarchy.parse(text).layer_equivalents <= 4 + TOLERANCE + 1e-9


def test_a_search_finds_the_fastest_of_all() -> None:
    """As forecasts of every hierarchy, one by one, have it; and none has too many parameters."""
    wanted = Wanted(80_000, 2)
    found = search(wanted, SIZES, "fp32", DEVICE, WORK)
    assert all(row.parameters <= wanted.parameters for row in found)
    tried = [forecast(shape_of_hierarchy(text, SIZES, on_gpu=True), DEVICE, WORK) for text in every_hierarchy(2)]
    fitting = [row for row in tried if row.parameters <= wanted.parameters]
    assert fitting
    by_name = {row.hierarchy: row.tokens_per_s for row in found}
    assert {row.hierarchy: row.tokens_per_s for row in fitting}.items() <= by_name.items()
    rates = [row.tokens_per_s for row in found]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] >= max(row.tokens_per_s for row in fitting)


def test_too_few_parameters_for_any_are_refused() -> None:
    """With what the smallest takes."""
    with pytest.raises(ConfigError, match=r"no hierarchy of 2 layer-equivalents has at most 1,000 parameters .*smallest has"):
        search(Wanted(1000, 2), SIZES, "fp32", DEVICE, WORK)


@pytest.mark.parametrize(
    ("parameters", "layers", "says"),
    [(0, 4, "parameters must be at least 1, got 0"), (9, 0, "layers must be 1 to 64"), (9, 65, "got 65")],
)
def test_what_cannot_be_looked_for_is_refused(parameters: int, layers: float, says: str) -> None:
    """In one sentence."""
    with pytest.raises(ConfigError, match=says):
        Wanted(parameters, layers)
