"""What is kept of a run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from run_records import BEGIN, END, sentence, write_record

from foveal.bench.environment import read_environment

MACHINE = msgspec.structs.replace(
    read_environment(),
    created_utc="2026-11-29T06:00:00+00:00",
    cpu="a CPU",
    cpus_usable=2,
    python="3.11.9",
    packages={"torch": "2.13.0", "onnxruntime": "1.32.0", "tensorrt_rtx": None},
)


def test_a_run_in_words() -> None:
    """How it ended, how long it took, and on what; outcomes that did not occur are left out."""
    assert sentence({"passed": 3456, "skipped": 70, "": 99}, 840.0, "200", MACHINE, "abc1234") == (
        "2026-11-29, commit abc1234: 3,456 passed, 70 skipped, in 14 minutes on 2 cores (a CPU), "
        "with 200 examples of most properties.\nPython 3.11.9, torch 2.13.0, onnxruntime 1.32.0, tensorrt_rtx None."
    )
    assert "1 failed, in" in sentence({"failed": 1}, 60.0, "25", MACHINE, "abc1234")


def test_the_record_is_replaced(tmp_path: Path) -> None:
    """And nothing else of the page."""
    page = tmp_path / "p.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_record(page, "new: C:\\1")
    assert page.read_text() == f"before\n{BEGIN}\nnew: C:\\1\n{END}\nafter\n"


def test_a_page_without_a_place_for_it(tmp_path: Path) -> None:
    """Is left as it is."""
    page = tmp_path / "p.md"
    page.write_text("before\n")
    with pytest.raises(ValueError, match="has 0 places for a record, expected one: <!-- the last run"):
        write_record(page, "new")
    assert page.read_text() == "before\n"
