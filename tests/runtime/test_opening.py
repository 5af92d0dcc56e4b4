"""The engines of a CPU are opened together: what goes wrong is the right stage's, and nothing of the others is left."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from specimens import Zoo

from foveal import BundleError, EngineMismatchError, load, open_bundle, parallel
from foveal.runtime import backends
from foveal.runtime.engines import onnxruntime as backend


@pytest.fixture
def bundle(zoo: Zoo, tmp_path: Path) -> Path:
    """Stages `1.pre`, `3`, `1.post`."""
    return Path(shutil.copytree(zoo["attention"].bundle.path, tmp_path / "b"))


@pytest.fixture(params=[1, 2, 8])
def cpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As many as there might be."""
    monkeypatch.setattr(parallel, "usable_cpus", lambda: request.param)
    return int(request.param)


class Opened:
    """Counts sessions that are alive; those of `slow` stages take a while, those of `failing` ones fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow: str = "", failing: tuple[str, ...] = ()) -> None:
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self.threads: set[int] = set()
        self.count = 0
        real = backend.open_session

        def opened(path: Path, stage: str, *others: Any) -> Any:
            self.threads.add(threading.get_ident())
            self.count += 1
            if stage == slow:
                time.sleep(0.05)
            if stage in failing:
                raise EngineMismatchError(f"stage {stage} fails")
            session = real(path, stage, *others)
            self.alive.add(session)
            return session

        monkeypatch.setattr(backend, "open_session", opened)


def test_engines_are_in_dataflow_order(bundle: Path, cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is opened first, and in whatever thread."""
    opened = Opened(monkeypatch, slow="1.pre")
    engines = backends.open_engines(open_bundle(bundle, "used"), "cpu", native=False)
    assert [engine.spec.name for engine in engines] == ["1.pre", "3", "1.post"]  # type: ignore[union-attr]
    assert len(opened.alive) == 3
    assert threading.get_ident() not in opened.threads


@pytest.mark.parametrize("failing", [("3",), ("1.post",), ("1.post", "3", "1.pre")])
def test_the_first_stage_that_fails_is_said(
    bundle: Path, cpus: int, failing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In dataflow order, though others fail earlier; engines that were opened are gone."""
    opened = Opened(monkeypatch, slow="1.pre", failing=failing)
    first = next(name for name in ("1.pre", "3", "1.post") if name in failing)
    with pytest.raises(EngineMismatchError, match=f"stage {first} fails"):
        load(bundle, threads=1, native=False)
    gc.collect()
    assert not opened.alive


def test_weights_that_are_not_whole_come_before_what_they_cause(
    bundle: Path, cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage may fail because of them; then the copy is what has to be mended."""
    opened = Opened(monkeypatch, failing=("1.pre", "3"))
    with (bundle / "engines/cpu/1.post.onnx.data").open("r+b") as file:
        file.write(b"\xff\xff\xff\xff")
    with pytest.raises(BundleError, match=r"1\.post\.onnx\.data was altered"):
        load(bundle, threads=1, native=False)
    gc.collect()
    assert not opened.alive


def test_a_graph_is_hashed_before_it_is_parsed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of no stage is anything opened when one's graph is damaged."""
    opened = Opened(monkeypatch)
    with (bundle / "engines/cpu/1.post.onnx").open("r+b") as file:
        file.write(b"\xff\xff\xff\xff")
    with pytest.raises(BundleError, match=r"1\.post\.onnx was altered"):
        load(bundle, threads=1, native=False)
    assert not opened.threads


def test_engines_that_raced_are_the_models(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are not opened again: two numbers of threads race, three stages each."""
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("foveal.runtime.threads.thread_counts", lambda: iter([1, 2]))
    opened = Opened(monkeypatch)
    model = load(bundle, native=False)
    gc.collect()
    assert {engine.session for engine in model.host_engines} == set(opened.alive)  # those that lost are gone
    assert opened.count == 2 * 3
    assert load(bundle, native=False).threads == model.threads in (1, 2)
    assert opened.count == 3 * 3  # nothing races again


def test_a_program_of_cpu_engines_imports_nothing_for_devices() -> None:
    """Neither the libraries that drive them nor what runs there, nor what looks for GPUs."""
    code = "import sys; import foveal.runtime.model; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    devices = ("cuda", "device_backends", "resident", "engines.tensorrt", "preflight.checking", "preflight.gpus", "store")
    assert not {f"foveal.runtime.{name}" for name in devices} & loaded
    assert not {"nvtx", "email", "onnxruntime", "tokenizers"} & loaded
