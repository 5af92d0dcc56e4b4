"""A report of small bundles, measured once in a run of the tests; its memory and bandwidth are not measured but made up."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from precisions import PrecisionZoo
from store import Store

from foveal.bench import bandwidth
from foveal.bench.claims.process import ProcessMemory
from foveal.bench.decode import Load
from foveal.precision import Plan
from foveal.report.document import Report
from foveal.report.facts import memory
from foveal.report.gather import Wanted, gather

WORK = Load(8, 32, rounds=2)
NAMES = ("small.bundle", "small-w8.bundle", "plain.bundle")


def small_bundles(precise: PrecisionZoo, directory: Path) -> list[Path]:
    """A nested model, the same in w8, and a vanilla one; links, as figures go by name."""
    nested = precise["nested"]
    found = [directory / name for name in NAMES]
    for link, bundle in zip(found, (nested.full, nested.build(Plan(default="w8")), precise["vanilla"].full), strict=True):
        link.symlink_to(bundle.path)
    return found


def small_report(precise: PrecisionZoo, store: Store) -> Report:
    """What `foveal report` gathers of them, with a loss on the text that they were calibrated on."""

    def make(directory: Path) -> None:
        paths = small_bundles(precise, directory)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
            patch.setattr(
                memory, "measure_process", lambda *_: (ProcessMemory(before=1, loaded=2_000_000, peak=9_000_000), None)
            )
            wanted = Wanted(work=WORK, threads=1, texts=[precise["nested"].text], limit=4, command="foveal report small.bundle")
            found = gather(paths, wanted)
        for path in paths:
            path.unlink()
        (directory / "report.json").write_bytes(msgspec.json.encode(found))

    return msgspec.json.decode((store.once("report", make) / "report.json").read_bytes(), type=Report)
