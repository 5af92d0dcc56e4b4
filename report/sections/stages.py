"""Where the time goes."""

from __future__ import annotations

from collections.abc import Mapping

from ...bench.result import ModelResult
from ...bench.show import stride_of
from ..document import ModelFacts, Report
from ..lookup import result_of, subject_of
from ..numbers import label, percent, significant
from ..pictures.stages import describe_stages, draw_stages
from .section import Picture, Section, Table


def stages(report: Report) -> Section:
    """The subject's stages as a picture, those of all models in tables."""
    model = subject_of(report)
    measured, shares = result_of(report, model.name), report.time_shares[model.name]
    return Section(
        name="stages",
        title="Where the time goes",
        lead=[
            "A stage’s share of the parameters, and of the time that engines take per token. Where the second bar is "
            "shorter, the hierarchy pays: weights that are held, but seldom run. Times are of a round of its own, as "
            "watching takes time itself; tables of token embeddings count as parameters, and take next to no time."
        ],
        pictures=[
            Picture(
                "stages",
                f"Time and parameters by stage of {label(model.name)}",
                describe_stages(model, shares),
                lambda: draw_stages(model, shares),
            )
        ],
        shown=[_shares(model, measured, shares)],
        tables=[_table(one, report.time_shares[one.name]) for one in report.measured.models if one.stages],
        commands=[report.commands.measurement],
    )


def _shares(model: ModelFacts, measured: ModelResult, shares: Mapping[str, float]) -> Table:
    taken = {stage.name: stage.ms_per_token for stage in measured.stages}
    return Table(
        title="Per token, on average",
        header=["stage", "ms", "of the time", "of the parameters"],
        rows=[
            [stage.name, significant(taken[stage.name]), percent(shares[stage.name]), percent(stage.parameter_share)]
            for stage in model.stages
        ],
    )


def _table(measured: ModelResult, shares: Mapping[str, float]) -> Table:
    host = (
        []
        if measured.host_us_per_step is None
        else [["outside of engines", "", "", "", significant(measured.host_us_per_step / 1e3), "", ""]]
    )
    return Table(
        title=f"{label(measured.name)}: stages while decoding",
        header=["stage", "fires every", "fired", "a call, ms (p50)", "ms per token", "share", "runs on"],
        rows=[
            [
                stage.name,
                stride_of(stage),
                f"{stage.fires:,}",
                significant(stage.engine_ms.p50),
                significant(stage.ms_per_token),
                percent(shares[stage.name]),
                stage.runs_on,
            ]
            for stage in measured.stages
        ]
        + host,
        texts=frozenset({6}),
    )
