"""The directory that a run leaves: `claims.json` and the pictures."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ...calibration.probe_plot import draw_probes
from ...files import write_atomically
from .result import ClaimsResult
from .timeline_plot import draw_timeline


def save(directory: Path, result: ClaimsResult) -> list[Path]:
    """Write everything that was measured, raw rounds and calls included; returns the files.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    written = [directory / "claims.json"]
    write_atomically(written[0], msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    if result.firing is not None:
        for model in result.firing.models:
            written.append(directory / f"firing-{model.model.partition(' ')[0]}.svg")
            draw_timeline(written[-1], model)
    if result.order is not None:
        written.append(directory / "order.svg")
        draw_probes(written[-1], result.order.probes)
    return written
