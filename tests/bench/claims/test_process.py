"""What is said where a process can't be measured."""

from __future__ import annotations

from pathlib import Path

from foveal.bench.claims.process import DECODED, _ends, measure_process


def test_chunks_then_single_tokens() -> None:
    """The last so many are decoded one by one."""
    assert _ends(40, 10) == [0, 10, 20, *range(40 - DECODED, 41)]
    assert _ends(3, 10) == [0, 1, 2, 3]


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    """In its own last words."""
    found, reason = measure_process(tmp_path / "nothing", "cpu", 1, 8, 8)
    assert found is None
    assert reason is not None
    assert "is not a bundle" in reason
