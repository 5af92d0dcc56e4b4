"""Time between tokens of the subject, by what fires and by phase."""

from __future__ import annotations

from ...bench.result import ModelResult
from ..document import LatencyFacts, Report
from ..lookup import latency_of, result_of
from ..numbers import label, percent, significant
from ..pictures.latency import describe_distribution, describe_phases, draw_distribution, draw_phases, group_name
from .section import Picture, Section, Table


def latency(report: Report) -> Section:
    """How long a reader waits for a token."""
    facts, measured = latency_of(report, report.subject), result_of(report, report.subject)
    if facts.missing is not None:
        title = "Time from token to token"
        return Section(
            name="latency",
            title=title,
            lead=[_lead(measured)],
            missing=f"By what fires: {facts.missing}.",
            commands=[report.commands.measurement],
        )
    pictures = [
        Picture(
            "distribution", "Inter-token latency by what fires", describe_distribution(facts), lambda: draw_distribution(facts)
        )
    ]
    if facts.phases:
        pictures.append(Picture("phases", "Inter-token latency by phase", describe_phases(facts), lambda: draw_phases(facts)))
    return Section(
        name="latency",
        title="Time from token to token",
        lead=[_lead(measured), *_how_to_read(facts)],
        pictures=pictures,
        shown=[_medians(facts)],
        tables=[_groups(facts), *([_phases(facts)] if facts.phases else []), _histogram(facts)],
        missing=None if facts.phases_missing is None else f"By phase: {facts.phases_missing}.",
        commands=[report.commands.measurement],
    )


def _lead(measured: ModelResult) -> str:
    itl = measured.latency.itl_ms
    tail = "" if itl.p99 is None else f", the 99th percentile {significant(itl.p99)} ms"
    return (
        f"The median step of {label(measured.name)} takes {significant(itl.p50)} ms{tail}, of {itl.count:,} steps. The first "
        f"token after the prompt comes in {significant(measured.latency.ttft_ms.p50)} ms."
    )


def _how_to_read(facts: LatencyFacts) -> list[str]:
    beyond = f" {facts.above} slower steps lie to the right of the picture." if facts.above else ""
    said = [f"Steps are counted by the stages that they fire.{beyond}"]
    if facts.phases:
        said[0] += " By phase: a bar goes from the 10th to the 90th percentile, the line in it is the median."
    return said


def _medians(facts: LatencyFacts) -> Table:
    return Table(
        title="By what fires",
        header=["steps in which", "of all", "p50, ms", "p90"],
        rows=[
            [group_name(group), percent(group.share), significant(group.itl_ms.p50), significant(group.itl_ms.p90)]
            for group in facts.groups
        ],
    )


def _groups(facts: LatencyFacts) -> Table:
    return Table(
        title="Milliseconds by what fires",
        header=["steps in which", "steps", "share", "mean", "p50", "p90", "p95", "p99", "max"],
        rows=[
            [
                group_name(group),
                f"{group.itl_ms.count:,}",
                percent(group.share),
                *(
                    significant(value)
                    for value in (
                        group.itl_ms.mean,
                        group.itl_ms.p50,
                        group.itl_ms.p90,
                        group.itl_ms.p95,
                        group.itl_ms.p99,
                        group.itl_ms.max,
                    )
                ),
            ]
            for group in facts.groups
        ],
    )


def _phases(facts: LatencyFacts) -> Table:
    return Table(
        title="Milliseconds by phase",
        header=["phase", "steps", "p10", "p50", "p90", "fires"],
        rows=[
            [
                str(phase.phase),
                f"{phase.count:,}",
                significant(phase.p10_ms),
                significant(phase.p50_ms),
                significant(phase.p90_ms),
                group_name(facts.groups[phase.group]),
            ]
            for phase in facts.phases
        ],
        texts=frozenset({5}),
    )


def _histogram(facts: LatencyFacts) -> Table:
    edges = facts.edges_ms
    return Table(
        title="Steps of the histogram",
        header=["ms", *(group_name(group) for group in facts.groups)],
        rows=[
            [f"{edges[index]:.3f} to {edges[index + 1]:.3f}", *(str(group.counts[index]) for group in facts.groups)]
            for index in range(len(edges) - 1)
            if any(group.counts[index] for group in facts.groups)
        ],
    )
