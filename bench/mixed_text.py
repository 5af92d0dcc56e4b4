"""Text of three kinds to train a small model on that repeats itself where the text does: tunes, source code, novels.

    pip download --no-deps music21==10.5.1 && python -m zipfile -e music21-*.whl tunes
    python -m foveal.bench.mixed_text mixed --tunes tunes/music21/corpus --books books

Writes `train`, `valid` and `held-out`, each with `abc.txt`, `code.txt` and `novel.txt`, the same bytes from the same sources
(docs/training.md says which and gives their hashes). What is in one is in no other: tunes are kept apart by title and by
melody, code by file, novels by book.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import ConfigError
from ..files import write_atomically
from ..models.text import read_texts
from .script import run_script

TUNE_BOOKS = ("oneills1850", "ryansMammoth")
"""O'Neill's *Music of Ireland* (1903) and *Ryan's Mammoth Collection* (1883); not all else in music21 is free for all uses."""
FIELDS = "XTRMLQK"
"""What a tune keeps of its header: number, title, rhythm, metre, unit, tempo, key; no names and addresses of people."""
CODE_BYTES = range(1_000, 30_001)
"""Modules of the standard library of such sizes, packages aside: a larger one would be much of the text."""
BOOK_CHARACTERS = 80_000
"""From the beginning of each book to train on."""
VALID_BYTES = 40_000
"""Of each kind: three are 58 windows of 2048, so that the trainer's own evaluations see all of it."""


def main() -> None:
    """Write the nine files and print what they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="a directory, made if it is not there")
    parser.add_argument("--tunes", type=Path, required=True, help="music21's folder `corpus`")
    parser.add_argument("--books", type=Path, required=True, help="a folder with novels in `train` and `valid`, as *.txt")
    parser.add_argument("--code", type=Path, default=Path(sysconfig.get_path("stdlib")), help="a folder of Python's library")
    given = parser.parse_args()
    for name, texts in mixed_text(given.tunes, given.code, given.books).items():
        path = given.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = texts.encode()
        write_atomically(path, data)
        print(f"{name:20} {len(data):>9,} bytes  sha256 {hashlib.sha256(data).hexdigest()}")


def mixed_text(tunes: Path, code: Path, books: Path) -> Mapping[str, str]:
    """The text of each file, by its path.

    Raises:
        ConfigError: a source is not there, or has too little that is kept back.
    """
    trained: dict[str, list[str]] = {}
    kept_back: dict[str, list[str]] = {}
    trained["abc"], kept_back["abc"] = split_tunes(read_tunes(tunes))
    trained["code"], kept_back["code"] = split_code(code)
    trained["novel"] = [text[:BOOK_CHARACTERS] for text in read_texts([books / "train"])]
    kept_back["novel"] = read_texts([books / "valid"])
    made = {f"train/{kind}.txt": "\n".join(texts) for kind, texts in trained.items()}
    for kind, texts in kept_back.items():
        whole = "\n".join(texts)
        end = whole.find("\n\n", VALID_BYTES) + 2
        if end < VALID_BYTES:
            raise ConfigError(
                f"{len(whole):,} characters of {kind} are kept back, expected more than {VALID_BYTES:,}; give more text"
            )
        made[f"valid/{kind}.txt"], made[f"held-out/{kind}.txt"] = whole[:end], whole[end:]
    return made


def read_tunes(corpus: Path) -> list[str]:
    """The tunes of the two books, each once, in ABC with the fields of `FIELDS`, as they are in the files.

    Raises:
        ConfigError: a book is not there.
    """
    found: dict[str, str] = {}
    for book in TUNE_BOOKS:
        files = sorted((corpus / book).glob("*.abc"))
        if not files:
            raise ConfigError(f"no tunes at {corpus / book}: expected music21's folder `corpus`, with {', '.join(TUNE_BOOKS)}")
        for file in files:
            text = file.read_text("utf-8").replace("\r\n", "\n")
            for tune in re.split(r"^(?=X:)", text, flags=re.MULTILINE)[1:]:
                made = _tune(tune)
                if _melody(made):
                    found.setdefault(_melody(made), made)
    return list(found.values())


def _tune(text: str) -> str:
    """One tune of a file without comments, words, people and blanks at the ends of lines."""
    lines = []
    for line in (re.sub(r"%.*", "", line).strip() for line in text.splitlines()):
        field = re.match(r"([H-Z]|[A-Ga-z](?!:[|:])):\s*(.*)", line)
        if field is None and line:
            lines.append(line)
        elif field is not None and field[1] in FIELDS and field[2]:
            lines.append(f"{field[1]}:{field[2]}")
    return "\n".join(lines) + "\n"


def _melody(tune: str) -> str:
    """The names of its first 32 notes: two transcriptions of a tune differ in its ornaments, two tunes in these."""
    body = "".join(line for line in tune.splitlines() if not re.match(r"[A-Z]:", line))
    return "".join(re.findall(r"[A-Ga-g]", re.sub(r'"[^"]*"|\{[^}]*\}|![^!]*!', "", body)))[:32]


def _title(tune: str) -> str:
    found = re.search(r"^T:(.*)", tune, re.MULTILINE)
    return re.sub(r"[^a-z]", "", found[1].split(" -- ")[0].lower()) if found else ""


def split_tunes(tunes: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those to train on and those kept back, one title in 15; both
    in an order that says nothing."""
    sides: tuple[list[str], list[str]] = [], []
    for tune in sorted(tunes, key=lambda tune: _number(_title(tune))):
        sides[_is_kept_back(_title(tune), 15)].append(tune)
    return sides


def split_code(library: Path) -> tuple[list[str], list[str]]:
    """The modules to train on and those kept back, one in 12, by name.

    Raises:
        ConfigError: there are none.
    """
    sides: tuple[list[str], list[str]] = [], []
    for file in sorted(library.glob("*.py")):
        if file.stat().st_size in CODE_BYTES:
            sides[_is_kept_back(file.name, 12)].extend(read_texts([file]))
    if not sides[0]:
        raise ConfigError(f"no source code at {library}: expected the folder of Python's standard library")
    return sides


def _is_kept_back(name: str, one_in: int) -> bool:
    return _number(name) % one_in == 0


def _number(name: str) -> int:
    """A number that only the name decides, and nothing about it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


if __name__ == "__main__":
    run_script(main)
