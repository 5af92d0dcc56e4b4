"""What a benchmark says of a batch: every step of every round, by policy and by what fires in it. No test depends on a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from programs import CAPACITY, Program, host_engines, hourglass, info, resident_engines
from rich.console import Console
from specimens import Zoo

from foveal import CapacityError, ConfigError
from foveal.bench import bandwidth
from foveal.bench.batch_picture import coarse_stages, draw, firings_of, model_of, step_ms
from foveal.bench.batch_result import BatchResult, batch_result
from foveal.bench.batch_rounds import BatchLoad, BatchRounds, BatchSamples, checked_policies, tokens_until_in_phase
from foveal.bench.decode import Load
from foveal.bench.result import BenchResult
from foveal.bench.run import bench
from foveal.bench.show import show
from foveal.contract import Limits
from foveal.runtime.batches.batch import Batch
from foveal.runtime.batches.phases import Policy
from foveal.runtime.decoder_factory import Engines
from foveal.runtime.resident import ResidentEngines


def in_device_memory(program: Program) -> ResidentEngines:
    """With room for all slots."""
    return resident_engines(program, limits=Limits(batch=8, capacity=CAPACITY, prefill=16))


FORMS = pytest.mark.parametrize("engines_of", [host_engines, in_device_memory], ids=["host", "device"])


def rounds_of(policy: Policy, engines_of: Callable[[Program], Engines] = host_engines) -> BatchRounds:
    """Two rounds of strides 1, 2 and 4, after a warm-up."""
    batch = Batch(engines_of(hourglass(2, 2)), info(), 8, policy=policy, prefill_seconds=3600.0)
    rounds = BatchRounds(batch, Load(9, 12, seed=3))
    rounds.run(is_warm_up=True)
    rounds.run()
    rounds.run()
    return rounds


@pytest.fixture(scope="module")
def result(zoo: Zoo) -> BenchResult:
    """A bundle and a batch of it by both policies, in one run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        load = Load(8, 16, rounds=2)
        return bench([zoo["nested"].bundle.path], load, threads=1, batch=BatchLoad(4), command="test")


@FORMS
def test_staggered_every_step_fires_the_same(engines_of: Callable[[Program], Engines]) -> None:
    """A quarter of the slots of stride 4, a half of those of stride 2."""
    samples = rounds_of("staggered", engines_of).samples
    assert samples.fires == 24 * [{"1.pre": 8, "k.pre": 4, "deep": 2, "k.post": 4, "1.post": 8}]


@FORMS
def test_aligned_all_fire_together(engines_of: Callable[[Program], Engines]) -> None:
    """In every second step, in every fourth the deepest too."""
    samples = rounds_of("aligned", engines_of).samples
    assert [step["deep"] for step in samples.fires] == 6 * [0, 0, 0, 8]
    assert [step["k.post"] for step in samples.fires] == 12 * [0, 8]


@pytest.mark.parametrize("policy", ["staggered", "aligned"])
def test_rounds_begin_alike(policy: Policy) -> None:
    """All slots decode in all measured steps, from the same positions: step for step the rounds can be compared."""
    rounds = rounds_of(policy)
    first = rounds.samples.positions
    rounds.run()
    assert rounds.samples.positions == first
    assert len(first) == 8
    assert all(9 <= position < 9 + 4 for position in first)
    assert rounds.batch.free_slots == 8
    assert len(rounds.samples.itl_ns) == 36


def test_steps_are_split_by_what_fires() -> None:
    """Two rounds of three steps with known times: figures by firing set, and of each step its median over rounds."""
    (coarse, fine), pre = hourglass(2, 2)[1:3], hourglass(2, 2)[0]
    idle, fires = {"1.pre": 2, "k.pre": 0, "deep": 0}, {"1.pre": 2, "k.pre": 2, "deep": 0}
    kept = BatchSamples(
        [10_000_000, 2_000_000, 3_000_000, 12_000_000, 2_000_000, 5_000_000], [fires, idle, idle] * 2, [100.0, 80.0]
    )
    found = batch_result("aligned", 2, kept, [pre, coarse, fine], (45.0, 180.0), None, 7)
    assert [(one.fires, one.steps, one.itl_ms.p50) for one in found.firing_sets] == [
        ({"1.pre": 2, "k.pre": 2}, 2, 10.0),
        ({"1.pre": 2}, 4, 2.0),
    ]
    assert found.samples.firing_set == [0, 1, 1, 0, 1, 1]
    assert (found.itl_fire_ms.count, found.itl_nofire_ms.count) == (2, 4)
    assert (found.itl_of_rounds_ms.min, found.itl_of_rounds_ms.p50, found.itl_of_rounds_ms.max) == (2.0, 4.0, 11.0)
    assert (found.tokens_per_s, found.times_one, found.share_of_prefill) == (90.0, 2.0, 0.5)


def test_a_batch_stands_beside_one_sequence(result: BenchResult) -> None:
    """By policy, with raw samples; the rates are of the same run."""
    (nested,) = result.models
    assert [(batch.policy, batch.slots) for batch in nested.batches] == [("staggered", 4), ("aligned", 4)]
    for batch in nested.batches:
        assert len(batch.samples.itl_ns) == len(batch.samples.firing_set) == 32
        assert batch.copied_bytes_per_step > 0
        assert batch.host_us_per_step
        assert batch.times_one == pytest.approx(batch.tokens_per_s / nested.latency.decode_tokens_per_s)
        assert batch.share_of_prefill == pytest.approx(batch.tokens_per_s / nested.latency.prefill_tokens_per_s)
    assert result.batch == 4
    assert any("nested" in problem and "4 staggered: 32 steps are too few for p99" in problem for problem in result.problems)


def test_it_survives_json(result: BenchResult) -> None:
    """Batches too."""
    assert msgspec.json.decode(msgspec.json.encode(result), type=BenchResult) == result


def test_results_saved_before_there_were_batches_can_be_read(result: BenchResult) -> None:
    """Schema version 2."""
    old = json.loads(msgspec.json.encode(result))
    old["schema_version"] = 2
    for model in old["models"]:
        del model["batches"]
        for stage in model["stages"]:
            del stage["delay"]
    read = msgspec.json.decode(json.dumps(old), type=BenchResult)
    assert (read.schema_version, read.models[0].batches) == (2, [])


def test_the_table_has_a_column_for_each_policy(result: BenchResult) -> None:
    """And says of each for how many sequences which stage fires."""
    console = Console(width=200, record=True)
    show(result, console)
    text = console.export_text()
    for part in (
        "4 staggered",
        "4 aligned",
        "share of the rate of prefill",
        "nested: steps by how many sequences fire a stage",
    ):
        assert part in text


def test_every_set_is_of_steps(result: BenchResult) -> None:
    """They add up to all."""
    for batch in result.models[0].batches:
        assert sum(one.steps for one in batch.firing_sets) == batch.itl_ms.count
        assert _deep(batch) == ({"staggered": {0, 1}, "aligned": {0, 4}}[batch.policy])


def _deep(batch: BatchResult) -> set[int]:
    return {one.fires.get("8", 0) for one in batch.firing_sets}


def test_the_picture_shows_what_was_measured(result: BenchResult, tmp_path: Path) -> None:
    """Which slots fire in which step, by the positions of the slots, and the same bytes for the same result."""
    nested = model_of(result, "nested")
    coarse = coarse_stages(nested.stages)
    assert [stage.stride for stage in coarse] == [2, 8]
    for batch in nested.batches:
        fired = [step for step, _slot in firings_of(coarse[-1], batch, 16)]
        sets = [batch.firing_sets[number].fires.get("8", 0) for number in batch.samples.firing_set[:16]]
        assert [fired.count(step) for step in range(16)] == sets
        assert len(step_ms(batch)) == 16
    draw(tmp_path / "a.svg", nested)
    draw(tmp_path / "b.svg", nested)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "staggered, 4 sequences" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_a_picture_of_no_batch(result: BenchResult, tmp_path: Path) -> None:
    """Said with the command that measures one."""
    with pytest.raises(ConfigError, match='no batch of "nested" was measured; measure some: foveal bench BUNDLE --batch 16'):
        draw(tmp_path / "a.svg", msgspec.structs.replace(result.models[0], batches=[]))
    with pytest.raises(ConfigError, match='no model "other" was measured, only: nested'):
        model_of(result, "other")


def test_no_room_until_all_are_in_phase(zoo: Zoo) -> None:
    """A context that holds prompt and new tokens, but not the steps until all decode."""
    with pytest.raises(
        CapacityError, match=r"a context of 96 tokens; a staggered batch takes up to 104: 40 of the prompt, 56 new"
    ):
        bench([zoo["nested"].bundle.path], Load(40, 56), threads=1, batch=BatchLoad(2))


@pytest.mark.parametrize(
    ("policies", "sentence"),
    [
        ([], "got no policy, expected some of: staggered, aligned"),
        (["random"], 'got policy "random", expected one of: staggered, aligned'),
        (["aligned", "aligned"], "name each once"),
    ],
)
def test_policies_that_there_are_not(policies: list[str], sentence: str) -> None:
    """Each its own sentence."""
    with pytest.raises(ConfigError, match=sentence):
        checked_policies(policies)


def test_a_batch_of_one() -> None:
    """Has no policy."""
    with pytest.raises(ConfigError, match="a batch is of at least 2 sequences, got 1"):
        BatchLoad(1)


def test_random_models_have_room_until_all_are_in_phase() -> None:
    """The period of all of them."""
    assert tokens_until_in_phase(["2@1 8@4 2@1", "1@1 1@3 1@1"]) == 12
