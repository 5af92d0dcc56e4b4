"""How the subject is built."""

from __future__ import annotations

from ..document import ModelFacts, Report, StageFacts
from ..lookup import subject_of
from ..numbers import label, megabytes, millions, percent
from ..pictures.hierarchy import describe_hierarchy, draw_hierarchy, reads_of
from .section import Picture, Section, Table


def hierarchy(report: Report) -> Section:
    """The picture of the subject, and the stages of every bundle of another model."""
    model = subject_of(report)
    others = [other for other in report.models[1:] if other.same_as == other.name]
    return Section(
        name="hierarchy",
        title="How it is built",
        lead=[
            f"{model.architecture.capitalize()} “{model.hierarchy}”: {millions(model.parameters)} parameters, width "
            f"{model.dim}, vocabulary {model.vocab_size:,}, context {model.context:,} tokens. Each token costs "
            f"{model.layer_equivalents:.2f} layers’ work on average. In the picture a slab is a layer; the narrower a stage, "
            "the less often it fires. Arrows say what it reads."
        ],
        pictures=[
            Picture("hierarchy", f"Stages of {label(model.name)}", describe_hierarchy(model), lambda: draw_hierarchy(model))
        ],
        shown=[_parts(model)],
        tables=[_stages(one) for one in [model, *others]],
        commands=report.commands.describe[:1],
    )


def _parts(model: ModelFacts) -> Table:
    return Table(
        title="Stages, from tokens to logits",
        header=["stage", "fires every", "layers", "parameters", "share", "weights, MB"],
        rows=[
            [
                stage.name,
                _every(stage),
                str(stage.layers),
                millions(stage.parameters),
                percent(stage.parameter_share),
                megabytes(stage.weight_bytes),
            ]
            for stage in model.stages
        ],
    )


def _every(stage: StageFacts) -> str:
    if stage.expected is not None:
        return f"~{stage.expected:g} tokens"
    return "token" if stage.stride == 1 else f"{stage.stride} tokens"


def _stages(model: ModelFacts) -> Table:
    return Table(
        title=f"{label(model.name)}: stages",
        header=[
            "stage",
            "fires every",
            "layers",
            "parameters",
            "share",
            f"weights ({model.precision}), MB",
            "of which tables",
            "reads",
        ],
        rows=[
            [
                stage.name,
                str(stage.stride) if stage.expected is None else f"~{stage.expected:g}",
                str(stage.layers),
                f"{stage.parameters:,}",
                percent(stage.parameter_share),
                megabytes(stage.weight_bytes),
                megabytes(stage.table_bytes) if stage.table_bytes else "0",
                reads_of(stage),
            ]
            for stage in model.stages
        ],
        texts=frozenset({7}),
    )
