"""How well bundles predict a text, each precision against fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...bench.result import BenchResult
from ...bundle import Bundle
from ...calibration import Quality, evaluate
from ...progress import Progress
from ..document import Loss, ModelFacts


def reference_of(model: ModelFacts, models: Sequence[ModelFacts]) -> ModelFacts | None:
    """The fp32 bundle of the same model, unless it is this one."""
    others = (other for other in models if other.same_as == model.same_as and other.precision == "fp32")
    return next((other for other in others if other.name != model.name and model.precision != "fp32"), None)


def measure_losses(
    bundles: Sequence[Bundle],
    models: Sequence[ModelFacts],
    texts: Sequence[Path],
    *,
    measured: BenchResult,
    target: str,
    threads: int | None,
    limit: int | None,
    on_progress: Progress,
) -> list[Loss]:
    """Of each bundle; raises as `foveal.evaluate`."""
    by_name = {model.name: bundle for model, bundle in zip(models, bundles, strict=True)}
    rates = {model.name: model.latency.decode_tokens_per_s for model in measured.models}
    found = []
    for model in models:
        reference = reference_of(model, models)
        quality = evaluate(
            by_name[model.name],
            list(texts),
            reference=None if reference is None else by_name[reference.name],
            target=target,
            threads=threads,
            limit=limit,
            on_progress=lambda doing, done, steps, name=model.name: on_progress(f"{name}: {doing}", done, steps),  # type: ignore[misc]
        )
        found.append(_loss(model, reference, quality, rates[model.name]))
    return found


def _loss(model: ModelFacts, reference: ModelFacts | None, quality: Quality, tokens_per_s: float) -> Loss:
    return Loss(
        name=model.name,
        tokens=quality.tokens,
        window=quality.window,
        bits_per_byte=quality.bits_per_byte,
        nats_per_token=quality.nats_per_token,
        ms_per_token=1e3 / tokens_per_s,
        reference=None if reference is None else reference.name,
        change=quality.bits_per_byte_change,
        change_half_width=quality.bits_per_byte_change_half_width,
        is_shown=quality.is_difference_shown,
        kl_nats=quality.kl_nats,
        top1_agreement=quality.top1_agreement,
    )
