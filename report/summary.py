"""The questions that readers come with, answered in plain words from a report's figures."""

from __future__ import annotations

from collections.abc import Iterator

from ..bench.ratio import Ratio
from ..bench.result import ModelResult
from .document import Answer, Loss, MemoryPoint, ModelFacts, Report
from .lookup import loss_of, memory_of, needs_of, other_models, other_precisions, ratio_of, result_of, subject_of
from .numbers import change, interval, label, listed, megabytes, percent, significant, times


def answers(report: Report) -> list[Answer]:
    """In the order in which they are asked."""
    return [
        Answer(question="Is it faster?", answer=_faster(report), section="comparison"),
        Answer(question="Where does the time go?", answer=_time(report), section="stages"),
        Answer(question="What does each precision cost?", answer=_precisions(report), section="precision"),
        Answer(question="How much memory does it take?", answer=_memory(report), section="memory"),
        Answer(question="What limits its speed here?", answer=_limit(report), section="roofline"),
        Answer(question="Will it fit my device?", answer=_devices(report), section="devices"),
    ]


def _faster(report: Report) -> str:
    subject = subject_of(report)
    mine = result_of(report, subject.name)
    said = [
        f"{label(subject.name)} ({mine.hierarchy}, {mine.precision}) decodes "
        f"{significant(mine.latency.decode_tokens_per_s)} tokens/s on {_place(report, mine)}."
    ]
    others = other_models(report)
    said += [_against(ratio_of(report, mine.name, other.name), mine, other) for other in others]
    if not others:
        said.append("There is no other model to compare it with: name one behind it, such as a vanilla Transformer.")
    precisions = other_precisions(report)
    if precisions:
        best = max(precisions, key=lambda model: result_of(report, model.name).latency.decode_tokens_per_s)
        ratio = ratio_of(report, best.name, subject.name)
        said.append(
            f"Of its other precisions {best.precision} is the fastest: {_times(ratio)} {mine.precision}{interval(ratio)}."
        )
        said += [_also(report, best.name, other, best.precision) for other in others]
    return " ".join(said)


def _place(report: Report, model: ModelResult) -> str:
    if report.target != "cpu":
        return report.target
    cpu = report.measured.environment.cpu or "a CPU that the system does not name"
    return f"{model.threads} thread{'s' * (model.threads != 1)} of {cpu}"


def _against(ratio: Ratio, mine: ModelResult, other: ModelResult) -> str:
    what = f"{label(other.name)} ({other.hierarchy}, {other.precision})"
    work = f"It runs {mine.layer_equivalents:.2f} layers per token, {label(other.name)} {other.layer_equivalents:.2f}."
    return f"That is {_times(ratio)} {what}{interval(ratio)}. {work}"


def _also(report: Report, name: str, other: ModelResult, precision: str) -> str:
    ratio = ratio_of(report, name, other.name)
    return f"In {precision} it is {_times(ratio)} {label(other.name)} in {other.precision}{interval(ratio)}."


def _times(ratio: Ratio) -> str:
    """What it is, unless the interval leaves that open."""
    if not ratio.differs:
        return "not shown to be faster or slower than"
    if ratio.ratio < 1:
        return f"slower, at {times(ratio.ratio)} times the rate of"
    return f"{times(ratio.ratio)} times as fast as"


def _time(report: Report) -> str:
    subject = subject_of(report)
    mine = result_of(report, subject.name)
    shares = report.time_shares[subject.name]
    if len(subject.stages) < 2:
        return f"It has one stage, which runs at every token: {significant(mine.latency.itl_ms.mean)} ms per token on average."
    facts = {stage.name: stage for stage in subject.stages}
    fine = [stage for stage in mine.stages if stage.stride == 1 and stage.expected is None]
    coarse = [stage for stage in mine.stages if stage not in fine]
    said = []
    if fine:
        said.append(
            f"{listed([stage.name for stage in fine])} run{'s' * (len(fine) == 1)} at every token and take"
            f"{'s' * (len(fine) == 1)} {percent(sum(shares[stage.name] for stage in fine))} of the engines' time."
        )
    if coarse:
        said.append(
            f"The coarse stages ({', '.join(stage.name for stage in coarse)}) hold "
            f"{percent(sum(facts[stage.name].parameter_share for stage in coarse))} of the parameters and take "
            f"{percent(sum(shares[stage.name] for stage in coarse))} of the time, as they fire less often."
        )
    fire, rest = mine.latency.itl_fire_ms.p50, mine.latency.itl_nofire_ms.p50
    if fire is not None and rest is not None:
        said.append(
            f"A step in which a coarse stage fires takes {significant(fire)} ms, any other {significant(rest)} ms (medians)."
        )
    if mine.host_us_per_step is not None:
        said.append(f"Python around the engines takes {significant(mine.host_us_per_step)} µs of a step.")
    return " ".join(said)


def _precisions(report: Report) -> str:
    others = other_precisions(report)
    if not others:
        return (
            "Only one precision of it was given. Build others with foveal build BUNDLE OUT --precision int8, and name them "
            "behind it."
        )
    said = [_precision(report, model) for model in others]
    if not report.losses:
        said.append(f"What they lose was not measured: {report.losses_missing}.")
    return " ".join(said)


def _precision(report: Report, model: ModelFacts) -> str:
    subject = subject_of(report)
    ratio = ratio_of(report, model.name, subject.name)
    here, there = (_weights(report, name) for name in (model.name, subject.name))
    loss = loss_of(report, model.name)
    lost = "" if loss is None else f", {_lost(loss)}"
    return (
        f"{model.precision}: {times(ratio.ratio)} times the speed of {subject.precision}, {here} MB of weights instead of "
        f"{there}{lost}."
    )


def _weights(report: Report, name: str) -> str:
    return megabytes(memory_of(report, name).points[-1].weights)


def _lost(loss: Loss) -> str:
    unit = "nats per token" if loss.bits_per_byte is None else "bits per byte"
    if loss.change is None or loss.change_half_width is None:
        value = loss.nats_per_token if loss.bits_per_byte is None else loss.bits_per_byte
        return f"{value:.4f} {unit}"
    shown = "" if loss.is_shown else " (no difference is shown)"
    return f"{change(loss.change)} ± {change(loss.change_half_width).lstrip('+')} {unit}{shown}"


def _memory(report: Report) -> str:
    subject = subject_of(report)
    facts = memory_of(report, subject.name)
    full = facts.points[-1]
    said = [
        f"{megabytes(full.weights)} MB of weights, and {megabytes(full.state)} MB of state per sequence at its "
        f"context of {full.tokens:,} tokens."
    ]
    if full.working is not None:
        said.append(f"Working memory is {megabytes(full.working)} MB at the most.")
    measured = result_of(report, subject.name).memory
    if measured is not None and measured.peak_bytes is not None:
        said.append(
            f"A process that loads it and decodes to {report.measured.prompt_tokens + report.measured.new_tokens:,} tokens "
            f"peaks at {megabytes(measured.peak_bytes)} MB, Python and libraries included."
        )
    said += list(_smaller(report, full))
    return " ".join(said)


def _smaller(report: Report, full: MemoryPoint) -> Iterator[str]:
    """The precision that takes least."""
    others = [(memory_of(report, model.name).points[-1], model.precision) for model in other_precisions(report)]
    if others:
        least, precision = min(others, key=lambda each: each[0].held)
        if least.held < full.held:
            yield (
                f"{precision} takes least: {megabytes(least.weights)} MB of weights and {megabytes(least.state)} MB of state."
            )


def _limit(report: Report) -> str:
    line, read = result_of(report, report.subject).roofline, needs_of(report, report.subject).bytes_per_token
    if line is None:
        return "It was not measured how many bytes it reads."
    said = (
        f"Decoding a token reads {megabytes(read)} MB, and this machine reads {significant(line.memory_bandwidth_gb_s)} GB/s. "
        f"It reaches {percent(line.share)} of that."
    )
    if line.share > 1:
        return f"{said} That is more than memory gives: some of it stays in the processor's caches from token to token."
    if line.share >= _NEAR:
        return f"{said} Memory bandwidth is the limit: only fewer bytes, as of a narrower precision, make it faster."
    return (
        f"{said} So memory bandwidth is not what limits it here; the time within and between small operators is "
        "(foveal inspect BUNDLE --profile lists them)."
    )


_NEAR = 0.7
"""From this share of the bandwidth on, it is what limits (docs/performance.md has 83 to 89 % where nothing else does)."""


def _devices(report: Report) -> str:
    subject, least = subject_of(report), smallest(report)
    needs = needs_of(report, subject.name)
    said = [
        f"In {subject.precision} it needs {megabytes(needs.memory)} MB at its full context{_or_less(report, least)}; Python "
        "with its libraries comes on top. A device with so much free memory holds it."
    ]
    if needs.tokens_per_s_per_gb_s is not None:
        said.append(
            f"Each GB/s of a device's memory bandwidth allows at most {significant(needs.tokens_per_s_per_gb_s)} tokens/s."
        )
    said.append(_forecast(report))
    said.append(ran_on(report))
    return " ".join(said)


def _forecast(report: Report) -> str:
    mine = [row for row in report.forecasts if row.name == report.subject]
    if not mine:
        return f"There is no forecast for devices: {report.forecasts_missing[report.subject]}."
    slowest, fastest = (pick(mine, key=lambda row: row.tokens_per_s) for pick in (min, max))
    fitting, others, unknown = ([row for row in mine if row.fits is fits] for fits in (True, False, None))
    said = [
        f"By forecast, which is no measurement, it fits {len(fitting)} of {len(mine)} known devices, and on all decodes from "
        f"{significant(slowest.tokens_per_s)} tokens/s ({slowest.device}) to {significant(fastest.tokens_per_s)} "
        f"({fastest.device})."
    ]
    if fitting:  # titles have commas
        said.append(f"It fits: {'; '.join(f'{row.device} ({significant(row.tokens_per_s)} tokens/s)' for row in fitting)}.")
    if others:
        said.append(
            f"It does not fit: {'; '.join(f'{row.device} (it takes {megabytes(row.memory)} MB there)' for row in others)}."
        )
    if unknown:
        said.append(f"How much memory these have is not known: {'; '.join(row.device for row in unknown)}.")
    return " ".join(said)


def smallest(report: Report) -> ModelFacts:
    """Of the subject's precisions the one that needs least."""
    return min([subject_of(report), *other_precisions(report)], key=lambda model: needs_of(report, model.name).memory)


def _or_less(report: Report, model: ModelFacts) -> str:
    if model.name == report.subject:
        return ""
    return f", in {model.precision} {megabytes(needs_of(report, model.name).memory)} MB"


def ran_on(report: Report) -> str:
    """What was run, and that the rest was not."""
    if report.target == "cpu":
        return "GPU: not run; what was measured are CPU engines on the machine below."
    return f"What was measured are {report.target} engines on the machine below; other devices: not run."
