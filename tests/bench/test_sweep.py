"""Sweeps: every combination is a point, in rounds that alternate. No test depends on a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from specimens import Zoo

from foveal import CapacityError, ConfigError
from foveal.bench import bandwidth
from foveal.bench.decode import Load
from foveal.bench.difference import difference
from foveal.bench.run import bench
from foveal.bench.saved import read_saved
from foveal.bench.show_sweep import show_sweep
from foveal.bench.sweep import Axes, sweep
from foveal.bench.sweep_result import SweepResult


@pytest.fixture(scope="module")
def result(zoo: Zoo) -> SweepResult:
    """Of two bundles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        bundles = [zoo["nested"].bundle.path, zoo["vanilla"].bundle.path]
        return sweep(bundles, Axes((8, 24), (1, 2), (1, 2)), new_tokens=8, rounds=3, command="test")


def test_every_combination_is_a_point(result: SweepResult) -> None:
    """In the order of bundles, threads, contexts and batches."""
    points = [(one.bundle, one.threads, one.context, one.batch) for one in result.points]
    expected = [(b, t, c, n) for b in ("nested", "vanilla") for t in (1, 2) for c in (8, 24) for n in (1, 2)]
    assert points == expected
    assert len({one.label for one in result.points}) == len(points)
    assert all(len(one.tokens_per_s_by_round) == 3 and one.itl_ms.count == 24 for one in result.points)


def test_ratios_are_to_the_first_point(result: SweepResult) -> None:
    """Whose own is 1."""
    assert result.points[0].ratio.ratio == 1
    assert all(one.ratio.rounds == 3 and one.ratio.low is not None for one in result.points)


def test_without_threads_all_have_those_of_the_first(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """That decode it fastest."""
    monkeypatch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
    monkeypatch.setattr("foveal.runtime.model._fastest_thread_count", lambda bundle, _: 1 + ("nested" in bundle.path.name))
    bundles = [zoo[name].bundle.path for name in ("nested", "vanilla")]
    found = sweep(bundles, Axes((4,)), new_tokens=2, rounds=1)
    assert [point.threads for point in found.points] == [2, 2]


@pytest.mark.parametrize(
    ("axes", "error", "sentence"),
    [
        ({"contexts": (8, 95)}, CapacityError, "has a context of 96 tokens, got a prompt of 95 and 8 new tokens"),
        ({"contexts": (84,), "batches": (2,)}, CapacityError, "a staggered batch takes up to"),
        ({"contexts": ()}, ConfigError, r"contexts are \[\], expected different numbers of at least 1"),
        ({"contexts": (8,), "threads": (1, 1)}, ConfigError, r"threads are \[1, 1\], expected different numbers"),
    ],
)
def test_what_has_no_sense_is_refused_before_anything_is_measured(
    zoo: Zoo, axes: dict[str, Any], error: type[Exception], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence."""
    monkeypatch.setattr("foveal.bench.sweep.measure_round", None)
    with pytest.raises(error, match=sentence):
        sweep([zoo["nested"].bundle.path], Axes(**axes), new_tokens=8, rounds=1)


@pytest.mark.parametrize("measure", [lambda paths: sweep(paths, Axes((8,))), lambda paths: bench(paths, Load(8, 8))])
def test_two_bundles_of_one_name_are_refused(
    measure: Callable[[list[Path]], object], zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One twice, however it is written, or two folders that are called the same: before any is opened."""
    monkeypatch.setattr("foveal.bench.sweep.load", None)
    monkeypatch.setattr("foveal.bench.run.load", None)
    path = zoo["nested"].bundle.path
    for other in (path, path / ".." / path.name, path / ".", tmp_path / path.name):
        with pytest.raises(
            ConfigError, match=f"^2 bundles are called {path.name}, and figures go by name; rename all but one$"
        ):
            measure([path, other])


def test_two_sweeps_are_compared_point_by_point(result: SweepResult, tmp_path: Path) -> None:
    """By their labels; a point that is not in the second is missing."""
    (tmp_path / "s.json").write_bytes(msgspec.json.encode(result))
    read = read_saved(tmp_path / "s.json")
    assert read == result
    shorter = msgspec.structs.replace(result, points=result.points[1:])
    found = difference(result, shorter)
    assert (found.changed, found.missing) == (
        [],
        ["nested, 1 thread, batch 1, context 8, decode", "nested, 1 thread, batch 1, context 8, step p50"],
    )


def test_the_table_has_a_row_for_each_point(result: SweepResult) -> None:
    """With its ratio and interval."""
    console = Console(width=200, record=True)
    show_sweep(result, console)
    text = console.export_text()
    assert len(re.findall(r"^ (nested|vanilla) .*\d \(\d.* to ", text, flags=re.MULTILINE)) == len(result.points)
