"""What each precision costs."""

from __future__ import annotations

from ..document import Loss, Report
from ..numbers import change, label, significant
from ..pictures.precision import Point, describe_precision, draw_precision
from .section import Picture, Section, Table


def precision(report: Report) -> Section:
    """Loss on a text against time per token."""
    if not report.losses:
        return Section(name="precision", title="Precision against loss", missing=f"Not measured: {report.losses_missing}.")
    unit = "nats per token" if any(loss.bits_per_byte is None for loss in report.losses) else "bits per byte"
    points = [_point(report, loss, unit) for loss in report.losses]
    return Section(
        name="precision",
        title="Precision against loss",
        lead=[
            f"How well each bundle predicts {', '.join(report.texts)}, and how long it takes for a token; lower is better in "
            "both. Nothing that was measured beats what lies on the line. Changes are against the fp32 bundle of the same "
            "model, with 95 % intervals of paired differences."
        ],
        pictures=[
            Picture(
                "precision", "Loss and time per token", describe_precision(points, unit), lambda: draw_precision(points, unit)
            )
        ],
        shown=[_costs(report, unit)],
        tables=[_distances(report)],
        commands=report.commands.losses,
    )


def _point(report: Report, loss: Loss, unit: str) -> Point:
    family = next(model.same_as for model in report.models if model.name == loss.name)
    return Point(loss.name, family, _value(loss, unit), loss.ms_per_token)


def _value(loss: Loss, unit: str) -> float:
    return loss.nats_per_token if unit == "nats per token" or loss.bits_per_byte is None else loss.bits_per_byte


def _costs(report: Report, unit: str) -> Table:
    tokens = {loss.tokens for loss in report.losses}
    return Table(
        title="Loss" if len(tokens) > 1 else f"Loss on {report.losses[0].tokens:,} tokens",
        header=["bundle", unit, "against fp32", "ms per token"],
        rows=[
            [label(loss.name), f"{_value(loss, unit):.4f}", _moved(loss), significant(loss.ms_per_token)]
            for loss in report.losses
        ],
    )


def _moved(loss: Loss) -> str:
    if loss.change is None or loss.change_half_width is None:
        return "-"
    return f"{change(loss.change)} ± {change(loss.change_half_width)[1:]}"


def _distances(report: Report) -> Table:
    return Table(
        title="How far from what fp32 predicts",
        header=["bundle", "tokens", "window", "nats per token", "against", "KL, nats", "same likeliest token"],
        rows=[
            [
                label(loss.name),
                f"{loss.tokens:,}",
                str(loss.window),
                f"{loss.nats_per_token:.4f}",
                "-" if loss.reference is None else label(loss.reference),
                "-" if loss.kl_nats is None else f"{loss.kl_nats:.1e}",
                "-" if loss.top1_agreement is None else f"{loss.top1_agreement:.2%}".replace("%", " %"),
            ]
            for loss in report.losses
        ],
        texts=frozenset({4}),
    )
