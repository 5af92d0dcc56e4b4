"""What stages read is written so that Polygraphy runs them on it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from precisions import needs_opset_24
from specimens import Zoo

from foveal import BackendUnavailable
from foveal.export.comparison.save_inputs import save_inputs

pytest.importorskip("polygraphy")


def polygraphy(capsys: pytest.CaptureFixture[str], line: list[str]) -> tuple[int, str]:
    """What the command does, in this process: its imports take ten seconds in a new one. Exit status, and all it printed."""
    from polygraphy.tools import main

    capsys.readouterr()
    status = main(run_opts=line[1:])
    captured = capsys.readouterr()
    return int(status), captured.out + captured.err


@needs_opset_24
def test_polygraphy_runs_every_stage_on_its_inputs(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A prefill and a decode step of each, keys and values included; and it notices another call's outputs."""
    bundle = zoo["linear"].bundle
    commands = [shlex.split(line) for line in save_inputs(bundle, tmp_path)]
    assert capsys.readouterr() == ("", "")  # what Polygraphy has to say would stand in the JSON of the command
    names = [entry.spec.name for entry in bundle.manifest.stages]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == sorted(
        f"{name}.{call}.{kind}.json" for name in names for call in ("prefill", "decode") for kind in ("inputs", "outputs")
    )
    assert len(commands) == 2 * len(names)
    for line in commands:
        assert line[:2] == ["polygraphy", "run"]
        status, said = polygraphy(capsys, line)
        assert status == 0, said
        assert "All outputs matched" in said
        assert "present.0.key" in said
    tried = commands[3]  # the coarse stage's decode step
    wrong = [part.replace("decode.outputs", "prefill.outputs") for part in tried]
    assert polygraphy(capsys, wrong)[0] != 0
    lines = (tmp_path / "commands.sh").read_text().splitlines()
    assert [shlex.split(line) for line in lines[: len(commands)]] == commands
    assert sum("--trt" in line for line in lines) == len(commands)


def test_without_polygraphy(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said what to install, before anything is decoded."""
    monkeypatch.setitem(sys.modules, "polygraphy.json", None)
    with pytest.raises(BackendUnavailable, match=r"polygraphy can't be imported, .*: pip install '\.\[export\]' in"):
        save_inputs(zoo["linear"].bundle, tmp_path)
