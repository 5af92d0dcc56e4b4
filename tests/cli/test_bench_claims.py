"""`foveal bench` with a command of its own: bundles need no name, claims have one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claim_results import claims_result
from typer.testing import CliRunner

from foveal import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was to be measured; nothing is."""
    seen: list[tuple[Any, ...]] = []

    def measure(names: Any, _directory: Path, **given: Any) -> Any:
        seen.append((tuple(names), given["settings"].is_quick, given["threads"], given["texts"]))
        return claims_result()

    monkeypatch.setattr("foveal.bench.claims.run.measure_claims", measure)
    monkeypatch.setattr("foveal.bench.claims.run.first_bundle", lambda *_: Path("first"))
    return seen


def test_claims_are_measured_and_shown(foveal: Run, asked: list[tuple[Any, ...]]) -> None:
    """What the article says, whether it holds, the figures, and what makes them doubtful."""
    code, out, _ = foveal("bench", "claims", "speed", "order", "--quick", "--threads", "1", "--text", "a.txt")
    assert (code, asked) == (0, [(("speed", "order"), True, 1, [Path("a.txt")])])
    text = " ".join(out.split())
    assert "The article: 26 hierarchical layers are 30 % faster than 14 vanilla ones. Here it holds." in text
    assert "Here it does not hold. What shuffling" not in text
    assert "1.20 to 1.50" in text
    assert "the machine was not quiet" in text


def test_all_claims_as_json_and_saved(foveal: Run, asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """No name is all of them."""
    code, out, err = foveal("bench", "claims", "--json", "--save", tmp_path / "s")
    assert (code, asked) == (0, [((), False, None, ())])
    assert json.loads(out) == json.loads((tmp_path / "s" / "claims.json").read_text())
    assert "firing-top-down.svg" in err.replace("\n", "")


def test_checkpoints_and_windows_of_ones_own(foveal: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each under the name of its directory; two of one name are told apart by nothing."""
    seen: list[tuple[Any, ...]] = []

    def measure(_names: Any, _directory: Path, **given: Any) -> Any:
        seen.append((given["checkpoints"], given["settings"].window))
        return claims_result()

    monkeypatch.setattr("foveal.bench.claims.run.measure_claims", measure)
    monkeypatch.setattr("foveal.bench.claims.run.first_bundle", lambda *given: given[-1]["flat"])
    places = [tmp_path / "runs" / "flat", tmp_path / "deep"]
    options = [part for place in places for part in ("--checkpoint", str(place))]
    code, _, err = foveal("bench", "claims", "order", *options, "--window", "1024", "--threads", "1")
    assert (code, seen) == (0, [({"flat": places[0], "deep": places[1]}, 1024)]), err
    code, _, err = foveal("bench", "claims", "order", *options, "--checkpoint", str(tmp_path / "flat"))
    assert code == 1
    assert "two of the checkpoints have the same name" in err.replace("\n", " ")


def test_an_unknown_claim(foveal: Run, asked: list[tuple[Any, ...]]) -> None:
    """Is told before anything is made."""
    code, _, err = foveal("bench", "claims", "spead")
    assert (code, asked) == (1, [])
    assert 'unknown claim "spead"; expected some of speed, memory' in err.replace("\n", " ")


def test_pictures_need_matplotlib_at_once(
    foveal: Run, asked: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after half an hour."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = foveal("bench", "claims", "--save", tmp_path / "s")
    assert (code, asked) == (1, [])
    assert "pictures need matplotlib" in err


@pytest.mark.parametrize("arguments", [(), ("--rounds", "2"), ("--json",)])
def test_bench_without_bundles(foveal: Run, arguments: tuple[str, ...]) -> None:
    """Options alone, or nothing at all, are the usual benchmark's."""
    code, _, err = foveal("bench", *arguments)
    assert code == 1
    assert "nothing to measure: name bundles, or give --hierarchy" in err.replace("\n", " ")


@pytest.mark.parametrize("name", ["nowhere.bundle", "default", "claim"])
def test_whatever_is_no_command_is_a_bundle(foveal: Run, name: str) -> None:
    """The name of the usual benchmark too, which nobody types."""
    code, _, err = foveal("bench", name, "--threads", "1")
    assert code == 1
    assert f"{name} is not a bundle" in err.replace("\n", " ")


def test_help_is_the_usual_benchmarks() -> None:
    """It says where the claims are."""
    out = CliRunner().invoke(cli.app, ["bench", "--help"], env={"COLUMNS": "120"}).output
    assert "--prompt-tokens" in out
    assert "default [OPTIONS]" not in out
    assert "foveal bench claims" in out
    out = CliRunner().invoke(cli.app, ["bench", "claims", "--help"], env={"COLUMNS": "120"}).output
    assert "--quick" in out
    assert "--prompt-tokens" not in out


def test_an_unknown_option_is_told() -> None:
    """By the usual benchmark."""
    result = CliRunner().invoke(cli.app, ["bench", "--nonsense"])
    assert result.exit_code == 2
    assert "--nonsense" in result.output
