"""A picture of shuffled-context probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .plotting import new_axes, save
from .probe import Probe


def draw_probes(out: Path, probes: Sequence[Probe]) -> None:
    """Draw the rise of the loss by the distance behind the border, with 95 % intervals.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    figure, axes = new_axes()
    for probe in probes:
        middles = [(distance.first + distance.last) / 2 for distance in probe.distances]
        axes.errorbar(
            middles,
            [distance.nats for distance in probe.distances],
            yerr=[distance.half_width for distance in probe.distances],
            marker=".",
            capsize=2,
            label=f"{Path(probe.bundle).name}, {probe.precision}",
        )
    axes.axhline(probes[0].threshold, color="grey", linestyle=":", label=f"{probes[0].threshold} nats")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="tokens behind the shuffled half", ylabel="rise of the loss, nats per token")
    axes.legend()
    save(figure, out)
