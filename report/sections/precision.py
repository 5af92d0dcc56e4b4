"""What each precision costs."""

from __future__ import annotations

from ..document import Loss, Report
from ..lookup import result_of
from ..numbers import change, label, percent, significant
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
            f"How well each bundle predicts {', '.join(report.texts)}, and how long it takes for a token; lower is better in both. Nothing "
            "that was measured beats what lies on the line. Changes are against the fp32 bundle of the same model, with 95 % intervals of "
            "paired differences."
        ],
        pictures=[
            Picture(
                "precision", "Loss and time per token", describe_precision(points, unit), lambda: draw_precision(points, unit)
            )
        ],
        shown=[_table(report, unit)],
        commands=report.commands.losses,
    )


def _point(report: Report, loss: Loss, unit: str) -> Point:
    family = next(model.same_as for model in report.models if model.name == loss.name)
    return Point(loss.name, family, _value(loss, unit), 1e3 / result_of(report, loss.name).latency.decode_tokens_per_s)


def _value(loss: Loss, unit: str) -> float:
    return loss.nats_per_token if unit == "nats per token" or loss.bits_per_byte is None else loss.bits_per_byte


def _table(report: Report, unit: str) -> Table:
    rows = []
    for loss in report.losses:
        moved = (
            "-"
            if loss.change is None or loss.change_half_width is None
            else f"{change(loss.change)} ± {change(loss.change_half_width)[1:]}"
        )
        rows.append(
            [
                label(loss.name),
                f"{_value(loss, unit):.4f}",
                moved,
                "-" if loss.kl_nats is None else f"{loss.kl_nats:.1e}",
                percent(loss.top1_agreement),
                significant(1e3 / result_of(report, loss.name).latency.decode_tokens_per_s),
            ]
        )
    return Table(
        title=f"Loss on {report.losses[0].tokens:,} tokens" if len({loss.tokens for loss in report.losses}) == 1 else "Loss",
        header=["bundle", unit, "against fp32", "KL, nats", "same likeliest token", "ms per token"],
        rows=rows,
    )
