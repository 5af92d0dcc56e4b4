"""How near decoding comes to what memory gives."""

from __future__ import annotations

from ...bench.result import RooflineResult
from ..document import Report
from ..numbers import label, megabytes, percent, significant
from ..pictures.bars import describe_roofline, draw_roofline
from .section import Picture, Section, Table


def roofline(report: Report) -> Section:
    """Bytes read per second against the bandwidth."""
    models = [model for model in report.measured.models if model.roofline is not None]
    if not models:
        return Section(name="roofline", title="Roofline", missing="No bytes were counted in this measurement.")
    rows = [_row(model.name, line) for model in models if (line := model.roofline) is not None]
    return Section(
        name="roofline",
        title="Roofline: how near the limit",
        lead=[
            "Every decode step must read the weights of the stages that fire, and their caches. The bars are those bytes "
            "times the tokens per second that were reached; the dashed line is how fast this machine reads plain memory, "
            "measured in the same rounds. Beyond the line, weights stay in the processor’s caches from token to token; far "
            "below it, something else than memory takes the time."
        ],
        pictures=[Picture("roofline", "GB/s that decoding reads", describe_roofline(models), lambda: draw_roofline(models))],
        shown=[
            Table(
                title="What decoding reads",
                header=["", "weights, MB/token", "caches", "GB/s", "share"],
                rows=[[name, weights, caches, reached, share] for name, weights, caches, reached, _, share, _ in rows],
            )
        ],
        tables=[
            Table(
                title="Bytes and bandwidth",
                header=[
                    "",
                    "weights, MB per token",
                    "caches, MB per token",
                    "GB/s reached",
                    "GB/s of the machine",
                    "share",
                    "weights alone",
                ],
                rows=rows,
            )
        ],
        commands=[report.commands.measurement],
    )


def _row(name: str, line: RooflineResult) -> list[str]:
    """All that was measured of one model."""
    return [
        label(name),
        megabytes(line.weight_bytes_per_token),
        megabytes(line.cache_bytes_per_token),
        significant(line.achieved_gb_s),
        significant(line.memory_bandwidth_gb_s),
        percent(line.share),
        percent(line.weights_share),
    ]
