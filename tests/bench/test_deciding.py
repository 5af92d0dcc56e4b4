"""Benchmarks of a model whose middle fires as the data says: what fired is counted. No test depends on a time."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from deciding_model import deciding_bundle
from rich.console import Console
from store import Store

from foveal import ConfigError, load
from foveal.bench import bandwidth
from foveal.bench.batch_forecast import Cases, forecast_batches
from foveal.bench.batch_picture import coarse_stages, draw, firings_of
from foveal.bench.batch_rounds import BatchLoad
from foveal.bench.batch_service import Requests
from foveal.bench.decode import Load
from foveal.bench.operator_times import profile
from foveal.bench.result import BenchResult
from foveal.bench.run import bench
from foveal.bench.show import show
from foveal.bench.show_forecast import show_forecast
from foveal.bench.small_batches import measure
from foveal.bench.stage_times import measure_stage_times
from foveal.bundle import open_bundle
from foveal.runtime.model import Model

TEXT = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals. " * 4


@pytest.fixture(scope="module")
def bundle(store: Store) -> Path:
    """A model of bytes, once in a run."""
    return deciding_bundle(store)


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    """With one thread."""
    return load(bundle, threads=1)


@pytest.fixture(scope="module")
def result(bundle: Path) -> BenchResult:
    """Of a text, by one sequence and by a batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        return bench([bundle], Load(8, 24, rounds=2), threads=1, batch=BatchLoad(4), text=TEXT, command="test")


def test_what_fired_is_counted(result: BenchResult, model: Model) -> None:
    """As a session fires that reads the text: in the steps that fired the middle, and in the engine calls."""
    session = model.session()
    ids = np.array([model.prompt_ids(TEXT)[:32]])
    session.advance(ids)
    (decisions,) = session.schedule.values()
    (found,) = result.models
    assert found.samples.fired == 2 * decisions.made[8:].tolist()
    assert found.fires == {"pre": 24, "middle": int(decisions.made[8:].sum()), "post": 24}
    assert found.latency.itl_fire_ms.count == sum(found.samples.fired) > 0
    assert [stage.expected for stage in found.stages] == [None, 3, None]
    assert found.roofline is not None
    assert result.reads == "text"


def test_its_json_and_table(result: BenchResult) -> None:
    """The expected rate is marked as such."""
    assert msgspec.json.decode(msgspec.json.encode(result), type=BenchResult) == result
    console = Console(width=200, record=True)
    show(result, console)
    assert "~3" in console.export_text()


def test_batches_say_who_fired(result: BenchResult, tmp_path: Path) -> None:
    """Of each step the slots, as many as are counted."""
    (found,) = result.models
    assert [stage.name for stage in coarse_stages(found.stages)] == ["middle"]
    for batch in found.batches:
        fired = [step for step, _slot in firings_of(found.stages[1], batch, 24)]
        sets = [batch.firing_sets[number].fires.get("middle", 0) for number in batch.samples.firing_set[:24]]
        assert [fired.count(step) for step in range(24)] == sets
        assert len(set(sets)) > 1
    draw(tmp_path / "a.svg", found)
    assert "as the data decides" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_rates_that_are_not_as_expected_are_told(bundle: Path) -> None:
    """This model fires for one of its bytes for ever, and another never."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        found = bench([bundle], Load(4, 24, rounds=1), threads=1, text="e" * 40)
    (stage,) = (stage for stage in found.models[0].stages if stage.name == "middle")
    said = f'stage "middle" fired {stage.fires} times in 24 tokens, one in 3 is expected of text'
    assert (1 / 1.5 < 24 / max(stage.fires, 0.5) / 3 < 1.5) != any(said in problem for problem in found.problems)


def test_a_text_that_is_too_short(bundle: Path) -> None:
    """Said before anything is measured."""
    with pytest.raises(ConfigError, match="the text has 9 tokens, expected at least 32: the prompt and the new ones"):
        bench([bundle], Load(8, 24), threads=1, text="too short")


def test_operators_are_weighed_by_what_is_expected(bundle: Path) -> None:
    """A third of 90 tokens fire the middle."""
    found = profile(open_bundle(bundle), "cpu", tokens=90, threads=1)
    rates = {stage.name: stage.fires_per_token for stage in found.stages}
    assert rates == {"pre": 1, "middle": pytest.approx(1 / 3, abs=0.02), "post": 1}


def test_small_chunks_and_batches(model: Model) -> None:
    """Steps that fire all stages are those that are made to."""
    (costs,) = measure([model], rounds=1, past=16)
    assert all(cost.ms > 0 for cost in (*costs.chunks, *costs.batches))


def test_forecasts_say_that_they_expect(model: Model) -> None:
    """The rate of the clock, drawn by chance: a third of the steps of one sequence take longer."""
    times = measure_stage_times(model, Load(8, 48, rounds=1).reading(model, TEXT), 4)
    assert times.stages["middle"].sizes[0] == 1
    found = forecast_batches(model.specs, times, Cases((1, 4)), Requests(8, 8, 50), context=96)
    assert found.expected == {"middle": 3}
    console = Console(width=200, record=True)
    show_forecast(found, console)
    assert "expected, and drawn by chance here: middle once in 3 tokens" in console.export_text()
