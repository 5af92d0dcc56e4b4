"""What was measured at load is remembered, and nothing depends on that."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from specimens import Zoo

from foveal import load
from foveal.bundle import Bundle
from foveal.runtime import model, races
from foveal.runtime.races import remembered


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "races"


@pytest.fixture
def bundle(zoo: Zoo) -> Bundle:
    """Any."""
    return zoo["vanilla"].bundle


class Race:
    """Gives one answer after the other, and counts."""

    def __init__(self) -> None:
        self.run = 0

    def __call__(self) -> int:
        self.run += 1
        return self.run


def ask(bundle: Bundle, race: Callable[[], int], question: str = "how many", library: str = "library 1.0") -> int:
    """With answers from 1 to 8."""
    return remembered(question, bundle, library, range(1, 9), race)


def test_a_second_load_measures_nothing(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither threads nor overlap; it finds the same, and says threads that were asked for."""
    asked: list[str] = []

    def answer(name: str, value: int) -> Callable[[object], int]:
        return lambda _open_session: asked.append(name) or value  # type: ignore[func-returns-value]

    monkeypatch.setattr(model, "fastest_thread_count", answer("threads", 1))
    monkeypatch.setattr(model, "overlap_helps", answer("overlap", True))
    late, plain = zoo["top-down"].bundle, zoo["vanilla"].bundle
    for _ in range(2):
        loaded = load(late)
        assert (loaded.threads, loaded.overlap) == (1, True)
    assert model.threads_of(late) == model.threads_of(late.path) == 1  # as the command asks, which shares its threads
    assert asked == ["threads", "overlap"]
    assert load(plain).overlap is False  # has no late stages: nothing to race
    assert asked == ["threads", "overlap", "threads"]
    load(late, threads=2)
    load(late, threads=2)
    assert asked == ["threads", "overlap", "threads", "overlap"]  # with other threads overlap is another question


def test_it_is_of_one_machine_library_and_bundle(zoo: Zoo, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else is measured for itself, and does not take the other's place."""
    race = Race()
    assert [ask(bundle, race), ask(bundle, race)] == [1, 1]
    assert ask(bundle, race, question="another") == 2
    assert ask(bundle, race, library="library 1.1") == 3
    assert ask(zoo["wide"].bundle, race) == 4
    with monkeypatch.context() as patch:
        patch.setattr(races, "usable_cpus", lambda: 1000)
        assert ask(bundle, race) == 5
    with monkeypatch.context() as patch:
        patch.setattr(races, "cpu_model", lambda: "another")
        assert ask(bundle, race) == 6
    assert ask(bundle, race) == 1


def test_a_bundle_is_known_by_what_is_in_it(bundle: Bundle) -> None:
    """Not by its path; other engines are another bundle."""
    race = Race()
    assert ask(bundle, race) == 1
    assert ask(Bundle(Path("moved"), bundle.manifest), race) == 1
    name = next(iter(bundle.manifest.files))
    entry = msgspec.structs.replace(bundle.manifest.files[name], sha256="0" * 64)
    altered = msgspec.structs.replace(bundle.manifest, files={**bundle.manifest.files, name: entry})
    assert ask(Bundle(bundle.path, altered), race) == 2


def broken(path: Path) -> Iterator[str]:
    """What may lie where an outcome was, one after the other."""
    good = path.read_bytes()
    contents = {
        "empty": b"",
        "half": good[:-9],
        "binary": bytes(range(256)),
        "another answer": good.replace(b'"answer":1', b'"answer":99'),
        "no answer": good.replace(b'"answer":1', b'"answer":null'),
        "another type": good.replace(b'"answer":1', b'"answer":"1"'),
        "another question": good.replace(b"how many", b"how much"),
        "more fields": good.replace(b"{", b'{"more":1,', 1),
        "deep": b"[" * 5000,
        "long": b" " * (1 << 20),
    }
    for name, content in contents.items():
        path.write_bytes(content)
        yield name


def test_what_is_broken_is_measured_again(bundle: Bundle, cache: Path) -> None:
    """And written anew."""
    ask(bundle, lambda: 1)
    (path,) = cache.iterdir()
    for name in broken(path):
        assert ask(bundle, lambda: 2) == 2, name
        assert ask(bundle, lambda: 3) == 2, name


def test_a_week_is_long_enough(bundle: Bundle, cache: Path) -> None:
    """Other work may have decided the race: it is run again then, also where the clock was set back."""
    assert ask(bundle, lambda: 1) == 1
    (path,) = cache.iterdir()
    for answer, days in ((2, -8), (3, 8)):
        assert ask(bundle, lambda: 9) == answer - 1
        os.utime(path, (0, time.time() + days * 24 * 3600))
        assert ask(bundle, lambda answer=answer: answer) == answer  # type: ignore[misc]


def test_what_is_no_file_is_left_alone(bundle: Bundle, cache: Path) -> None:
    """A folder, a pipe that nobody writes to, a link to nowhere: nothing hangs."""
    ask(bundle, lambda: 1)
    (path,) = cache.iterdir()
    path.unlink()
    began = time.monotonic()
    path.mkdir()
    assert ask(bundle, lambda: 2) == 2
    path.rmdir()
    os.mkfifo(path)
    assert ask(bundle, lambda: 3) == 3
    path.unlink(missing_ok=True)
    path.symlink_to(cache / "nowhere" / "deeper")
    assert ask(bundle, lambda: 4) == 4
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("place", ["/dev/null/cache", "file/cache", "file", "x" * 300], ids=repr)
def test_a_cache_that_can_not_be(place: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured each time, and nothing else happens."""
    (tmp_path / "file").write_text("a file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(races, "cache_directory", lambda: Path(place))
    race = Race()
    assert [ask(bundle, race), ask(bundle, race)] == [1, 2]


def test_no_home_directory(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As services and containers often have none."""
    monkeypatch.delenv("FOVEAL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert ask(bundle, lambda: 5) == 5


def test_a_race_that_fails_is_not_remembered(bundle: Bundle, cache: Path) -> None:
    """Its error is the caller's."""

    def fails() -> int:
        raise MemoryError

    with pytest.raises(MemoryError):
        ask(bundle, fails)
    assert not cache.exists()


def test_a_cpu_says_what_it_is() -> None:
    """In one line, the same each time."""
    assert races.cpu_model() == races.cpu_model() != ""
    assert "\n" not in races.cpu_model()
