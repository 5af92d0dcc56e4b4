"""When engines of a command share one pool of threads: they spin for long, and so must not run beside native steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from native_reference import ReferenceLibrary
from specimens import Zoo

from foveal.bundle import Bundle, open_bundle
from foveal.cli import threads
from foveal.errors import BackendUnavailable, BundleError
from foveal.runtime import native_engines


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pools that a command makes, by their threads; none is made, as it could not be undone."""
    made: list[int] = []
    monkeypatch.setattr(threads._Process, "is_own", True)
    monkeypatch.setattr("foveal.runtime.share_threads", made.append)
    return made


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of native steps, in numpy."""
    monkeypatch.setattr(native_engines, "native_library", ReferenceLibrary)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library of native steps."""

    def none() -> None:
        raise BackendUnavailable("foveal-native is not installed")

    monkeypatch.setattr(native_engines, "native_library", none)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("native", [None, True])
def test_beside_native_steps_no_pool_is_shared(zoo: Zoo, pools: list[int], native: bool | None) -> None:
    bundle = zoo["nested"].bundle
    assert threads.pool_threads(bundle, "cpu", 2, native) == 2
    assert threads.pool_threads(bundle.path, "cpu", 2, native) == 2
    assert pools == []


@pytest.mark.usefixtures("installed")
def test_graphs_alone_share_one(zoo: Zoo, pools: list[int]) -> None:
    assert threads.pool_threads(zoo["nested"].bundle.path, "cpu", 2, native=False) == 2
    assert pools == [2]


@pytest.mark.usefixtures("missing")
def test_so_they_do_where_there_is_no_library_of_native_steps(zoo: Zoo, pools: list[int]) -> None:
    assert threads.pool_threads(zoo["nested"].bundle, "cpu", 2) == 2
    assert pools == [2]


@pytest.mark.usefixtures("installed")
def test_one_native_stage_among_graphs_is_enough(zoo: Zoo, pools: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, of_stage = open_bundle(zoo["nested"].bundle.path), Bundle.program
    last = bundle.manifest.stages[-1].spec.name
    monkeypatch.setattr(Bundle, "program", lambda self, stage: of_stage(self, stage) if stage == last else None)
    threads.pool_threads(bundle, "cpu", 2)
    assert pools == []
    monkeypatch.setattr(Bundle, "program", lambda self, stage: None)
    threads.pool_threads(bundle, "cpu", 2)
    assert pools == [2]


def test_other_targets_have_no_threads(zoo: Zoo, pools: list[int]) -> None:
    assert threads.pool_threads(zoo["nested"].bundle.path, "cuda", None) is None
    assert pools == []


def test_no_bundle_is_refused_before_there_is_a_pool(tmp_path: Path, pools: list[int]) -> None:
    with pytest.raises(BundleError):
        threads.pool_threads(tmp_path / "none", "cpu", 2)
    assert pools == []
