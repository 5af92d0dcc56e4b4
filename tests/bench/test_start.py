"""Cold processes, phase by phase, and the memory of several."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from specimens import Zoo

from foveal import ConfigError
from foveal.bench.start import Start, drop_from_page_cache, measure

PHASES = ("interpreter", "import foveal, numpy", "import onnxruntime", "load", "session", "prefill", "first token")


@pytest.fixture(scope="module")
def found(zoo: Zoo) -> Start:
    """One round of each kind, and one worker."""
    return measure(zoo["nested"].bundle.path, 1, 4, 1, {"this": sys.executable}, evict=True, options={"verify": "all"})


def test_phases_are_all_of_the_time(found: Start) -> None:
    """From the start of the process to the first token, of a first load and of a later one."""
    assert found.phases.keys() == found.samples.keys() == {"this, first", "this, later"}
    for phases in found.phases.values():
        assert sum(phases[name] for name in PHASES) == pytest.approx(phases["all"])
        assert all(phases[name] > 0 for name in PHASES)
        assert phases["threads"] >= 1
    assert all(ms > 0 for ms in found.parts.values())


def test_proportional_memory_is_between_private_and_resident(found: Start) -> None:
    """Libraries are shared with this very process."""
    memory = found.memory["this"]
    assert 0 < memory.private <= memory.proportional < memory.resident


def test_a_process_that_fails_says_why(zoo: Zoo) -> None:
    """Its own last line."""
    with pytest.raises(ConfigError, match="a measured process failed: .*verify is 'never', expected one of used, all, once"):
        measure(zoo["nested"].bundle.path, 1, 4, 0, {"this": sys.executable}, evict=False, options={"verify": "never"})


def test_what_is_dropped_is_still_on_the_disk(tmp_path: Path) -> None:
    """Also what was not written there yet."""
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    drop_from_page_cache(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"x" * 100_000
