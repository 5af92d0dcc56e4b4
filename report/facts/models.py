"""What the manifests say of bundles."""

from __future__ import annotations

from collections.abc import Sequence

from ...bundle import Bundle, ModelInfo, StageEntry
from ...contract import InputSpec
from ..document import ModelFacts, Read, StageFacts


def model_facts(bundles: Sequence[Bundle]) -> list[ModelFacts]:
    """Of each bundle, in order."""
    first: dict[ModelInfo, str] = {}
    found = []
    for bundle in bundles:
        name = bundle.name
        found.append(_facts(bundle, first.setdefault(bundle.manifest.model, name)))
    return found


def _facts(bundle: Bundle, same_as: str) -> ModelFacts:
    manifest, info = bundle.manifest, bundle.manifest.model
    total = sum(entry.spec.parameters for entry in manifest.stages)
    return ModelFacts(
        name=bundle.name,
        same_as=same_as,
        architecture=info.architecture,
        hierarchy=info.hierarchy,
        precision=manifest.precision,
        parameters=info.parameters,
        layer_equivalents=info.layer_equivalents,
        dim=info.dim,
        vocab_size=info.vocab_size,
        context=info.context,
        disk_bytes=bundle.total_bytes(),
        stages=[_stage(entry, total) for entry in manifest.stages],
    )


def _stage(entry: StageEntry, total: int) -> StageFacts:
    spec = entry.spec
    return StageFacts(
        name=spec.name,
        stride=spec.stride,
        expected=None if spec.clock is None else spec.tokens_per_firing,
        first_token=spec.delay,
        layers=spec.layers,
        parameters=spec.parameters,
        parameter_share=spec.parameters / total if total else 0.0,
        weight_bytes=entry.weight_bytes,
        table_bytes=entry.table_bytes,
        reads=[_read(given) for given in spec.inputs],
    )


def _read(given: InputSpec) -> Read:
    return Read(source=given.source, rows=None if given.reads == "span" else given.count)
