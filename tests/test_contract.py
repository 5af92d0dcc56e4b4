"""When stages fire, and what their graphs take and give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.contract import (
    BEGINNING,
    BorrowSpec,
    CacheSpec,
    Fires,
    InputSpec,
    Limits,
    StageSpec,
    contract_of,
    layer_caches,
    leads_of,
    page_of,
    resident_contract_of,
    rewinds_of,
    room_of,
    size_of,
    sizes_of,
    vocab_size_of,
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
    if rule == "open":
        return token >= 0 and token % stride == 0
    return (token + 1) % stride == 0 and (token >= 0 or rule == "ahead")


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
    assert sizes_of(limits, hourglass(), "1.pre") == {"S": 30, "R": 33}
    assert sizes_of(limits, hourglass(), "4") == {"S": 8, "R": 32, "R.1.pre": 33}
    assert sizes_of(limits, hourglass(), "1.post") == {"S": 30, "R": 30, "R.1.pre": 33, "R.4": 32}


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


@given(st.integers(1, 17), st.integers(0, 100), rules)
def test_firings_within_some_tokens(stride: int, tokens: int, rule: Fires) -> None:
    """Those of the beginning, where there is no token, are among them."""
    assert stage(stride, rule).firings_within(tokens) == sum(fires_at(t, stride, rule) for t in range(BEGINNING, tokens))
    assert stage(stride, rule).capacity_firings(tokens) == max(stage(stride, rule).firings_within(tokens), 1)


def test_the_first_firing_ahead_is_before_the_first_token() -> None:
    """And the next with the last token of the first group."""
    spec = stage(4, "ahead")
    assert [spec.fired_by(firing) for firing in range(3)] == [BEGINNING, 3, 7]
    assert [spec.firings_within(tokens) for tokens in (0, 3, 4, 8)] == [1, 1, 2, 3]
    assert list(spec.firings(0, 4)) == [1]


def test_two_inputs_of_a_kind_have_names_of_their_own() -> None:
    """In the portable form the source is part of the name; in the resident form both are logs."""
    contexts = [InputSpec(kind="context", source=source, width=width) for source, width in (("4", 24), ("16", 32))]
    spec = stage(inputs=(InputSpec(kind="tokens"), *contexts))
    assert spec.names() == ["input_ids", "context.4", "context.16"]
    assert [tensor.name for tensor in contract_of(spec).inputs][:3] == spec.names()
    assert {tensor.name: tensor.shape for tensor in contract_of(spec).inputs}["context.16"] == ("L", "B", 32)
    shapes = {tensor.name: tensor.shape for tensor in resident_contract_of(spec).inputs}
    assert shapes["rows.4"] == ("B", 1, "R.4", 24)
    assert shapes["rows.16"] == ("B", 1, "R.16", 32)
    assert "context.4" not in shapes


def test_one_source_read_twice_is_one_log() -> None:
    """A window and the newest row of the same stage."""
    twice = (
        InputSpec(kind="window", source="1", count=4, shift=3, width=24),
        InputSpec(kind="stream", source="1", width=24),
    )
    spec = stage(4, inputs=twice)
    assert spec.names() == ["window", "stream"]
    assert [tensor.name for tensor in resident_contract_of(spec).inputs].count("rows.1") == 1


def test_caches_of_any_kind() -> None:
    """One row per firing, or several, or so many and no more; of any width."""
    caches = (
        CacheSpec(name="shift", heads=1, width=24),
        CacheSpec(name="keys", heads=2, width=8, rows=4),
        CacheSpec(name="ring", heads=3, width=5, keeps=7),
    )
    contract = contract_of(stage(caches=caches, layers=0))
    shapes = {tensor.name: tensor.shape for tensor in contract.outputs}
    assert shapes["present.shift"] == ("B", 1, "S", 24)
    assert shapes["present.keys"] == ("B", 2, "4*S", 8)
    assert shapes["present.ring"] == ("B", 3, 7, 5)
    assert [[cache.length(firings) for firings in (0, 3)] for cache in caches] == [[1, 3], [1, 12], [7, 7]]


def test_borrowed_caches_are_inputs_only() -> None:
    """As long as their stage's, which has a letter of its own."""
    lender = stage(4, name="4", caches=layer_caches(1, heads=2, width=8))
    borrows = tuple(BorrowSpec(stage="4", cache=cache) for cache in lender.caches)
    borrower = stage(name="1", borrows=borrows, caches=(), layers=0)
    for contract in (contract_of(borrower), resident_contract_of(borrower)):
        shapes = {tensor.name: tensor.shape for tensor in contract.inputs}
        assert shapes["borrowed.4.0.key"] == shapes["borrowed.4.0.value"] == ("B", 2, "S.4", 8)
        assert not any("borrowed" in tensor.name for tensor in contract.outputs)
    assert sizes_of(Limits(capacity=30, prefill=8), [lender, borrower], "1") == {"S": 30, "S.4": 8, "R": 30}


@given(st.lists(st.one_of(st.none(), st.integers(1, 60)), min_size=1, max_size=4), st.integers(0, 200), st.integers(1, 200))
def test_a_call_that_crosses_no_multiple_of_the_page_crosses_none_of_any_stage(
    pages: list[int | None], start: int, tokens: int
) -> None:
    """The page of a model divides all of its stages'."""
    page = page_of([stage(page=each) for each in pages])
    assert (page is None) == (set(pages) == {None})
    if page is not None and start // page == (start + tokens - 1) // page:
        assert all(start // each == (start + tokens - 1) // each for each in pages if each is not None)


resetting = st.builds(
    lambda stride, rule, resets, page: stage(stride, rule, resets=resets, page=page),
    st.integers(1, 9),
    rules,
    st.one_of(st.none(), st.integers(1, 7)),
    st.one_of(st.none(), st.integers(1, 24)),
)


@given(st.lists(resetting, min_size=1, max_size=4), st.integers(BEGINNING, 150))
def test_there_is_room_up_to_the_next_page_or_reset(stages: list[StageSpec], position: int) -> None:
    """At least for one token; so many cross nothing, and one more does, or would begin a call with what follows a reset."""

    def crosses(tokens: int) -> bool:
        end = position + tokens
        fired = [(spec, spec.firings(position, tokens)) for spec in stages if spec.resets is not None]
        inside = any(f.start // s.resets != (f.stop - 1) // s.resets for s, f in fired if f and s.resets)
        return inside or any(s.page is not None and position // s.page != (end - 1) // s.page for s in stages)

    room = room_of(stages, position)
    if all(spec.resets is None and spec.page is None for spec in stages):
        assert room > 10**9
        return
    assert room >= 1
    assert not crosses(room)
    begins = any(
        spec.resets is not None and any(firing % spec.resets == 0 for firing in spec.firings(position + room, 1))
        for spec in stages
    )
    pages = page_of(stages)
    assert crosses(room + 1) or begins or (pages is not None and (position + room) % pages == 0)


def test_the_least_that_can_be_taken_back_counts() -> None:
    """Of all stages; all of it if none says anything."""
    assert rewinds_of([stage(), stage()]) is None
    assert rewinds_of([stage(rewinds=9), stage(), stage(rewinds=4)]) == 4


def test_the_vocabulary_is_the_width_of_the_logits() -> None:
    """Of the last stage."""
    assert vocab_size_of([stage(), stage(output="logits", width=41)]) == 41
