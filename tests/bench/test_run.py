"""A benchmark's result: complete, honest about itself, and readable. No test here depends on a time."""

from __future__ import annotations

import msgspec
import pytest
from rich.console import Console
from specimens import Zoo

from foveal import CapacityError, ConfigError
from foveal.bench import bandwidth
from foveal.bench.decode import Load, host_ns_per_step
from foveal.bench.environment import peak_resident_bytes, read_environment
from foveal.bench.random_models import RandomModels
from foveal.bench.result import BenchResult
from foveal.bench.run import bench
from foveal.bench.show import show
from foveal.runtime.model import load


@pytest.fixture(scope="module")
def result(zoo: Zoo) -> BenchResult:
    """Two bundles and an eager model in one run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        sizes = RandomModels(dim=16, heads=2, ff_dim=32, vocab_size=20, context=48)
        bundles = [zoo["nested"].bundle.path, zoo["vanilla"].bundle.path]
        return bench(bundles, Load(16, 32, rounds=2), threads=1, eager=sizes.eager(["1@1 1@4 1@1"]), command="test")


def test_samples_and_firings_are_all_there(result: BenchResult) -> None:
    """Raw nanoseconds of every step; a stage of stride 8 fires in an eighth of them."""
    nested, vanilla, eager = result.models
    assert [len(model.samples.itl_ns) for model in result.models] == [64, 64, 64]
    assert nested.fires == {"1.pre": 32, "2.pre": 16, "8": 4, "2.post": 16, "1.post": 32}
    assert vanilla.fires == {"1": 32}
    assert (nested.latency.itl_fire_ms.count, nested.latency.itl_nofire_ms.count) == (32, 32)
    assert (vanilla.latency.itl_fire_ms.count, vanilla.latency.itl_nofire_ms.count) == (0, 64)
    assert eager.runtime == "PyTorch eager"
    assert eager.latency.itl_fire_ms.count == 16


def test_all_models_have_as_many_threads(result: BenchResult, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch too: those asked for, or those that decode the first bundle fastest."""
    assert [model.threads for model in result.models] == [1, 1, 1]
    monkeypatch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
    monkeypatch.setattr("foveal.runtime.model._fastest_thread_count", lambda bundle, _: 1 + ("nested" in bundle.path.name))
    sizes = RandomModels(dim=16, heads=2, ff_dim=32, vocab_size=20, context=48)
    bundles = [zoo[name].bundle.path for name in ("nested", "vanilla")]
    found = bench(bundles, Load(4, 8, rounds=1), eager=sizes.eager(["1@1"]))
    assert {model.threads for model in found.models} == {found.models[0].threads}


def test_nothing_was_copied_and_the_memory_is_split(result: BenchResult) -> None:
    """Weights, state, and the peak of a process of its own."""
    nested = result.models[0]
    assert nested.copied_bytes_per_step == 0
    assert nested.memory is not None
    assert nested.memory.peak_bytes is not None
    assert nested.memory.peak_bytes > nested.memory.weights_bytes
    assert nested.roofline is not None
    assert nested.roofline.memory_bandwidth_gb_s == 20.0


def test_bytes_read_per_token(zoo: Zoo, result: BenchResult) -> None:
    """Weights by firing rate; the embedding and position tables, read row by row, do not count."""
    (entry,) = zoo["vanilla"].bundle.manifest.stages
    vanilla = result.models[1]
    assert entry.table_bytes == (41 + 96) * 24 * 4
    assert vanilla.roofline is not None
    assert vanilla.roofline.weight_bytes_per_token == entry.weight_bytes - entry.table_bytes


def test_too_few_steps_make_a_run_incomplete(result: BenchResult) -> None:
    """It says why."""
    assert result.status == "incomplete"
    assert any("64 decode steps are too few for p99; use at least 1000" in problem for problem in result.problems)


def test_the_result_survives_json(result: BenchResult) -> None:
    """One schema for all, zeros and nulls kept."""
    assert msgspec.json.decode(msgspec.json.encode(result), type=BenchResult) == result


def test_the_table_names_every_model(result: BenchResult) -> None:
    """And its stages."""
    console = Console(width=200, record=True)
    show(result, console)
    text = console.export_text()
    for part in (
        "nested",
        "vanilla",
        "PyTorch eager",
        "2@1 1@2 2@8 1@2 2@1",
        "p50 of steps in which a coarse stage runs",
        "share of memory bandwidth",
    ):
        assert part in text


def test_a_load_that_does_not_fit(zoo: Zoo) -> None:
    """Said before anything is run, by the names of what was asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        with pytest.raises(CapacityError, match="has a context of 96 tokens, got a prompt of 200 and 100 new tokens"):
            bench([zoo["vanilla"].bundle.path], Load(200, 100), threads=1)


@pytest.mark.parametrize("name", ["prompt_tokens", "new_tokens", "rounds"])
def test_a_load_of_nothing(name: str) -> None:
    """There would be no figures."""
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        Load(**{"prompt_tokens": 1, "new_tokens": 1, "rounds": 1, name: 0})


def test_the_hosts_side_runs_no_engine(zoo: Zoo) -> None:
    """Idle engines leave the logits unwritten, and the loaded model as it was."""
    model = load(zoo["vanilla"].bundle, threads=1)
    assert host_ns_per_step(model, Load(4, 10)) > 0
    assert hasattr(model.host_engines[0].session, "get_inputs")


def test_the_machine_is_described() -> None:
    """What a figure means without it, nobody knows."""
    environment = read_environment()
    assert environment.cpus_usable >= 1
    assert environment.packages["onnxruntime"]
    assert peak_resident_bytes() > 1 << 20


def test_the_bandwidth_is_plausible() -> None:
    """Measured once; between a floppy disk and a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth, "_BYTES", 32 << 20)
        with bandwidth.MemoryReader() as memory:
            assert 0.1 < memory.gb_s() < 5000
