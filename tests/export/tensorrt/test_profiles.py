"""The shapes that engines are built for."""

from __future__ import annotations

import pytest

from foveal.contract import InputSpec, Limits, StageSpec, layer_caches, most_firings, resident_contract_of
from foveal.export.tensorrt.profiles import Bounds, Profile, profiles_of, shapes


def stage(stride: int, **choices: object) -> StageSpec:
    """A stage that reads four rows of stage 1 at each firing."""
    inputs = (InputSpec(kind="window", source="1", count=4, shift=3, width=16),)
    settings = {
        "inputs": inputs,
        "output": "hidden",
        "width": 16,
        "layers": 1,
        "caches": layer_caches(1, 2, 8),
        "parameters": 0,
    }
    return StageSpec(name=str(stride), stride=stride, **{**settings, **choices})  # type: ignore[arg-type]


ONE = Bounds(1, 1, 1)


def test_one_profile_for_each_phase() -> None:
    """A decode step is one row of every sequence; a prefill is any number, and wants the logits of the last."""
    decode, prefill = profiles_of(stage(1), Limits(batch=4, capacity=64, prefill=32), {})
    assert decode == Profile(batch=Bounds(1, 4, 4), rows=ONE, wanted=ONE)
    assert prefill == Profile(batch=Bounds(1, 4, 4), rows=Bounds(1, 32, 32), wanted=Bounds(1, 1, 32))


@pytest.mark.parametrize("prefill", [1, 16, 17])
def test_a_profile_is_never_of_static_shapes_alone(prefill: int) -> None:
    """Or all weights would be stored twice."""
    for profile in profiles_of(stage(16), Limits(batch=1, capacity=64, prefill=prefill), {}):
        assert max(profile.batch.largest, profile.rows.largest) > 1
        assert profile.batch.usual == 1


@pytest.mark.parametrize(
    ("stride", "fires", "prefill", "most"),
    [
        (1, "open", 32, 32),
        (4, "open", 32, 8),
        (4, "open", 33, 9),
        (4, "close", 33, 9),
        (16, "open", 1, 1),
        (16, "close", 17, 2),
    ],
)
def test_a_prefill_may_begin_at_any_phase(stride: int, fires: str, prefill: int, most: int) -> None:
    """As many firings as there are groups that it may touch, and no more than its caches hold."""
    spec = stage(stride, fires=fires)
    assert most_firings(spec, Limits(capacity=128, prefill=prefill)) == most
    assert most == max(len(spec.firings(start, prefill)) for start in range(stride))
    assert most_firings(spec, Limits(capacity=8, prefill=8)) <= spec.capacity_firings(8)


def test_every_input_has_its_shapes() -> None:
    """Letters of fixed sizes are numbers; the others are within the profile's bounds."""
    spec, limits = stage(4), Limits(batch=3, capacity=64, prefill=32)
    found = shapes(resident_contract_of(spec), {"S": 16, "R": 19, "R.1": 67}, profiles_of(spec, limits, {})[1])
    assert found == {
        "position": ((1,), (3,), (3,)),
        "offsets": ((1,), (8,), (8,)),
        "past_key_values.0.key": ((1, 2, 16, 8), (3, 2, 16, 8), (3, 2, 16, 8)),
        "past_key_values.0.value": ((1, 2, 16, 8), (3, 2, 16, 8), (3, 2, 16, 8)),
        "rows.1": ((1, 1, 67, 16), (3, 1, 67, 16), (3, 1, 67, 16)),
        "past_rows": ((1, 1, 19, 16), (3, 1, 19, 16), (3, 1, 19, 16)),
    }
