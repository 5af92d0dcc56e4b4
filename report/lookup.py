"""Find in a report what belongs to a bundle."""

from __future__ import annotations

from ..bench.ratio import Ratio
from ..bench.result import ModelResult
from .document import LatencyFacts, Loss, MemoryFacts, ModelFacts, Needs, Report


def subject_of(report: Report) -> ModelFacts:
    """The bundle that it is about."""
    return report.models[0]


def result_of(report: Report, name: str) -> ModelResult:
    """What was measured of a model."""
    return next(model for model in report.measured.models if model.name == name)


def latency_of(report: Report, name: str) -> LatencyFacts:
    """Its time between tokens."""
    return next(one for one in report.latencies if one.name == name)


def memory_of(report: Report, name: str) -> MemoryFacts:
    """Its memory by length."""
    return next(one for one in report.memory if one.name == name)


def needs_of(report: Report, name: str) -> Needs:
    """What it needs of a device."""
    return next(one for one in report.needs if one.name == name)


def loss_of(report: Report, name: str) -> Loss | None:
    """What it loses, if there was a text."""
    return next((loss for loss in report.losses if loss.name == name), None)


def ratio_of(report: Report, name: str, than: str) -> Ratio:
    """How many times as fast one decodes as another."""
    return next(each.ratio for each in report.ratios if (each.name, each.than) == (name, than))


def other_precisions(report: Report) -> list[ModelFacts]:
    """Bundles of the subject's model in another precision."""
    subject = subject_of(report)
    return [model for model in report.models[1:] if model.same_as == subject.same_as]


def other_models(report: Report) -> list[ModelResult]:
    """What was measured of other models than the subject's, PyTorch's decoding included."""
    same = {model.name for model in report.models if model.same_as == subject_of(report).same_as}
    return [model for model in report.measured.models if model.name not in same]
