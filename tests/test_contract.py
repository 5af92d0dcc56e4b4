"""When stages fire, and what their graphs take and give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.contract import (
    BEGINNING,
    Fires,
    InputSpec,
    Limits,
    StageSpec,
    contract_of,
    layer_caches,
    leads_of,
    resident_contract_of,
    size_of,
)

rules = st.sampled_from(["open", "close", "ahead"])


def stage(stride: int = 1, fires: Fires = "open", **changes: object) -> StageSpec:
    """A stage of two layers."""
    fields = {"name": "s", "inputs": (InputSpec(kind="tokens"),), "output": "hidden", "width": 24, "layers": 2, "parameters": 0}
    caches = layer_caches(2, heads=3, width=8)
    return StageSpec(**{**fields, "caches": caches, "stride": stride, "fires": fires, **changes})


def fires_at(token: int, stride: int, rule: Fires) -> bool:
    """The rule in words: when a token opens a group, when it completes one, or when the next token opens one.

    The token before the first is the beginning, -1.
    """
    return token >= 0 and token % stride == 0 if rule == "open" else (token + 1) % stride == 0 and (token >= 0 or rule == "ahead")


@given(st.integers(1, 17), st.integers(BEGINNING, 200), st.integers(1, 100), rules)
def test_firings_follow_the_rule(stride: int, start: int, tokens: int, rule: Fires) -> None:
    """Counting firings agrees with asking for every token."""
    before = sum(fires_at(token, stride, rule) for token in range(BEGINNING, start))
    during = sum(fires_at(token, stride, rule) for token in range(start, start + tokens))
    assert stage(stride, rule).firings(start, tokens) == range(before, before + during)


@given(st.integers(1, 17), st.integers(0, 50), rules)
def test_a_firing_has_its_token(stride: int, firing: int, rule: Fires) -> None:
    """With which it is one of those so far, and without which it is not."""
    spec = stage(stride, rule)
    assert spec.firings(spec.fired_by(firing), 1) == range(firing, firing + 1)


@given(st.integers(1, 17), st.integers(1, 100), rules)
def test_some_phase_causes_the_most_firings(stride: int, tokens: int, rule: Fires) -> None:
    """And none causes more: buffers of that size are neither too short nor too long."""
    spec = stage(stride, rule)
    assert spec.most_firings(tokens) == max(len(spec.firings(start, tokens)) for start in range(stride))


@given(st.integers(1, 17), rules, st.lists(st.integers(1, 20), min_size=1))
def test_any_split_fires_the_same(stride: int, rule: Fires, chunks: list[int]) -> None:
    """Chunks one after the other fire exactly what one call would."""
    spec, start, fired = stage(stride, rule), 0, list(stage(stride, rule).firings(BEGINNING, 1))
    for tokens in chunks:
        fired += spec.firings(start, tokens)
        start += tokens
    assert fired == list(spec.firings(BEGINNING, start - BEGINNING)) == list(range(spec.firings_within(start)))


@pytest.mark.parametrize(("stride", "tokens", "rows"), [(1, 10, 10), (4, 10, 3), (4, 8, 2), (16, 3, 1)])
def test_capacity_in_rows(stride: int, tokens: int, rows: int) -> None:
    """A stage of stride s needs ceil(tokens / s) rows."""
    assert stage(stride).capacity_firings(tokens) == rows


def test_names_follow_the_ecosystem() -> None:
    """Names that tools for language models know."""
    contract = contract_of(stage(output="logits", caches=layer_caches(1, heads=3, width=8)))
    assert [tensor.name for tensor in contract.inputs] == [
        *("input_ids", "position", "logit_rows"),
        *("past_key_values.0.key", "past_key_values.0.value"),
    ]
    assert [tensor.name for tensor in contract.outputs] == ["logits", "present.0.key", "present.0.value"]
    assert contract.inputs[3].aliased_with == "present.0.key"


def test_a_stage_without_layers_takes_no_position() -> None:
    """An input nobody reads would be a warning in every compiler."""
    contract = contract_of(stage(layers=0, caches=(), uses_position=False))
    assert [tensor.name for tensor in contract.inputs] == ["input_ids"]


def test_the_documented_tables_are_the_contract() -> None:
    """docs/io-contract.md holds what `contract_table` writes for each kind of stage."""
    from foveal.export.contract_docs import contract_page

    page = Path(__file__).parent.parent / "docs" / "io-contract.md"
    assert page.read_text(encoding="utf-8") == contract_page(), "run: python -m foveal.export.contract_docs"


def hourglass() -> list[StageSpec]:
    """Three stages as an Hourglass of factor 4 has them."""
    window = InputSpec(kind="window", source="1.pre", count=4, shift=3, width=24)
    merged = (InputSpec(kind="stream", source="1.pre", width=24), InputSpec(kind="context", source="4", width=24))
    return [
        stage(name="1.pre"),
        stage(name="4", stride=4, inputs=(window,), output_rows=4),
        stage(name="1.post", inputs=merged, output="logits"),
    ]


def test_logs_begin_with_as_many_zeros_as_the_longest_shift() -> None:
    """Then the first window is whole: rows -3 to 0."""
    assert leads_of(hourglass()) == {"1.pre": 3, "4": 0, "1.post": 0}


def test_what_the_letters_of_a_resident_engine_stand_for() -> None:
    """Caches hold one row per firing, logs all that firings give, behind their zeros."""
    limits = Limits(batch=2, capacity=30, prefill=8)
    assert limits.sizes(hourglass(), "1.pre") == {"S": 30, "R": 33}
    assert limits.sizes(hourglass(), "4") == {"S": 8, "R": 32, "R.1.pre": 33}
    assert limits.sizes(hourglass(), "1.post") == {"S": 30, "R": 30, "R.1.pre": 33, "R.4": 32}


def test_the_resident_form_keeps_rows_in_logs() -> None:
    """Row inputs become the logs of their sources, `hidden` the stage's own; a stage that keeps no rows has none."""
    first, coarse, last = (resident_contract_of(spec) for spec in hourglass())
    names = [
        [tensor.name for tensor in contract.inputs if "key_values" not in tensor.name] for contract in (first, coarse, last)
    ]
    assert names == [
        ["input_ids", "position", "past_rows"],
        ["position", "offsets", "rows.1.pre", "past_rows"],
        ["position", "logit_rows", "offsets", "rows.1.pre", "rows.4"],
    ]
    assert [contract.outputs[0].name for contract in (first, coarse, last)] == ["present_rows", "present_rows", "logits"]
    aliases = {tensor.name: tensor.aliased_with for tensor in coarse.outputs}
    assert aliases["present_rows"] == "past_rows"
    assert aliases["present.0.key"] == "past_key_values.0.key"


@pytest.mark.parametrize(("dimension", "expected"), [(7, 7), ("L", 3), ("4*L", 12), ("S", -1), ("2*S", -1)])
def test_sizes_of_dimensions(dimension: int | str, expected: int) -> None:
    """Letters that are not given are -1, as engine libraries have it."""
    assert size_of(dimension, {"L": 3}) == expected
