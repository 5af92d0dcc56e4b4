"""Text of three kinds: what of each source is trained on, what is kept back."""

from pathlib import Path

import pytest

from foveal.bench.mixed_text import BOOK_CHARACTERS, VALID_BYTES, mixed_text, read_tunes, split_tunes
from foveal.errors import ConfigError

TUNE = """X: 7
T: The Lark -- Reel
%%scale 0.7
Z: Transcribed by someone, someone@example.org
N:: fast
M: C|
L:1/8 % of a note
K: {key}
G2 BG {{c}}d2 "4"BG | A2 cA e2 cA :|
d:| G4 |
w: la la la

"""


def _tune(number: int, notes: str = "") -> str:
    """Its title and melody are its own, unless `notes` are given."""
    title = "".join("abcdefghij"[int(digit)] for digit in f"{number:04}")
    melody = notes or "".join("ABCDEFG"[number // 7**place % 7] for place in range(4))
    return f"X:{number}\nT:Tune {title}\nK:G\n{melody} |\n" + "z8 |\n" * 300


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Tunes, code and books, small: as many documents as it takes for some to be kept back."""
    tunes, code, books = (tmp_path / name for name in ("corpus", "library", "books"))
    for folder in (tunes / "oneills1850", tunes / "ryansMammoth", code, books / "train", books / "valid"):
        folder.mkdir(parents=True)
    (tunes / "oneills1850" / "0001.abc").write_text("\n".join(_tune(number) for number in range(600)))
    (tunes / "ryansMammoth" / "Lark.abc").write_text(TUNE.format(key="G"))
    for number in range(100):
        (code / f"module_{number}.py").write_text(f"NAME = {number}\n\n" * 500)
    for name in ("train", "valid"):
        (books / name / "a.txt").write_text(f"A paragraph to {name}.\n\n" * 6000)
    return tunes, code, books


def test_a_tune_keeps_its_notes_and_what_one_plays_them_by(sources: tuple[Path, Path, Path]) -> None:
    assert read_tunes(sources[0])[-1] == (
        'X:7\nT:The Lark -- Reel\nM:C|\nL:1/8\nK:G\nG2 BG {c}d2 "4"BG | A2 cA e2 cA :|\nd:| G4 |\n'
    )


def test_a_melody_is_there_once(sources: tuple[Path, Path, Path]) -> None:
    before = read_tunes(sources[0])
    (sources[0] / "ryansMammoth" / "Other.abc").write_text(TUNE.format(key="A").replace("Lark", "Thrush").replace("{c}", ""))
    assert read_tunes(sources[0]) == before


def test_one_title_is_on_one_side() -> None:
    trained, kept_back = split_tunes([_tune(number, notes) for number in range(100) for notes in ("ABCD", "GFED")])
    assert trained
    assert kept_back
    assert not {tune.splitlines()[1] for tune in trained} & {tune.splitlines()[1] for tune in kept_back}


def test_no_document_is_in_two_files(sources: tuple[Path, Path, Path]) -> None:
    made = mixed_text(*sources)
    assert sorted(made) == sorted(
        f"{part}/{kind}.txt" for part in ("train", "valid", "held-out") for kind in ("abc", "code", "novel")
    )
    for kind in ("abc", "code"):
        trained, *kept_back = (set(made[f"{part}/{kind}.txt"].split("\n\n")) - {""} for part in ("train", "valid", "held-out"))
        assert trained
        assert all(kept_back)
        assert not trained & set.union(*kept_back)
    assert "to valid" not in made["train/novel.txt"]
    assert len(made["train/novel.txt"]) == BOOK_CHARACTERS


def test_validation_is_about_as_much_of_each_kind(sources: tuple[Path, Path, Path]) -> None:
    made = mixed_text(*sources)
    for kind in ("abc", "code", "novel"):
        assert VALID_BYTES < len(made[f"valid/{kind}.txt"]) < VALID_BYTES + 2000


def test_the_same_sources_give_the_same_text(sources: tuple[Path, Path, Path]) -> None:
    assert mixed_text(*sources) == mixed_text(*sources)


@pytest.mark.parametrize("missing", ["tunes", "code"])
def test_a_source_that_is_not_there_is_said(sources: tuple[Path, Path, Path], tmp_path: Path, missing: str) -> None:
    tunes, code, books = sources
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    with pytest.raises(ConfigError, match="nothing"):
        mixed_text(nothing if missing == "tunes" else tunes, nothing if missing == "code" else code, books)


def test_too_little_text_is_said(sources: tuple[Path, Path, Path]) -> None:
    (sources[2] / "valid" / "a.txt").write_text("A short novel.\n\n")
    with pytest.raises(ConfigError, match="16 characters of novel are kept back, expected more than 40,000"):
        mixed_text(*sources)
