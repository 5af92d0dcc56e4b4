"""What a report gathers: figures of manifests, of one measurement and of a text, each where it comes from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from deciding_model import deciding_bundle
from precisions import PrecisionZoo
from report_specimens import NAMES, WORK, small_bundles
from specimens import Zoo
from store import Store

from foveal import ConfigError, FovealError
from foveal.bench.claims.footprint import footprint
from foveal.bench.ratio import paired_ratio
from foveal.bench.result import BenchResult, ModelResult, without_samples
from foveal.bundle import BundleError, open_bundle
from foveal.calibration import evaluate
from foveal.forecast.devices import known_devices
from foveal.forecast.forecast import Work, forecast_rows
from foveal.forecast.shapes import shape_of_bundle
from foveal.report import gather as gathering
from foveal.report.document import Report
from foveal.report.facts import forecasts, latency, memory
from foveal.report.facts.latency import latency_facts
from foveal.report.facts.memory import measure_working
from foveal.report.facts.timeline import timeline_of
from foveal.report.gather import Wanted, gather, with_summary
from foveal.report.lookup import latency_of, loss_of, ratio_of, result_of
from foveal.report.sections.all import sections_of


def test_bundles_of_one_model_are_known_as_such(report: Report) -> None:
    """Precisions of a model are compared with its fp32, other models with each other."""
    assert [(model.name, model.same_as) for model in report.models] == [
        ("small.bundle", "small.bundle"),
        ("small-w8.bundle", "small.bundle"),
        ("plain.bundle", "plain.bundle"),
    ]


def test_stages_are_those_of_the_manifest(report: Report, precise: PrecisionZoo) -> None:
    """Name, stride, parameters and what they read; shares make a whole."""
    manifest = precise["nested"].full.manifest
    found = report.models[0].stages
    assert [(stage.name, stage.stride, stage.parameters, stage.weight_bytes) for stage in found] == [
        (entry.spec.name, entry.spec.stride, entry.spec.parameters, entry.weight_bytes) for entry in manifest.stages
    ]
    assert sum(stage.parameter_share for stage in found) == pytest.approx(1)
    assert [[read.source for read in stage.reads] for stage in found] == [
        [given.source for given in entry.spec.inputs] for entry in manifest.stages
    ]


def test_every_step_is_in_one_group_and_one_phase(report: Report) -> None:
    """Groups by the coarse stages that fire, phases by the position modulo the period."""
    facts, samples = latency_of(report, NAMES[0]), result_of(report, NAMES[0]).samples
    assert facts.period == 6
    assert (
        sum(group.itl_ms.count for group in facts.groups) == sum(phase.count for phase in facts.phases) == len(samples.itl_ns)
    )
    assert sum(group.share for group in facts.groups) == pytest.approx(1)
    assert sum(map(sum, (group.counts for group in facts.groups))) + facts.above == len(samples.itl_ns)
    assert {phase.phase: phase.count for phase in facts.phases} == Counter(token % 6 for token in samples.token)
    for phase in facts.phases:
        fired = {
            stage.name
            for stage in report.models[0].stages
            if stage.stride > 1 and (phase.phase - stage.first_token) % stage.stride == 0
        }
        assert set(facts.groups[phase.group].coarse or ()) == fired


def test_quantiles_of_a_phase_are_of_its_own_steps(report: Report) -> None:
    """The median is a time that was measured."""
    facts, samples = latency_of(report, NAMES[0]), result_of(report, NAMES[0]).samples
    for phase in facts.phases:
        mine = sorted(ns / 1e6 for ns, token in zip(samples.itl_ns, samples.token, strict=True) if token % 6 == phase.phase)
        assert phase.p50_ms in mine
        assert sum(ms <= phase.p50_ms for ms in mine) >= len(mine) / 2
        assert mine[0] <= phase.p10_ms <= phase.p50_ms <= phase.p90_ms <= mine[-1]


def test_a_disturbed_step_does_not_squeeze_the_histogram(report: Report) -> None:
    """It is counted beside it."""
    model = result_of(report, NAMES[0])
    slow = msgspec.structs.replace(model.samples, itl_ns=[*model.samples.itl_ns[:-1], 10**10])
    facts = latency_facts(msgspec.structs.replace(model, samples=slow))
    assert facts.edges_ms[-1] < 1e3
    assert facts.above >= 1


def test_a_model_without_coarse_stages_has_no_phases(report: Report) -> None:
    """And it is said why."""
    facts = latency_of(report, NAMES[2])
    assert (facts.phases, facts.phases_missing) == ([], "all its stages fire at every token, so steps have no phase")
    assert [group.coarse for group in facts.groups] == [[]]


def test_long_periods_are_not_drawn_phase_by_phase(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could tell the bars apart."""
    monkeypatch.setattr(latency, "_MOST_PHASES", 5)
    facts = latency_facts(result_of(report, NAMES[0]))
    assert facts.phases_missing == "it has 6 phases, more than the 5 that are shown"


def test_ratios_are_of_rounds_pair_by_pair(report: Report) -> None:
    """As `foveal bench --compare` has them; of every model against every other."""
    mine, theirs = (result_of(report, name).latency.decode_tokens_per_s_by_round for name in (NAMES[0], NAMES[2]))
    assert ratio_of(report, NAMES[0], NAMES[2]) == paired_ratio(mine, theirs)
    assert len(report.ratios) == 6


def test_memory_is_that_of_the_footprint(report: Report, precise: PrecisionZoo) -> None:
    """Weights and state by arithmetic, up to the context; working memory at three lengths."""
    bundle, facts = precise["nested"].full, report.memory[0]
    assert facts.points[-1].tokens == bundle.manifest.model.context == 96
    for point in facts.points:
        taken = footprint(bundle, "cpu", point.tokens)
        assert (point.weights, point.caches, point.rows) == (taken.weights, taken.caches, taken.rows)
        assert (point.state, point.held) == (taken.caches + taken.rows, taken.weights + taken.caches + taken.rows)
    assert [point.tokens for point in facts.points if point.working is not None] == [24, 48, 96]
    assert facts.points[-1].working == 7_000_000 - facts.points[-1].state
    assert report.needs[0].memory == facts.points[-1].weights + 7_000_000


def test_working_memory_is_of_a_process(precise: PrecisionZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh one that reads the tokens; where none can be run it is said why."""
    monkeypatch.setattr(memory, "measured_lengths", lambda _context: [24])
    found, missing = measure_working(precise["vanilla"].full, 1, 8, False, lambda _tokens: None)
    assert missing is None
    assert found[24] > 0
    nowhere = msgspec.structs.replace(precise["vanilla"].full.manifest)
    bundle = type(precise["vanilla"].full)(Path("nowhere"), nowhere)
    found, missing = measure_working(bundle, 1, 8, None, lambda _tokens: None)
    assert found == {}
    assert missing is not None
    assert "nowhere is not a bundle" in missing


def test_losses_are_those_of_evaluate(report: Report, precise: PrecisionZoo) -> None:
    """Each precision against the fp32 bundle of its model."""
    nested = precise["nested"]
    quality = evaluate(nested.full, [nested.text], threads=1, limit=4)
    loss = loss_of(report, NAMES[0])
    assert loss is not None
    assert loss.bits_per_byte == pytest.approx(quality.bits_per_byte, abs=1e-9)
    assert [each.reference for each in report.losses] == [None, "small.bundle", None]
    assert loss.ms_per_token == pytest.approx(1e3 / result_of(report, NAMES[0]).latency.decode_tokens_per_s)


def test_shares_of_time_are_of_the_engines(report: Report) -> None:
    """Of each model they make a whole."""
    for model in report.measured.models:
        assert sum(report.time_shares[model.name].values()) == pytest.approx(1)
        total = sum(stage.ms_per_token for stage in model.stages)
        assert report.time_shares[model.name][model.stages[0].name] == pytest.approx(model.stages[0].ms_per_token / total)


def test_commands_are_those_that_give_the_figures(report: Report) -> None:
    """On the threads that were used; losses against the bundles that they were measured against."""
    assert "--prompt-tokens 8 --new-tokens 32 --rounds 2 --threads 1" in report.commands.measurement
    assert [("--against" in command, "--limit 4" in command) for command in report.commands.losses] == [
        (False, True),
        (True, True),
        (False, True),
    ]
    assert len(report.commands.describe) == 3


def test_json_gives_back_the_report(report: Report) -> None:
    """All of it, zeros, falses and nulls included, and the summary follows from the rest."""
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    assert with_summary(msgspec.structs.replace(report, summary=[])) == report


def test_forecasts_are_those_of_foveal_forecast(report: Report, precise: PrecisionZoo) -> None:
    """Of each bundle on every known device, behind half of the context; always called forecasts."""
    devices = known_devices()
    assert [(row.name, row.device) for row in report.forecasts] == [
        (name, device.title) for name in NAMES for device in devices.values()
    ]
    shapes = [shape_of_bundle(precise["nested"].full, on_gpu) for on_gpu in (False, True)]
    rows = forecast_rows(shapes, devices, Work(context=96, prompt_tokens=48))
    for found, row in zip(report.forecasts, rows, strict=False):
        assert (found.tokens_per_s, found.memory, found.fits) == (row.tokens_per_s, row.memory.total, row.memory.fits)
    section = next(section for section in sections_of(report) if section.name == "devices")
    assert [table.title for table in section.shown][1] == "Forecast, not measured: tokens/s of one sequence"
    assert "By forecast, which is no measurement, it fits" in report.summary[-1].answer


def test_a_bundle_that_can_not_be_forecast(
    precise: PrecisionZoo, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is there, and it is said why."""

    def refuse(*_: object) -> None:
        raise ConfigError("such engines were not measured")

    monkeypatch.setattr(forecasts, "forecast_rows", refuse)
    found = gather(small_bundles(precise, tmp_path), Wanted(work=WORK, measured=saved(tmp_path, report.measured)))
    assert found.forecasts_missing == dict.fromkeys(NAMES, "such engines were not measured")
    assert "There is no forecast for devices: such engines were not measured." in found.summary[-1].answer
    section = next(section for section in sections_of(found) if section.name == "devices")
    assert [table.title for table in section.shown] == ["What it needs"]
    assert (section.missing or "").startswith("No forecast of small: such engines were not measured; small-w8: such engines")


def saved(directory: Path, result: BenchResult) -> Path:
    """A file as `foveal bench --save` writes it."""
    (directory / "saved.json").write_bytes(msgspec.json.encode(result))
    return directory / "saved.json"


def test_saved_timings_are_taken_as_they_are(
    report: Report, precise: PrecisionZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is timed, nor memory measured; the command is that of the measurement."""
    monkeypatch.setattr(gathering, "bench", None)
    monkeypatch.setattr(gathering, "measure_working", None)
    result = msgspec.structs.replace(report.measured, command="foveal bench then")
    found = gather(small_bundles(precise, tmp_path), Wanted(work=WORK, measured=saved(tmp_path, result)))
    assert found.measured == result
    assert (found.was_saved, found.commands.measurement, found.losses) == (True, "foveal bench then", [])
    assert found.memory[0].missing == "the timings were read from a file, so no process was run"
    assert found.losses_missing == "no text was given; give one that the model has not seen: --text F"


def test_timings_of_before_firings_were_kept(report: Report) -> None:
    """Strides say what fired, and tell the same as what was kept."""
    model = result_of(report, NAMES[0])
    old = msgspec.structs.replace(model.samples, fired=[], stages=[], stage_set=[])
    assert latency_facts(msgspec.structs.replace(model, samples=old)) == latency_facts(model)


def test_timings_without_samples(report: Report) -> None:
    """There is nothing to count, and it is said; all else is there."""
    bare = without_samples(report.measured)
    found = msgspec.structs.replace(report, measured=bare, latencies=[latency_facts(model) for model in bare.models])
    section = next(section for section in sections_of(found) if section.name == "latency")
    assert section.pictures == ()
    assert section.missing is not None
    assert section.missing.startswith("By what fires: the measurement was saved without its samples; measure again")


def test_steps_by_what_the_data_decides(report: Report) -> None:
    """What was kept of each step says it; of an older measurement only that something fired."""
    model = result_of(report, NAMES[0])
    stages = [msgspec.structs.replace(stage, expected=2.5) if stage.stride > 1 else stage for stage in model.stages]
    decided = msgspec.structs.replace(model, stages=stages)
    facts = latency_facts(decided)
    assert [group.coarse for group in facts.groups] == [group.coarse for group in latency_facts(model).groups]
    assert facts.phases_missing == "the data decides when its stages fire, so steps have no phase"
    old = msgspec.structs.replace(model.samples, stages=[], stage_set=[])
    groups = latency_facts(msgspec.structs.replace(decided, samples=old)).groups
    assert sorted((group.coarse is None, group.itl_ms.count) for group in groups) == [
        (False, model.samples.fired.count(False)),
        (True, model.samples.fired.count(True)),
    ]


def without(model: ModelResult, **changes: object) -> ModelResult:
    """The figures of a model that is another one."""
    return msgspec.structs.replace(model, **changes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: {"schema_version": 99}, r"holds a result of version 99, this foveal reads \d+ and older"),
        (lambda r: {"models": r.models[:2]}, r"has no figures of plain.bundle, only of: small.bundle, small-w8.bundle"),
        (
            lambda r: {"models": [without(r.models[0], precision="w4"), *r.models[1:]]},
            r'figures of another small.bundle: "1@1 0@2 1@6 1@2 0@1", w4, .*the bundle is "1@1 0@2 1@6 1@2 0@1", fp32',
        ),
    ],
)
def test_saved_timings_of_others_are_refused(
    change: object, sentence: str, report: Report, precise: PrecisionZoo, tmp_path: Path
) -> None:
    """They would stand beside figures of these."""
    path = saved(tmp_path, msgspec.structs.replace(report.measured, **change(report.measured)))  # type: ignore[operator]
    with pytest.raises(ConfigError, match=sentence):
        gather(small_bundles(precise, tmp_path), Wanted(work=WORK, measured=path))


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, r"can't be read \(No such file"), (b"{}", "holds no benchmark's result")]
)
def test_saved_timings_that_are_none(content: bytes | None, sentence: str, precise: PrecisionZoo, tmp_path: Path) -> None:
    """It is said how to write some."""
    if content is not None:
        (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(ConfigError, match=f"{sentence}.*foveal bench BUNDLE... --save F"):
        gather(small_bundles(precise, tmp_path), Wanted(work=WORK, measured=tmp_path / "f.json"))


def test_what_can_not_be_reported_on(zoo: Zoo, tmp_path: Path) -> None:
    """Nothing, what is no bundle, two of one name, and engines that are not there."""
    path = zoo["vanilla"].bundle.path
    with pytest.raises(ConfigError, match="nothing to report on: name at least one bundle"):
        gather([], Wanted(work=WORK))
    with pytest.raises(BundleError, match="is not a bundle"):
        gather([tmp_path], Wanted(work=WORK))
    with pytest.raises(ConfigError, match=f"2 bundles are called {path.name}, and figures go by name; rename all but one"):
        gather([path, path], Wanted(work=WORK))
    with pytest.raises(ConfigError, match="has no engines for tensorrt, only for: cpu; build them: foveal build"):
        gather([path], Wanted(work=WORK, target="tensorrt"))


@pytest.mark.parametrize(("content", "says"), [(None, "no text at"), ("", "the text is empty"), (" \n", "the text is empty")])
def test_texts_are_read_before_anything_is_measured(
    content: str | None, says: str, precise: PrecisionZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip of the pen should not take minutes to be found."""
    monkeypatch.setattr("foveal.report.gather.bench", pytest.fail)
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_text(content)
    with pytest.raises(FovealError, match=says):
        gather([precise["nested"].full.path], Wanted(work=WORK, texts=[text]))


def test_the_timeline_of_strides(precise: PrecisionZoo) -> None:
    """Two periods, but 16 tokens at least."""
    found = timeline_of(precise["nested"].full, "cpu", 1, None, None)
    assert (found.tokens, found.is_of_text, found.missing) == (16, False, None)
    for entry in precise["nested"].full.manifest.stages:
        assert found.fires[entry.spec.name] == [token for token in range(16) if entry.spec.firings(token, 1)]


def test_the_timeline_of_what_the_data_decides(store: Store) -> None:
    """Without a text it is said what is missing; with one the stages fire as they did in it."""
    bundle = open_bundle(deciding_bundle(store))
    found = timeline_of(bundle, "cpu", 1, None, None)
    decided = [entry.spec.name for entry in bundle.manifest.stages if entry.spec.clock is not None]
    assert found.missing is not None
    assert found.missing.startswith(f"the data decides when {', '.join(decided)} fire: give a text (--text F)")
    assert not set(decided) & set(found.fires)
    found = timeline_of(bundle, "cpu", 1, None, "the sea and a ship in a storm")
    assert (found.tokens, found.is_of_text, found.missing) == (29, True, None)
    assert all(0 < len(found.fires[name]) < 29 for name in decided)
