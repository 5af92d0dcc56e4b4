"""Time and memory against the position."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from specimens import Zoo

from foveal import CapacityError, ConfigError, load
from foveal.bench.long_context import LongContext, draw, measure, medians, models, show

POSITIONS = (8, 24)


@pytest.fixture(scope="module")
def rounds(zoo: Zoo) -> list[LongContext]:
    return [measure(zoo["nested"].bundle.path, "nested", threads=1, positions=POSITIONS, periods=1) for _ in range(2)]


def test_every_position_has_its_time_and_what_is_in_use_there(rounds: list[LongContext], zoo: Zoo) -> None:
    """Rows and caches grow with the position, and are all in use where the context ends."""
    first, second = rounds[0].points
    assert (first.position, second.position) == POSITIONS
    assert 0 < first.state_bytes < second.state_bytes < rounds[0].state_reserved_bytes
    assert first.ms > 0
    with load(zoo["nested"].bundle, threads=1).session(capacity=16) as session:
        assert rounds[0].state_reserved_bytes > sum(session.state_bytes.values())


def test_rounds_of_a_name_are_drawn_as_their_median(rounds: list[LongContext], tmp_path: Path) -> None:
    other = msgspec.structs.replace(rounds[0], name="nested, before")
    found = medians([*rounds, other])
    assert list(found) == ["nested", "nested, before"]
    times = sorted(result.points[0].ms for result in rounds)
    assert found["nested"][0].ms == pytest.approx(sum(times) / 2)
    draw(tmp_path / "picture.svg", [*rounds, other])
    assert "nested, before" in (tmp_path / "picture.svg").read_text()
    assert show(rounds).row_count == len(POSITIONS)


def test_rounds_of_other_positions_are_refused(rounds: list[LongContext]) -> None:
    shorter = msgspec.structs.replace(rounds[0], points=rounds[0].points[:1])
    with pytest.raises(ConfigError, match=r'rounds of "nested" are of positions \[\[8, 24\], \[8\]\], expected the same'):
        medians([rounds[0], shorter])


def test_a_context_that_ends_before_the_last_position_is_refused(zoo: Zoo) -> None:
    with pytest.raises(CapacityError, match=r"has a context of \d+ tokens, got \d+ tokens to time behind 16000; take a model"):
        measure(zoo["nested"].bundle.path, "nested", threads=1)


def test_models_have_as_many_layers_each() -> None:
    """Small contexts, as tables of distances are as long."""
    layers = {name: sum(stage.spec.layers for stage in model().stages()) for name, model in models(context=64).items()}
    assert layers == dict.fromkeys(("vanilla", "hourglass", "trax", "retina", "megabyte"), 6)
