"""`foveal forecast`: what it prints of hierarchies, bundles, devices and searches."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from forecasting import device
from specimens import Zoo
from typer.testing import CliRunner

from foveal.cli import app
from foveal.errors import ConfigError, FovealError
from foveal.forecast.devices import MeasuredDevice, known_devices
from foveal.forecast.forecast import Forecast

RUNNER = CliRunner()


def run(*arguments: str) -> str:
    """What a command prints."""
    done = RUNNER.invoke(app, ["forecast", *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def rows(*arguments: str) -> list[Forecast]:
    """The same as data."""
    return msgspec.json.decode(run(*arguments, "--json"), type=list[Forecast])


def refused(*arguments: str) -> str:
    """Why a command is."""
    done = RUNNER.invoke(app, ["forecast", *arguments])
    assert isinstance(done.exception, FovealError), done.output
    return str(done.exception)


def test_a_hierarchy_on_all_devices() -> None:
    """A line for each, under a head that says that nothing was measured."""
    text = run("2@1 8@4 2@1")
    assert text.startswith("FORECAST, not measured: 2@1 8@4 2@1, fp32, 38,466,560 parameters, 6 layer-equivalents")
    for name in known_devices():
        assert f" {name} " in text
    assert "unknown" in text  # joules of an Apple chip


def test_options_change_what_is_forecast() -> None:
    """Every one of them, in the direction that it must."""
    (plain,) = rows("4@1", "--device", "l4")

    def other(*options: str) -> Forecast:
        return rows("4@1", "--device", "l4", *options)[0]

    assert other("--dim", "256").tokens_per_s > plain.tokens_per_s
    assert other("--ff-dim", "4096").tokens_per_s < plain.tokens_per_s
    assert other("--vocab-size", "32000").parameters > plain.parameters
    assert other("--precision", "w4").memory.weights < plain.memory.weights / 3
    assert other("--context", "4096").memory.state > plain.memory.state
    assert other("--prompt-tokens", "16").step_ms < plain.step_ms
    assert other("--batch", "8").tokens_per_s > plain.tokens_per_s
    assert other("--heads", "4").tokens_per_s == plain.tokens_per_s  # as many columns in all
    native, graphs = (rows("4@1", "--device", "apple-m4", *option)[0] for option in ((), ("--no-native",)))
    assert native.tokens_per_s > graphs.tokens_per_s


def test_a_bundle_on_devices(zoo: Zoo) -> None:
    """What its manifest says; of a CPU and of a GPU."""
    path = str(zoo["nested"].bundle.path)
    found = rows(path, "--device", "raspberry-pi-5, h100")
    assert [row.device for row in found] == ["raspberry-pi-5", "h100"]
    manifest = zoo["nested"].bundle.manifest
    assert {(row.hierarchy, row.parameters) for row in found} == {(manifest.model.hierarchy, manifest.model.parameters)}
    assert found[0].work.context == manifest.model.context


def test_a_search() -> None:
    """The fastest first, as many as are asked for."""
    given = ("--search", "--device", "l4", "--parameters", "30000000", "--layers", "6", "--precision", "fp16", "--dim", "256")
    text = run(*given, "--top", "3")
    assert text.startswith("FORECAST, not measured: at most 30,000,000 parameters, 6 layer-equivalents, on l4 in fp16")
    assert len(text.splitlines()) == 2 + 3
    (found,) = json.loads(run(*given, "--json")).values()
    rates = [row["tokens_per_s"] for row in found]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("12@1", "--device", "rtx-4080"), 'unknown device "rtx-4080"; did you mean "rtx-4090"'),
        (("12@1 3", "--device", "l4"), 'got the entry "3", expected layers@factor'),
        (
            ("12@1", "--device", "l4", "--dim", "100000000000"),
            "dim must be at most 16,777,216, got 100,000,000,000",
        ),
        (("12@1", "--device", "l4", "--context", "99999999999"), "context must be at most 16,777,216"),
        (("12@1", "--device", "l4", "--batch", "99999999999"), "batch must be at most 16,777,216"),
        (("2@1 2@100000000 2@1", "--device", "l4"), "has the stride 100,000,000, expected at most 65,536 in a forecast"),
        (("1@1 1@~1000000000 1@1", "--device", "l4"), "expected at most 65,536 in a forecast"),
        (("nowhere.bundle",), "nowhere.bundle is not a bundle: there is no manifest.json"),
        (("run@2/model",), "run@2/model is not a bundle: there is no manifest.json"),
        (("hf:owner",), '"hf:owner" is no name on a hub'),
        ((), "got neither a model nor --search, expected one of them"),
        (("12@1", "--search"), "got both of a model and --search"),
        (("--search",), "--search takes --parameters, the most there may be, and --layers"),
        (("12@1", "--device", "l4", "--precision", "w3"), 'unknown precision "w3"'),
        (("12@1", "--device", "l4", "--context", "8", "--prompt-tokens", "8"), "leaves no room in a context of 8"),
        (("--search", "--device", "l4", "--parameters", "1000", "--layers", "6"), "no hierarchy of 6 layer-equivalents"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], says: str) -> None:
    """In one sentence that says what to do."""
    assert says in refused(*arguments)


def test_this_machine_is_measured_as_asked_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind of engines, the precision, the threads; what was saved forecasts the same without measuring."""
    asked = []

    def measured(kinds: list[str], precisions: list[str], threads: int, on_progress: object) -> MeasuredDevice:
        asked.append((kinds, list(precisions), threads))
        return device()

    monkeypatch.setattr("foveal.bench.rates.machine.measure_machine", measured)
    file = tmp_path / "machine.json"
    here = rows("4@1", "--device", "this", "--threads", "1", "--no-native", "--save", str(file))
    assert asked == [(["graph"], ["fp32"], 1)]
    again = rows("4@1", "--device", str(file), "--no-native")
    assert here[0].tokens_per_s == again[0].tokens_per_s
    assert len(asked) == 1


def test_a_hierarchy_is_looked_at_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip of the pen should not take minutes to be found."""
    monkeypatch.setattr("foveal.bench.rates.machine.measure_machine", pytest.fail)
    with pytest.raises(ConfigError, match="malformed hierarchy"):
        RUNNER.invoke(app, ["forecast", "2@1 8@4", "--device", "this"], catch_exceptions=False)


def test_an_empty_model_is_no_folder(foveal) -> None:
    """It is refused as a hierarchy, not as the bundle that the working directory is not."""
    code, out, err = foveal("forecast", "")
    assert (code, out) == (1, "")
    assert 'malformed hierarchy ""' in err
    assert "bundle" not in err
