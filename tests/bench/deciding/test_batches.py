"""Batches whose sequences fire where their texts say, beside fixed strides. No test depends on a time."""

from __future__ import annotations

import msgspec
import pytest
from blt_models import random_model
from rich.console import Console
from store import Store

from foveal import load
from foveal.bench.batch_rounds import BatchSamples
from foveal.bench.deciding.batches import BatchCase, BatchesResult, StageCalls, calls_of, measure, show
from foveal.bench.decode import Load
from foveal.export import convert_model

TEXT = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals. " * 4


@pytest.fixture(scope="module")
def result(store: Store) -> BatchesResult:
    """Four sequences of a BLT whose patches end by entropy, and of one whose patches have four bytes."""
    models = []
    for rule in ("entropy", "fixed:4"):
        made = store.once(
            f"batches-{rule[:5]}", lambda to, rule=rule: convert_model(random_model(rule), to, tokenizer="bytes+4")
        )
        model = load(made, threads=1)
        models.append((model, Load(12, 24, 2).reading(model, TEXT)))
    return measure(models, 4, "test")


def middle_of(case: BatchCase) -> StageCalls:
    """Of the stage over patches."""
    (found,) = (stage for stage in case.stages if stage.name == "global")
    return found


def test_every_way_to_fire(result: BatchesResult) -> None:
    """A text says it alone; a fixed length is measured aligned and staggered."""
    assert [case.phases for case in result.cases] == ["text", "aligned", "staggered"]
    assert all(len(case.step_ms) == 24 and len(case.tokens_per_s_by_round) == 2 for case in result.cases)


def test_fixed_lengths_fire_all_at_once_or_one_in_each_step(result: BatchesResult) -> None:
    """Of four sequences, with patches of four bytes."""
    _, aligned, staggered = (middle_of(case) for case in result.cases)
    assert (aligned.due, aligned.calls, aligned.slots, aligned.steps_by_due) == (1, 1 / 4, 1, [18, 0, 0, 0, 6])
    assert (staggered.due, staggered.calls, staggered.slots, staggered.steps_by_due) == (1, 1, 1, [0, 24])


def test_texts_fire_as_they_like(result: BatchesResult) -> None:
    """Calls are for those that are due, and for those that are run along."""
    stage = middle_of(result.cases[0])
    assert len(stage.steps_by_due) > 2
    assert sum(stage.steps_by_due) == 24
    assert stage.due == sum(count * steps for count, steps in enumerate(stage.steps_by_due)) / 24
    assert stage.slots >= stage.due
    assert stage.calls <= 24


def test_calls_by_hand() -> None:
    """Three steps: none is due, two sequences in one call with one run along, three in two calls."""
    calls = [[("fine", 4, 9)], [("fine", 4, 9), ("coarse", 3, 10**6)], [("coarse", 2, 10**6), ("coarse", 1, 10**6)]]
    kept = BatchSamples(fires=[{"coarse": 0}, {"coarse": 2}, {"coarse": 3}], calls=calls)
    found = calls_of("coarse", kept, 3)
    assert (found.due, found.calls, found.slots, found.ms) == (5 / 3, 1, 2, 1)
    assert found.steps_by_due == [1, 0, 1, 1]


def test_it_survives_json_and_is_shown(result: BatchesResult) -> None:
    """A line for each case."""
    assert msgspec.json.decode(msgspec.json.encode(result), type=BatchesResult) == result
    console = Console(width=160, record=True)
    show(result, console)
    text = console.export_text()
    assert all(f"batches-fixed, {phases}" in text for phases in ("aligned", "staggered"))
