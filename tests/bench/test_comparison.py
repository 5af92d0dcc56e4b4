"""One run's models against its first, raw samples, and two runs against each other. No test depends on a time."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from rich.console import Console
from specimens import Zoo

from foveal import ConfigError
from foveal.bench import bandwidth
from foveal.bench.batch_rounds import BatchLoad
from foveal.bench.comparison import compare
from foveal.bench.decode import Load
from foveal.bench.difference import Difference, difference
from foveal.bench.random_models import RandomModels
from foveal.bench.result import BenchResult, read_result, without_samples
from foveal.bench.run import bench
from foveal.bench.samples import BatchStep, Prompt, Run, Sample, Token, json_schema, save_samples
from foveal.bench.saved import read_saved
from foveal.bench.show import show
from foveal.bench.show_difference import show_difference

DOCS = Path(__file__).parent.parent.parent / "docs"
ROUNDS, PROMPT, NEW = 3, 16, 16


@pytest.fixture(scope="module")
def result(zoo: Zoo) -> BenchResult:
    """Two bundles, a batch of each, and an eager model, compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        patch.setattr("foveal.bench.run._peak_bytes", lambda _model, _work: 1)
        sizes = RandomModels(dim=16, heads=2, ff_dim=32, vocab_size=20, context=48)
        bundles = [zoo["vanilla"].bundle.path, zoo["nested"].bundle.path]
        return bench(
            bundles,
            Load(PROMPT, NEW, ROUNDS),
            threads=1,
            eager=sizes.eager(["1@1 1@4 1@1"]),
            batch=BatchLoad(2, ("aligned",)),
            comparing=True,
        )


def faster(result: BenchResult, times: float, name: str = "vanilla") -> BenchResult:
    """The same with other rates of a model."""
    rates = [100.0 * times, 101.0 * times, 99.0 * times]
    models = [
        msgspec.structs.replace(one, latency=msgspec.structs.replace(one.latency, decode_tokens_per_s_by_round=rates))
        if one.name == name
        else one
        for one in result.models
    ]
    return msgspec.structs.replace(result, models=models)


def changed(found: Difference) -> list[tuple[str, str]]:
    """What changed beyond noise."""
    return [(one.whose, one.figure) for one in found.changed]


def test_every_model_is_compared_with_the_first(result: BenchResult) -> None:
    """In three metrics, by rounds of one number."""
    names = [model.name for model in result.models]
    assert [(one.name, one.than) for one in result.comparisons[::3]] == [(name, names[0]) for name in names[1:]]
    assert {one.metric for one in result.comparisons} == {"decode_tokens_per_s", "prefill_tokens_per_s", "itl_p50_ms"}
    assert {one.ratio.rounds for one in result.comparisons} == {ROUNDS}
    assert compare(result.models[:1]) == []
    doubled = compare(faster(faster(result, 2), 1, "nested").models[:2])
    assert doubled[0].ratio.ratio == pytest.approx(0.5)


def test_the_table_has_ratios_and_intervals(result: BenchResult) -> None:
    """And what they are of."""
    console = Console(width=200, record=True)
    show(faster(faster(result, 2), 1, "nested"), console)
    text = console.export_text()
    assert "times vanilla, with 95 % intervals from 3 rounds that took turns" in text
    assert "decode, tokens/s" in text.split("times vanilla")[1]


def test_samples_are_a_line_for_each_token(result: BenchResult, tmp_path: Path) -> None:
    """Each line is one of the schema; steps count from the prompt's end in every round, and fire by the schedule."""
    save_samples(tmp_path / "s.jsonl", result)
    lines = (tmp_path / "s.jsonl").read_bytes().splitlines()
    found = [msgspec.json.decode(line, type=Sample) for line in lines]
    assert isinstance(found[0], Run)
    assert sum(isinstance(one, Prompt) for one in found) == 3 * ROUNDS
    tokens = [one for one in found if isinstance(one, Token)]
    assert len(tokens) == 3 * ROUNDS * NEW
    nested = [one for one in tokens if one.bundle == "nested"]
    assert [one.round for one in nested] == [number for number in range(1, ROUNDS + 1) for _ in range(NEW)]
    assert [one.step for one in nested] == list(range(PROMPT, PROMPT + NEW)) * ROUNDS
    assert all(one.phase == one.step % 8 and ("8" in one.fired) == (one.phase == 0) for one in nested)
    assert all(one.host_ns > 0 for one in tokens)
    assert {one.fired for one in tokens if one.bundle not in ("nested", "vanilla")} == {
        ("1.pre", "1.post"),
        ("1.pre", "4", "1.post"),
    }
    steps = [one for one in found if isinstance(one, BatchStep)]
    assert len(steps) == 2 * ROUNDS * NEW
    assert {one.fired.get("1") for one in steps if one.bundle == "vanilla"} == {2}


def test_the_schema_of_a_line_is_in_the_docs(result: BenchResult, tmp_path: Path) -> None:
    """As the types say it; every line holds to it."""
    schema = (DOCS / "bench-sample.schema.json").read_bytes()
    assert schema == json_schema() + b"\n", "write it anew: python -m foveal.bench.samples > docs/bench-sample.schema.json"
    save_samples(tmp_path / "s.jsonl", result)
    validator = jsonschema.Draft202012Validator(json.loads(schema))
    lines = (tmp_path / "s.jsonl").read_bytes().splitlines()
    for line in [lines[0], *lines[1 :: len(lines) // 50]]:
        validator.validate(json.loads(line))
    assert list(validator.iter_errors({"type": "token", "bundle": "x"}))


def test_a_result_without_samples_keeps_its_figures(result: BenchResult, tmp_path: Path) -> None:
    """And is small."""
    small = without_samples(result)
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(small))
    assert read_result(tmp_path / "a.json") == small
    assert difference(result, small).changed == []
    assert [model.latency for model in small.models] == [model.latency for model in result.models]
    assert len(msgspec.json.encode(small)) < 40_000


def test_nothing_changed_from_a_result_to_itself(result: BenchResult) -> None:
    """Nothing is missing, nothing other."""
    found = difference(result, result)
    assert (found.changed, found.missing, found.new, found.environment) == ([], [], [], [])
    assert {one.verdict for one in found.changes} == {"same", "not judged"}


def test_a_change_beyond_noise_is_told_with_its_interval(result: BenchResult) -> None:
    """One within the least that counts is not."""
    found = difference(faster(result, 1), faster(result, 1.5))
    assert changed(found) == [("vanilla", "decode")]
    (one,) = found.changed
    assert (one.before, one.after) == (100, 150)
    assert one.ratio is not None
    assert one.ratio.low is not None
    assert one.ratio.high is not None
    assert 1.4 < one.ratio.low < one.ratio.ratio < one.ratio.high < 1.6
    assert difference(faster(result, 1), faster(result, 1.04)).changed == []
    assert changed(difference(faster(result, 1), faster(result, 1.04), least=0.01)) == [("vanilla", "decode")]


def test_what_is_counted_changes_by_anything(result: BenchResult) -> None:
    """Bytes have no noise."""
    vanilla, *others = result.models
    assert vanilla.memory is not None
    memory = msgspec.structs.replace(vanilla.memory, weights_bytes=vanilla.memory.weights_bytes + 1)
    after = msgspec.structs.replace(result, models=[msgspec.structs.replace(vanilla, memory=memory), *others])
    assert changed(difference(result, after)) == [("vanilla", "weights")]


def test_what_is_missing_or_other_is_named(result: BenchResult) -> None:
    """Figures, models, the machine and how it was run; another load is refused."""
    vanilla, nested, _eager = result.models
    environment = msgspec.structs.replace(result.environment, cpu="another", packages={"onnxruntime": "9", "another": "1"})
    after = msgspec.structs.replace(
        result,
        rounds=9,
        environment=environment,
        models=[msgspec.structs.replace(vanilla, memory=None, threads=7), nested],
    )
    found = difference(result, after)
    assert {"vanilla, weights", "1@1 1@4 1@1 (PyTorch), decode"} <= set(found.missing)
    others = {one.what: (one.before, one.after) for one in found.environment}
    assert others["cpu"] == (result.environment.cpu, "another")
    assert others["onnxruntime"][1] == "9"
    assert others["another"] == (None, "1")
    assert others["vanilla, threads"] == (1, 7)
    assert others["rounds"] == (ROUNDS, 9)
    with pytest.raises(ConfigError, match="different loads .prompt tokens 16 and 17., so that no figure means the same"):
        difference(result, msgspec.structs.replace(result, prompt_tokens=17))


def test_differences_are_shown(result: BenchResult) -> None:
    """What changed, how many did not, and what is missing."""
    console = Console(width=200, record=True)
    after = msgspec.structs.replace(faster(result, 1.5), models=faster(result, 1.5).models[:2])
    show_difference(difference(faster(result, 1), after), console)
    text = console.export_text()
    for part in ("vanilla", "1.50 (1.4", "1 figures changed beyond noise", "missing: 1@1 1@4 1@1 (PyTorch), decode"):
        assert part in text


def test_files_that_are_no_results(tmp_path: Path) -> None:
    """One line, which says what would be one."""
    file = tmp_path / "a.json"
    with pytest.raises(ConfigError, match="can't be read .*; write one: foveal bench BUNDLE... --save F"):
        read_saved(file)
    file.write_text('{"models": 3}')
    with pytest.raises(ConfigError, match="holds no benchmark's result"):
        read_saved(file)
    file.write_text('{"points": [], "schema_version": 1}')
    with pytest.raises(ConfigError, match="holds no sweep's result"):
        read_saved(file)


@pytest.mark.parametrize("rounds", [[], [100.0, 101.0], [100.0, 0.0, 99.0], [100.0, -1.0, 99.0]])
@pytest.mark.parametrize("figure", ["decode_tokens_per_s_by_round", "prefill_tokens_per_s_by_round", "itl_p50_ms_by_round"])
def test_rounds_that_were_altered_are_refused(figure: str, rounds: list[float], result: BenchResult, tmp_path: Path) -> None:
    """Ratios pair rounds and take logarithms; earlier versions kept none of the prompt and of the steps."""
    if not rounds and not figure.startswith("decode"):
        return
    first, *others = result.models
    altered = msgspec.structs.replace(first, latency=msgspec.structs.replace(first.latency, **{figure: rounds}))
    path = tmp_path / "altered.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(result, models=[altered, *others])))
    with pytest.raises(ConfigError, match=f"was altered: {first.name}: .*, expected 3 numbers above 0; measure it again"):
        read_saved(path)


def test_two_models_of_one_name_can_not_be_told_apart(result: BenchResult) -> None:
    """Figures are matched by name: neither is dropped in silence."""
    twice = msgspec.structs.replace(result, models=[*result.models, result.models[0]])
    with pytest.raises(ConfigError, match=f"two of what was measured are called {result.models[0].name}.*rename one"):
        difference(twice, result)
