"""What pip can't install, or a program can't import, is a reason and no row."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from peers_fakes import fake

from foveal import ConfigError
from foveal.bench.peers.environments import Unavailable, python_of, reason_of, versions_of
from foveal.bench.peers.peers import OTHERS, foveal, others_of, systems_of


def write_wheel(folder: Path) -> None:
    """A distribution `nothing-at-all` 1.0 of one empty module."""
    folder.mkdir()
    info = "nothing_at_all-1.0.dist-info"
    with zipfile.ZipFile(folder / "nothing_at_all-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nothing_at_all.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: nothing-at-all\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "nothing_at_all.py,,\n")


def test_an_environment_is_made_once_and_again_where_its_requirements_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the wheels that are kept; and where these do not suffice, pip's own words."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    requirements = tmp_path / "fake.txt"
    requirements.write_text("nothing-at-all==1.0\n")
    write_wheel(tmp_path / "wheels")
    python = python_of(fake(requirements=requirements), tmp_path)
    modules = list(python.parents[1].glob("lib/python*/site-packages/nothing_at_all.py"))
    assert len(modules) == 1
    modules[0].write_text("kept = True")
    assert python_of(fake(requirements=requirements), tmp_path) == python
    assert modules[0].read_text() == "kept = True"
    requirements.write_text("nothing-at-all==2.0\n")
    with pytest.raises(Unavailable, match=r"ERROR: No matching distribution found for nothing-at-all==2\.0"):
        python_of(fake(requirements=requirements), tmp_path)


def test_an_interpreter_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what it can't import."""
    peer = fake()
    assert peer.python is not None
    assert versions_of(peer, python_of(peer, tmp_path)) == {"fake": "1.0"}
    monkeypatch.setenv("FAKE_MISSING", "openvino")
    with pytest.raises(Unavailable, match="^ImportError: No module named 'openvino'$"):
        versions_of(peer, peer.python)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("ERROR: no wheel\n[notice] upgrade pip\n", "ERROR: no wheel"),
        ("Traceback\n  File x\nValueError: no\n\n", "ValueError: no"),
        ("", "it ended with 7 and said nothing"),
    ],
)
def test_reasons(said: str, reason: str) -> None:
    """The line that a person would look for."""
    assert reason_of(said, 7) == reason


def test_requirements_are_pinned() -> None:
    """Every line of every peer's, as what they install is what the table names."""
    for peer in OTHERS:
        assert peer.requirements is not None
        lines = [line for line in peer.requirements.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert all(line.count("==") == 1 for line in lines), peer.name
        assert peer.program.is_file()


def test_systems_by_a_part_of_their_names(tmp_path: Path) -> None:
    """All, some, or an error with the names."""
    peers = [foveal("foveal", tmp_path), *OTHERS]
    assert len(systems_of(peers)) == 8 + 3 + 5 + 3
    assert [system.name for system in systems_of(peers, ["Q4", "8@4 2@1 w4"])] == [
        "foveal 2@1 8@4 2@1 w4",
        "llama.cpp 12@1 Q4_0",
    ]
    with pytest.raises(ConfigError, match="no system's name holds 'vllm'; expected a part of: foveal 12@1 fp32, "):
        systems_of(peers, ["llama", "vllm"])


def test_other_checkouts(tmp_path: Path) -> None:
    """By a name and an interpreter that is there."""
    python = tmp_path / "python"
    python.touch()
    assert others_of([f"before={python}"]) == {"before": python}
    for wrong in (str(python), f"={python}", f"before={python}x"):
        with pytest.raises(ConfigError, match="--foveal takes NAME=PYTHON"):
            others_of([wrong])
