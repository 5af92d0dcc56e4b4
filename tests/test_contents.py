"""What is damaged is found before it is used, whichever files are hashed, and nothing is hashed twice."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from specimens import Zoo

from foveal import BundleError, ConfigError, contents, load, open_bundle
from foveal.contents import VERIFY, Verify
from foveal.serve.loading import ServiceOptions, opened

FILES = 3 * 5
"""Of the engines of three stages: graph, weights, sidecar, and the program of native steps with its weights."""
WEIGHTS = "engines/cpu/3.onnx.data"


@pytest.fixture
def bundle(zoo: Zoo, tmp_path: Path) -> Path:
    """A bundle of our own to damage."""
    return Path(shutil.copytree(zoo["attention"].bundle.path, tmp_path / "b"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files, in the order in which they are hashed."""
    names: list[str] = []
    real = contents.sha256_of

    def counted(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(contents, "sha256_of", counted)
    return names


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As if every file were large and had been written long ago; where that is kept."""
    monkeypatch.setattr(contents, "_REMEMBERED_BYTES", 0)
    monkeypatch.setattr(contents, "_SETTLED_SECONDS", -1.0)
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checked"


def flip(path: Path) -> None:
    """Another bit, in the same file, of the same size."""
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def _with_times(path: Path, write: Callable[[Path], object]) -> None:
    before = path.stat()
    time.sleep(0.02)  # a tick of the file system's clock
    write(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    _with_times(other, flip)
    os.replace(other, path)


def _linked(path: Path) -> None:
    other = path.parents[3] / "elsewhere"
    shutil.copy2(path, other)
    flip(other)
    path.unlink()
    path.symlink_to(other)


WRITES: dict[str, Callable[[Path], object]] = {
    "written": flip,
    "written, and its times set back": lambda path: _with_times(path, flip),
    "replaced": _replaced,
    "a link to another": _linked,
}


class TestUsed:
    """`load` hashes what it reads, before anything is computed."""

    @pytest.mark.parametrize("verify", VERIFY)
    @pytest.mark.parametrize("file", [WEIGHTS, "engines/cpu/3.onnx", "engines/cpu/3.json"])
    def test_a_damaged_engine_is_never_run(
        self, bundle: Path, verify: Verify, file: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not by the race of thread counts either, which is the first to run it."""
        flip(bundle / file)
        monkeypatch.setattr("foveal.runtime.session.Session.advance", lambda *_: pytest.fail("it was run"))
        for threads in (1, None):
            with pytest.raises(BundleError, match=rf"{file} was altered: its SHA-256 differs from the manifest's; copy the"):
                load(bundle, threads=threads, verify=verify)

    def test_what_no_engine_reads_is_not_hashed(self, bundle: Path, hashed: list[str]) -> None:
        """The portable graphs; they are as soon as somebody asks for one, and always when all are."""
        flip(bundle / "stages" / "3.onnx.data")
        model = load(bundle, threads=1)
        assert {Path(name).name for name in model.manifest.files if name.startswith("engines/cpu/")} == set(hashed)
        assert len(hashed) == FILES  # each once
        with pytest.raises(BundleError, match=r"stages/3\.onnx\.data was altered"):
            model.bundle.file("stages/3.onnx")
        for open_all in (open_bundle, lambda path: load(path, threads=1, verify="all")):
            with pytest.raises(BundleError, match=r"stages/3\.onnx\.data was altered"):
                open_all(bundle)

    def test_what_is_missing_or_truncated_is_found_at_once(self, bundle: Path) -> None:
        """Whoever reads it: sizes cost nothing."""
        os.truncate(bundle / "stages" / "3.onnx.data", 7)
        with pytest.raises(BundleError, match=r"3\.onnx\.data has 7 bytes, expected \d+; it is truncated or altered"):
            load(bundle, threads=1)

    def test_a_file_that_shrinks_after_the_bundle_was_opened(self, bundle: Path) -> None:
        """It is looked at again before it is used: what is mapped and then cut ends a process."""
        read = open_bundle(bundle, "used")
        os.truncate(bundle / WEIGHTS, 7)
        with pytest.raises(BundleError, match=rf"{WEIGHTS} has 7 bytes, expected"):
            load(read, threads=1)

    def test_of_several_the_first_by_name_is_said(self, bundle: Path) -> None:
        """However long each takes to hash."""
        for name in ("stages/3.onnx.data", "engines/cpu/1.pre.onnx", "engines/cpu/3.onnx"):
            flip(bundle / name)
        with pytest.raises(BundleError, match=r"engines/cpu/1\.pre\.onnx was altered"):
            open_bundle(bundle)

    def test_threads_that_ask_for_the_same_file(self, bundle: Path, hashed: list[str]) -> None:
        """All wait for the one that hashes it."""
        read = open_bundle(bundle, "used")
        asking = [threading.Thread(target=read.file, args=("stages/3.onnx",)) for _ in range(8)]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert sorted(hashed) == ["3.onnx", "3.onnx.data"]


class TestOnce:
    """`verify="once"`: a large file is hashed once on a machine, and again if anybody wrote to it."""

    def test_what_was_hashed_is_not_hashed_again(self, bundle: Path, remembering: Path, hashed: list[str]) -> None:
        """By another process: nothing is kept in this one. It computes the same."""
        ids = np.arange(8)[None] % 5
        expected = load(bundle, threads=1).session().advance(ids)
        for _ in range(2):
            hashed.clear()
            np.testing.assert_array_equal(load(bundle, threads=1, verify="once").session().advance(ids), expected)
        assert hashed == []
        load(bundle, threads=1)
        assert len(hashed) == FILES  # only who asks for it gets it

    @pytest.mark.parametrize("write", WRITES)
    def test_whatever_is_written_to_it_is_found(self, bundle: Path, remembering: Path, write: str) -> None:
        """In place, beside, with the times of before."""
        load(bundle, threads=1, verify="once")
        WRITES[write](bundle / WEIGHTS)
        with pytest.raises(BundleError, match=rf"{WEIGHTS} was altered: its SHA-256 differs"):
            load(bundle, threads=1, verify="once")

    def test_a_copy_is_hashed(self, bundle: Path, remembering: Path, hashed: list[str], tmp_path: Path) -> None:
        """It is another file, though its contents are known."""
        load(bundle, threads=1, verify="once")
        hashed.clear()
        load(shutil.copytree(bundle, tmp_path / "copy"), threads=1, verify="once")
        assert WEIGHTS.rpartition("/")[2] in hashed

    def test_small_files_are_hashed_always(self, bundle: Path, remembering: Path, hashed: list[str], monkeypatch: Any) -> None:
        """To look them up takes longer."""
        monkeypatch.setattr(contents, "_REMEMBERED_BYTES", 1 << 30)
        for _ in range(2):
            load(bundle, threads=1, verify="once")
        assert len(hashed) == 2 * FILES
        assert not remembering.exists()

    def test_a_file_that_was_just_written_is_not_remembered(self, bundle: Path, remembering: Path, monkeypatch: Any) -> None:
        """Its next write could have the same time."""
        monkeypatch.setattr(contents, "_SETTLED_SECONDS", 3600.0)
        load(bundle, threads=1, verify="once")
        assert not remembering.exists()

    @pytest.mark.parametrize("content", [b"", b"{}", b"[" * 5000, b" " * (1 << 20), bytes(range(256))], ids=len)
    def test_what_is_kept_may_be_broken(self, bundle: Path, remembering: Path, hashed: list[str], content: bytes) -> None:
        """Then the file is hashed, and that is kept anew."""
        load(bundle, threads=1, verify="once")
        for path in remembering.iterdir():
            path.write_bytes(content)
        for expected in (FILES, 0):
            hashed.clear()
            load(bundle, threads=1, verify="once")
            assert len(hashed) == expected

    def test_without_a_place_it_is_hashed_each_time(
        self, bundle: Path, remembering: Path, hashed: list[str], monkeypatch: Any
    ) -> None:
        """As `used`."""
        monkeypatch.setenv("FOVEAL_CACHE", "/dev/null/cache")
        for _ in range(2):
            load(bundle, threads=1, verify="once")
        assert len(hashed) == 2 * FILES


def test_another_way_to_verify_is_refused(bundle: Path) -> None:
    """There is none that hashes nothing."""
    for use in (open_bundle, load):
        with pytest.raises(ConfigError, match="verify is 'none', expected one of used, all, once"):
            use(bundle, verify="none")  # type: ignore[operator]


def test_a_server_verifies_as_it_is_told(bundle: Path) -> None:
    """As `load`."""
    flip(bundle / "stages" / "3.onnx.data")
    told = ServiceOptions(store_memory=0, slots=1, threads=1, verify="all")
    with pytest.raises(BundleError, match=r"stages/3\.onnx\.data was altered"), opened("b", bundle, told):
        pass
    with opened("b", bundle, ServiceOptions(store_memory=0, slots=1, threads=1)) as served:
        assert served.model.manifest.model.vocab_size
