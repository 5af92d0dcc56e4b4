"""`foveal report`: one command, all its files, and none of them where it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from precisions import PrecisionZoo
from report_specimens import small_bundles, small_report
from store import Store

from foveal.bench import bandwidth
from foveal.report.document import Report
from foveal.report.facts import memory

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def given(precise: PrecisionZoo, store: Store, tmp_path: Path) -> list[Path]:
    """Bundles, and in front of them the timings that `foveal bench --save` would have written."""
    measured = small_report(precise, store).measured
    (tmp_path / "saved.json").write_bytes(msgspec.json.encode(measured))
    return [tmp_path / "saved.json", *small_bundles(precise, tmp_path)]


def test_three_files_of_one_run(foveal: Run, given: list[Path], precise: PrecisionZoo, tmp_path: Path) -> None:
    """All of the same figures; what they say in short is printed, and where they are."""
    saved, *bundles = given
    outs = [part for name in ("r.html", "r.md", "r.json") for part in ("--out", tmp_path / name)]
    text = precise["nested"].text
    code, out, err = foveal("report", *bundles, "--measured", saved, "--text", text, "--limit", 2, "--threads", 1, *outs)
    assert code == 0, err
    assert [line for line in out.splitlines() if line.endswith("?")] == []
    assert out.startswith("Is it faster? small (1@1 0@2 1@6 1@2 0@1, fp32) decodes")
    assert all(f"wrote {tmp_path / name}" in err for name in ("r.html", "r.md", "r.json", "r-pictures/rates.svg"))
    report = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=Report)
    assert report.commands.report.startswith(f"foveal report {bundles[0]}")
    assert [loss.window for loss in report.losses] == [96, 96, 96]
    for answer in report.summary:
        assert answer.answer in out


def test_it_measures(foveal: Run, given: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sizes and engines that were asked for."""
    calls = []
    monkeypatch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
    monkeypatch.setattr(memory, "measure_process", lambda *arguments: (calls.append(arguments), (None, "no Linux"))[1])
    sizes = ("--prompt-tokens", 8, "--new-tokens", 6, "--rounds", 1, "--threads", 1, "--no-native")
    code, _, err = foveal("report", given[1], *sizes, "--out", tmp_path / "r.json")
    assert code == 0, err
    report = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=Report)
    measured = report.measured
    assert (measured.prompt_tokens, measured.new_tokens, measured.rounds, measured.models[0].threads) == (8, 6, 1, 1)
    assert not any(stage.runs_on.startswith("native") for stage in measured.models[0].stages)
    assert "--no-native" in report.commands.measurement
    assert {call[-1] for call in calls} == {False}
    assert report.memory[0].missing == "a process that reads 96 tokens: no Linux"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--out", "r.txt"), 'the report is to be "r.txt", expected a name that ends in .html, .md, .json'),
        (("--out", "r.json", "--measured", "no.json"), "no.json can't be read (No such file or directory)"),
        (("--out", "r.json", "--target", "tpu"), 'unknown target "tpu"'),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], sentence: str, foveal: Run, given: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, before anything is measured; nothing is written."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, out, err = foveal("report", given[1], *arguments)
    assert (code, out) == (1, "")
    assert sentence in err
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_no_bundle(foveal: Run, tmp_path: Path) -> None:
    """As everywhere."""
    code, _, err = foveal("report", tmp_path / "nothing", "--out", tmp_path / "r.json")
    assert code == 1
    assert "nothing is not a bundle: there is no manifest.json" in err


def test_without_the_extra(foveal: Run, given: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is said before anything is measured."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = foveal("report", given[1], "--out", tmp_path / "r.html")
    assert code == 1
    assert "a report's pictures need matplotlib: pip install '.[report]'" in err
    assert not (tmp_path / "r.html").exists()


def test_a_text_that_is_missing(foveal: Run, given: list[Path], tmp_path: Path) -> None:
    """It is said, and nothing is written."""
    saved, *bundles = given
    code, _, err = foveal(
        "report", *bundles, "--measured", saved, "--text", tmp_path / "no.txt", "--out", tmp_path / "r.json", "--threads", 1
    )
    assert code == 1
    assert "no.txt" in err
    assert not (tmp_path / "r.json").exists()
