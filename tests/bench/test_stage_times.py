"""Times of calls by size: what lies between and beyond those measured. No test depends on a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from specimens import Zoo

from foveal import ConfigError
from foveal.bench.decode import Load
from foveal.bench.stage_times import TimeCurve, measure_stage_times, read_stage_times, save_stage_times
from foveal.runtime.model import load


@pytest.mark.parametrize(("size", "ns"), [(1, 10.0), (2, 12.0), (3, 16.0), (4, 20.0), (6, 28.0), (104, 420.0)])
def test_times_lie_on_straight_lines(size: int, ns: float) -> None:
    """Beyond the last on that through the last two."""
    assert TimeCurve([1, 2, 4], [10.0, 12.0, 20.0]).at(size) == ns


def test_larger_calls_do_not_get_cheaper() -> None:
    """Where noise says so."""
    assert TimeCurve([1, 2], [10.0, 8.0]).at(64) == 8.0
    assert TimeCurve([4], [10.0]).at(1) == TimeCurve([4], [10.0]).at(9) == 10.0


@pytest.mark.parametrize(
    ("sizes", "ns"),
    [([], []), ([1, 2], [1.0]), ([2, 1], [1.0, 1.0]), ([0, 1], [1.0, 1.0]), ([1], [0.0]), ([1], [float("nan")])],
    ids=["none", "too few", "fall", "nothing", "no time", "no number"],
)
def test_no_curve(sizes: list[int], ns: list[float]) -> None:
    """Nothing could be read off."""
    with pytest.raises(ValueError, match="sizes that grow from 1"):
        TimeCurve(sizes, ns)


@pytest.mark.parametrize("name", ["nested", "vanilla"])
def test_every_stage_is_measured_for_every_size(zoo: Zoo, name: str, tmp_path: Path) -> None:
    """Host and prompts too; what is saved can be read."""
    model = load(zoo[name].bundle, threads=1)
    doing: list[str] = []
    times = measure_stage_times(model, Load(10, 16, rounds=1), 6, lambda what, _done, _steps: doing.append(what))
    stages = model.specs
    assert list(times.stages) == [stage.name for stage in stages]
    assert all(curve.sizes == [1, 2, 4, 6] for curve in times.stages.values())
    assert list(times.prefill) == list(times.stages)
    assert set(times.prefill[stages[0].name].sizes) == {1, 2, 4, 8, 10}
    assert (times.host.sizes, times.largest) == ([1, 2, 4, 6], 6)
    assert doing == 2 * ["1 sequences", "2 sequences", "4 sequences", "6 sequences"]
    save_stage_times(tmp_path / "t.json", times)
    assert read_stage_times(tmp_path / "t.json", zoo[name].bundle) == times


def test_one_size_makes_no_line(zoo: Zoo) -> None:
    """It takes two points."""
    with pytest.raises(ConfigError, match="times are measured for 1 to 1 sequences, expected at least 2"):
        measure_stage_times(load(zoo["vanilla"].bundle, threads=1), Load(4, 4), 1)
