"""Where bundles may be written: what is known before the work, what is replaced, what is left alone, and what is said."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from precisions import PrecisionZoo

from foveal import Bundle, BundleError, StorageError, build, calibrate, load, open_bundle, places
from foveal.bundle import MANIFEST, new_bundle
from foveal.export import verify
from foveal.export.tensorrt import cache
from foveal.files import cache_directory, clear_parts, keep, scratch_directory, write_atomically
from foveal.locks import hold, is_held
from foveal.storage import storage_errors

OWN = ("manifest", "stages")


def replace(path: Path, name: str = "new") -> None:
    """A directory of two files, as a bundle has many."""
    with places.new_directory(path, OWN) as directory:
        (directory / "stages").mkdir()
        for file in ("manifest", "stages/1"):
            (directory / file).write_text(name)


def content(path: Path) -> dict[str, str]:
    """Every file under a directory."""
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


WHOLE = {"manifest": "new", "stages/1": "new"}


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    """A mount, or a skip with the reason."""
    done = subprocess.run(["mount", *options, str(path)], capture_output=True, text=True) if os.name == "posix" else None
    if done is None or done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip() if done else os.name}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def bundle(precise: PrecisionZoo, tmp_path: Path) -> Bundle:
    """A bundle to write to, without reports."""
    ignore = shutil.ignore_patterns("reports")
    return open_bundle(shutil.copytree(precise["vanilla"].full.path, tmp_path / "b", ignore=ignore))


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    """What was there is there, what was not is not: folders above it included."""
    replace(tmp_path / "d")
    for path in (tmp_path / "d", tmp_path / "x" / "y" / "d"):
        with pytest.raises(RuntimeError, match="halfway"), places.new_directory(path, OWN) as directory:
            (directory / "half").write_text("half")
            raise RuntimeError("halfway")
    assert content(tmp_path) == {f"d/{name}": text for name, text in WHOLE.items()}
    assert os.listdir(tmp_path) == ["d"]


def test_an_interruption_while_contents_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between any two files: the directory is whole before the error goes on."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("mine")
    move = places._move

    def interrupted(source: Path, target: Path) -> None:
        limits[0] -= 1
        if limits[0] == 0:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(places, "_move", interrupted)
    for limit in range(1, 9):
        limits = [99]
        replace(tmp_path / "d", "old")
        limits = [limit]
        with suppress(KeyboardInterrupt):
            replace(tmp_path / "d")
        assert content(tmp_path / "d") in ({"mine": "mine", **WHOLE}, {"mine": "mine", **dict.fromkeys(WHOLE, "old")}), limit


@pytest.mark.parametrize("spelling", ["link", "d/", "x/../d", "."])
def test_a_path_is_resolved_first(spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link stays one and what it leads to is replaced; the current directory stays the one that it was."""
    replace(tmp_path / "d", "old")
    (tmp_path / "link").symlink_to("d")
    monkeypatch.chdir(tmp_path / "d" if spelling == "." else tmp_path)
    before = os.stat(os.curdir).st_ino
    replace(Path(spelling))
    assert content(tmp_path / "d") == WHOLE
    assert (tmp_path / "link").is_symlink()
    assert os.stat(tmp_path / "d" if spelling == "." else tmp_path).st_ino == before
    assert sorted(os.listdir(tmp_path)) == ["d", "link"]


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    """To what is not there yet: it is made. In a circle: one line."""
    (tmp_path / "dangling").symlink_to("made")
    replace(tmp_path / "dangling")
    assert content(tmp_path / "made") == WHOLE
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match=r"b: Too many levels of symbolic links; the path is a circle of links; choose"):
        replace(tmp_path / "b")


def test_other_people_s_files_stay(tmp_path: Path) -> None:
    """What lies in a bundle's directory and is not the bundle's is left where it is."""
    replace(tmp_path / "d", "old")
    (tmp_path / "d" / ".git").mkdir()
    (tmp_path / "d" / ".git" / "HEAD").write_text("mine")
    replace(tmp_path / "d")
    assert content(tmp_path / "d") == {**WHOLE, ".git/HEAD": "mine"}


def test_modes(tmp_path: Path) -> None:
    """A replaced directory keeps its mode, and folders in the old one that are read-only are no obstacle."""
    replace(tmp_path / "d", "old")
    (tmp_path / "d").chmod(0o750)
    (tmp_path / "d" / "stages").chmod(0o555)
    replace(tmp_path / "d")
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o750
    assert os.listdir(tmp_path) == ["d"]


@pytest.mark.parametrize("kind", ["disk", "folder", "folder with lost+found"])
def test_a_mount_point(kind: str, tmp_path: Path) -> None:
    """Its contents are replaced, twice; also where it is a folder of the same disk, mounted once more."""
    place, source = tmp_path / "a place", tmp_path / "source"
    place.mkdir()
    source.mkdir()
    with mounted(place, *(["-t", "tmpfs", "none"] if kind == "disk" else ["--bind", str(source)])):
        if kind.endswith("lost+found"):
            (place / "lost+found").mkdir()
        for name in ("old", "new"):
            replace(place, name)
        assert content(place) == WHOLE
        assert os.path.isdir(place / "lost+found") == kind.endswith("lost+found")
        assert os.listdir(tmp_path / "a place") == os.listdir(place)
    assert sorted(os.listdir(tmp_path)) == ["a place", "source"]


def test_an_overlay(tmp_path: Path) -> None:
    """As a container sees a bundle of its image: the lower layer's folders can't be renamed, so contents are replaced."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    replace(tmp_path / "lower" / "d", "old")
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    with mounted(tmp_path / "merged", "-t", "overlay", "overlay", "-o", layers):
        replace(tmp_path / "merged" / "d")
        assert content(tmp_path / "merged" / "d") == WHOLE
        assert os.listdir(tmp_path / "merged") == ["d"]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EBUSY])
def test_a_directory_that_can_not_be_renamed(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an overlay: its contents are replaced."""
    replace(tmp_path / "d", "old")

    def refuse(*_: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(places, "_exchange", refuse)
    replace(tmp_path / "d")
    assert content(tmp_path / "d") == WHOLE
    assert os.listdir(tmp_path) == ["d"]


def test_a_disk_that_is_read_only(
    bundle: Bundle, precise: PrecisionZoo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is run, verified, calibrated and built from: what can't be kept is told. Writing to it is refused before any work."""
    specimen, seen = precise["vanilla"], []
    with mounted(bundle.path, "--bind", str(bundle.path)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(bundle.path)], check=True)
        load(bundle.path, threads=1).session().advance(np.ones((1, 3), np.int64))
        verify(bundle.path, specimen.model).require_equal()
        assert calibrate(bundle.path, [specimen.text], threads=1).products
        build(bundle.path, tmp_path / "int8", "int8", calibration=[specimen.text])
        told = [record.getMessage().partition(":")[0] for record in caplog.records]
        assert told == ["can't keep the report of verify", *["can't keep what was calibrated"] * 2]
        with pytest.raises(StorageError, match=r"b/\.foveal: Read-only file system; choose a path on a disk that is"):
            build(bundle.path, target="cuda", on_progress=lambda *step: seen.append(step))
    assert seen == []


def test_no_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nor one that can be written: what would be kept there is not, the reason is told, and the work goes on."""
    monkeypatch.delenv("FOVEAL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory.")))
    assert not keep(cache_directory() / "kernels", b"x", "the kernels")
    assert caplog.messages == ["can't keep the kernels: there is no home directory; set FOVEAL_CACHE"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "file"))
    assert not keep(cache_directory() / "kernels", b"x", "the kernels")
    assert cache.find("0" * 64) is None
    built = cache.CacheEntry(engine_sha256="", build=None, layers=None)  # type: ignore[arg-type]
    assert cache.keep("0" * 64, memoryview(b"engine"), built).engine_sha256
    assert "can't keep the engine for other builds: " in caplog.text


def test_a_disk_that_is_full(bundle: Bundle, tmp_path: Path) -> None:
    """One line with the path and a remedy; what was there is there, and nothing else."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=100k", "none"):
        for path in (disk, disk / "x" / "b"):
            with pytest.raises(StorageError, match=r"/disk.*: No space left on device; free some space, or choose a path on"):
                build(bundle.path, path, "w8")
            assert [found for found in disk.rglob("*") if found.name != MANIFEST] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_refusal_at_every_point(number: int, tmp_path: Path) -> None:
    """Whatever call to the file system fails: one line with a path and what to do, and nothing lost."""
    script = "import sys; from refusals import main; main(sys.argv[1], int(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(number)], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_every_refusal_is_one_line() -> None:
    """With the path, the system's reason, and what to do; the number stays for programs. A closed pipe is no disk."""
    for number in (*errno.errorcode, 999):
        error = OSError(number, os.strerror(number))
        kind = type(error) if isinstance(error, ConnectionError | InterruptedError) else StorageError
        with pytest.raises(kind) as caught, storage_errors("/some/path"):
            raise error
        if kind is StorageError:
            assert str(caught.value).startswith(f"/some/path: {os.strerror(number)}; ")
            assert (caught.value.errno, caught.value.filename) == (number, "/some/path")


OUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a file": (lambda root: root / "file", "file exists and is not a bundle, but a file; choose another path"),
    "a folder of files": (lambda root: root / "thesis", r"thesis exists and is not a bundle; .* \(it holds thesis\.tex\)"),
    "under a file": (lambda root: root / "file" / "b", "Not a directory; a part of the path is a file; choose another path"),
    "in the bundle": (lambda root: root / "b" / "out", "out is inside the bundle .*b; choose a path outside of it"),
    "in its stages": (lambda root: root / "b" / "stages" / "out", "is inside the bundle"),
    "the parent": (lambda root: root, "exists and is not a bundle"),
    "too long": (lambda root: root / ("n" * 300), "File name too long; choose a shorter path"),
    "the root": (lambda _: Path("/"), "/ exists and is not a bundle"),
}


@pytest.mark.parametrize("kind", OUTS)
def test_where_no_bundle_can_be(kind: str, bundle: Bundle, tmp_path: Path) -> None:
    """Refused before anything is done, in one line; and nothing is changed."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    out, reason = OUTS[kind]
    before, seen = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}, []
    with pytest.raises((BundleError, StorageError), match=reason):
        build(bundle, out(tmp_path), "w8", on_progress=lambda *step: seen.append(step))
    assert seen == []
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}.items() <= before.items()
    assert set(tmp_path.rglob("*")) == before.keys()


def test_one_writer_at_a_time(bundle: Bundle) -> None:
    """The second waits, says so, and keeps what the first added."""
    seen: list[str] = []
    with new_bundle(bundle.path, lambda *_: None) as directory:
        other = threading.Thread(
            target=lambda: build(bundle.path, target="cuda", on_progress=lambda doing, *_: seen.append(doing))
        )
        other.start()
        other.join(0.5)
        assert other.is_alive()
        assert seen == [f"waiting for another command that writes {bundle.path}"]
        for name in ("stages", "engines", MANIFEST):
            copy = shutil.copytree if (bundle.path / name).is_dir() else shutil.copyfile
            copy(bundle.path / name, directory / name)
    other.join()
    assert set(open_bundle(bundle.path).manifest.engines) == {"cpu", "cuda"}
    assert os.listdir(bundle.path.parent) == [bundle.path.name]


def test_readers_do_not_wait_for_a_writer(bundle: Bundle, tmp_path: Path) -> None:
    """The old bundle is read until the new one is there; where there is none yet, that is said."""
    with pytest.raises(RuntimeError), new_bundle(bundle.path, lambda *_: None):
        assert open_bundle(bundle.path).manifest == bundle.manifest
        raise RuntimeError
    with pytest.raises(RuntimeError), new_bundle(tmp_path / "later", lambda *_: None):
        with pytest.raises(BundleError, match="later is being written by another command; wait until that is done"):
            open_bundle(tmp_path / "later")
        raise RuntimeError


def test_held_files(tmp_path: Path) -> None:
    """A file is held while somebody lives who holds it; whoever removed it meanwhile is noticed."""
    (tmp_path / "f").write_text("")
    assert not is_held(tmp_path / "f")
    held = hold(tmp_path / "f")
    assert held is not None
    with held:
        assert is_held(tmp_path / "f")
        waits: list[Any] = []
        wait = lambda: waits.append(hold(tmp_path / "f", create=False, on_wait=lambda: waits.append(0)))  # noqa: E731
        other = threading.Thread(target=wait)
        other.start()
        other.join(0.2)
        assert waits == [0]
        (tmp_path / "f").unlink()
    other.join()
    assert waits == [0, None]


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is told; nothing is cleared, as nobody can tell what is left from what is being written."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("foveal.locks.fcntl", SimpleNamespace(flock=refuse, LOCK_EX=2, LOCK_NB=4))
    replace(tmp_path / "d")
    assert content(tmp_path / "d") == WHOLE
    assert "this file system knows no locks (No locks available): let no two commands write to one bundle" in caplog.text
    (tmp_path / ".f.1.foveal-part").write_text("")
    clear_parts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".f.1.foveal-part", "d"]


def test_halves_of_files_are_cleared(tmp_path: Path) -> None:
    """By the next write in their folder; those of the living are not."""
    for name in (".f.1.foveal-part", ".f.2.foveal-part"):
        (tmp_path / name).write_text("half")
    held = hold(tmp_path / ".f.2.foveal-part")
    assert held is not None
    with held:
        write_atomically(tmp_path / "g", b"whole")
        assert sorted(os.listdir(tmp_path)) == [".f.2.foveal-part", "g"]


def test_scratch_directories_are_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process's by the next; a living one's at its end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "import os; from foveal.files import scratch_directory\nwith scratch_directory(): os._exit(9)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert len(os.listdir(tmp_path)) == 1
    with scratch_directory() as first, scratch_directory() as second:
        assert {first.name, second.name} == set(os.listdir(tmp_path))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_older_process_left_does_not_stop_a_reader(bundle: Bundle) -> None:
    """Nor is a place half replaced that can be mended taken for none: whoever looks mends it."""
    work = places._inner(bundle.path)
    (work / "leaving").mkdir(parents=True)
    (bundle.path / MANIFEST).rename(work / "leaving" / MANIFEST)
    (bundle.path / "stages").rename(work / "leaving" / "stages")
    assert open_bundle(bundle.path).manifest == bundle.manifest
    assert not work.exists()
