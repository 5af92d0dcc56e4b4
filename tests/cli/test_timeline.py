"""`foveal inspect` draws when stages fire: by arithmetic, or on a text."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from deciding_model import Deciding, deciding

from foveal import load
from foveal.cli.timeline import Timeline, drawn, told
from foveal.contract import ClockSpec
from foveal.export import convert_model
from foveal.runtime.schedules import Decisions


class TestDrawn:
    """Columns are tokens, lines are stages."""

    def test_marks_stand_under_their_tokens(self) -> None:
        """However long a token's text is; every tenth has its number."""
        timeline = Timeline(["The", " ", "c", "at", " sat"], {"fine": range(5), "coarse": [0, 3]}, {})
        assert drawn(timeline) == "\n".join(["token   0", "text    The cat sat", "fine    #  ### #", "coarse  #  ..# ."])

    def test_long_texts_are_broken_between_tokens(self) -> None:
        """Each line begins with the number of its first token."""
        blocks = drawn(Timeline([" "] * 200, {"1": range(200)}, {})).split("\n\n")
        assert [block.splitlines()[0].split()[1] for block in blocks] == ["0", "96", "192"]
        assert sum(block.count("#") for block in blocks) == 200


def test_told_of_a_clock() -> None:
    """How often it fired, and what came nearest to the threshold."""
    values = np.array([0.5, 0.1, 0.9], np.float32)
    made = np.array([True, False, True])
    decisions = Decisions(np.array([0, 1, 2]), values, made, made)
    assert told({ClockSpec(stage="pre", threshold=0.45, firsts=1): decisions}) == [
        'boundaries of stage "pre": 2 of 3 rows, one in 1.5; nearest to the threshold 0.45: token 1, by 0.35'
    ]
    assert told({ClockSpec(ids=(32,)): decisions}) == ["boundaries by the ids of tokens: 2 of 3 rows, one in 1.5"]


@pytest.fixture(scope="module")
def source() -> Deciding:
    """A model whose middle fires when the text says so."""
    return deciding()


@pytest.fixture(scope="module")
def bundle(source: Deciding, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle."""
    return convert_model(source, tmp_path_factory.mktemp("timeline") / "b.bundle", tokenizer="bytes").path


TEXT = "It was the best of times,\nit was the w\u00f6rst"


def test_of_a_text(foveal, bundle: Path, tmp_path: Path) -> None:
    """Given as it is, or in a file; what fired is what a session counts."""
    _, printed, _ = foveal("inspect", bundle, "--text", TEXT)
    assert "text    It was the best of times,\u21b5it was the w\u00b7\u00f6rst" in printed
    (tmp_path / "t.txt").write_text(TEXT)
    assert foveal("inspect", bundle, "--text", tmp_path / "t.txt")[1] == printed
    session = load(bundle, threads=1).session()
    session.advance([list(TEXT.encode())])
    line = next(line for line in printed.splitlines() if line.startswith("middle "))
    assert line.count("#") + 1 == session.fires["middle"]
    found = msgspec.json.decode(foveal("inspect", bundle, "--text", TEXT, "--tokens", "20", "--json")[1])
    assert found["timeline"]["middle"] == [token for token, mark in enumerate(line[8:28]) if mark == "#"]
    assert len(found["boundaries"][0]["values"]) == 20


def test_without_one(foveal, bundle: Path) -> None:
    """Says what there is to be seen with a text."""
    code, printed, _ = foveal("inspect", bundle)
    assert code == 0
    assert "the data decides when middle fires: give a text (--text) to see it" in printed
    assert "~3" in printed
    assert "a stage fires (expected of text, where the data decides)" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "a", "--ids", "1"], "got both --text and --ids"),
        (["--text", ""], "the text is empty"),
        (["--ids", "1 999"], "999"),
        (["--text", "a" * 97], "97 tokens, the model a context of 96; draw fewer of them: --tokens"),
        (["--text", "a" * 5000, "--tokens", "97"], "97 tokens"),
        (["--text", "a", "--target", "cuda"], "cuda"),
        (["--target", "cpu"], "--target"),
    ],
)
def test_bad_input(foveal, bundle: Path, options: list[str], message: str) -> None:
    """Is said."""
    code, _, err = foveal("inspect", bundle, *options)
    assert code != 0
    assert message in err


def test_a_file_that_can_not_be_read(foveal, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not taken for a text."""
    (tmp_path / "t.txt").write_bytes(b"a\xff")
    assert "no UTF-8" in foveal("inspect", bundle, "--text", tmp_path / "t.txt")[2]

    def refused(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    code, _, err = foveal("inspect", bundle, "--text", tmp_path / "t.txt")
    assert code != 0
    assert "t.txt can't be read (Permission denied)" in err
