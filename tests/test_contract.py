"""When stages fire, and what their graphs take and give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.contract import Fires, InputSpec, StageSpec, contract_of


def stage(stride: int = 1, fires: Fires = "open", **changes: object) -> StageSpec:
    """A stage of two layers."""
    fields = {"name": "s", "inputs": (InputSpec(kind="tokens"),), "output": "hidden", "layers": 2, "heads": 3, "head_dim": 8}
    return StageSpec(**{**fields, "stride": stride, "fires": fires, "parameters": 0, **changes})


def fires_at(token: int, stride: int, rule: Fires) -> bool:
    """The rule in words: when a token opens a group, or when it completes one."""
    return token % stride == 0 if rule == "open" else (token + 1) % stride == 0


@given(st.integers(1, 17), st.integers(0, 200), st.integers(1, 100), st.sampled_from(["open", "close"]))
def test_firings_follow_the_rule(stride: int, start: int, tokens: int, rule: Fires) -> None:
    """Counting firings agrees with asking for every token."""
    before = sum(fires_at(token, stride, rule) for token in range(start))
    during = sum(fires_at(token, stride, rule) for token in range(start, start + tokens))
    assert stage(stride, rule).firings(start, tokens) == range(before, before + during)


@given(st.integers(1, 17), st.sampled_from(["open", "close"]), st.lists(st.integers(1, 20), min_size=1))
def test_any_split_fires_the_same(stride: int, rule: Fires, chunks: list[int]) -> None:
    """Chunks one after the other fire exactly what one call would."""
    spec, start, fired = stage(stride, rule), 0, []
    for tokens in chunks:
        fired += spec.firings(start, tokens)
        start += tokens
    assert fired == list(spec.firings(0, start))


@pytest.mark.parametrize(("stride", "tokens", "rows"), [(1, 10, 10), (4, 10, 3), (4, 8, 2), (16, 3, 1)])
def test_capacity_in_rows(stride: int, tokens: int, rows: int) -> None:
    """A stage of stride s needs ceil(tokens / s) rows."""
    assert stage(stride).capacity_rows(tokens) == rows


def test_names_follow_the_ecosystem() -> None:
    """Names that tools for language models know."""
    contract = contract_of(stage(output="logits", layers=1), dim=24, vocab_size=41)
    assert [tensor.name for tensor in contract.inputs] == [
        *("input_ids", "position", "logit_rows"),
        *("past_key_values.0.key", "past_key_values.0.value"),
    ]
    assert [tensor.name for tensor in contract.outputs] == ["logits", "present.0.key", "present.0.value"]
    assert contract.inputs[3].aliased_with == "present.0.key"


def test_a_stage_without_layers_takes_no_position() -> None:
    """An input nobody reads would be a warning in every compiler."""
    contract = contract_of(stage(layers=0, uses_position=False), dim=24, vocab_size=41)
    assert [tensor.name for tensor in contract.inputs] == ["input_ids"]


def test_the_documented_tables_are_the_contract() -> None:
    """docs/io-contract.md holds what `contract_table` writes for each kind of stage."""
    from foveal.export.contract_docs import contract_page

    page = Path(__file__).parent.parent / "docs" / "io-contract.md"
    assert page.read_text(encoding="utf-8") == contract_page(), "run: python -m foveal.export.contract_docs"
