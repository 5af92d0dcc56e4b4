"""The model card of a bundle: what a hub shows of it, and knows it by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..bundle import Bundle, ModelInfo, StageEntry
from ..contract import StageSpec
from .names import PREFIX
from .refusals import library

TASK = "text-generation"
_NAMED = re.compile(r"other \((.+)\)")


class Figures(NamedTuple):
    """What was measured of a bundle; milliseconds and tokens per second are medians (None: too few samples for one), `machine`
    says of what and when."""

    runtime: str
    threads: int
    ttft_ms: float | None
    itl_ms: float | None
    tokens_per_s: float
    prompt_tokens: int
    machine: str
    command: str


def card_of(
    bundle: Bundle, repository: str, targets: Sequence[str], size: int, license: str | None, figures: Sequence[Figures] = ()
) -> str:
    """Write the card.

    Args:
        bundle: what is published.
        repository: where, `owner/name`.
        targets: those whose engines are published with it.
        size: bytes of all that is published.
        license: as the hub calls it, `"apache-2.0"`, or `"other (name)"`; None: the card names none.
        figures: what was measured; none: the card has none.

    Returns:
        Markdown with metadata in front.

    Raises:
        BackendUnavailable: huggingface_hub, which writes the metadata, is not installed.
    """
    model = bundle.manifest.model
    parts = [
        f"---\n{library().ModelCardData(**_metadata(bundle, license)).to_yaml()}\n---",
        f"# {repository.partition('/')[2]}",
        f"A {model.architecture} model, `{model.hierarchy}`, exported with foveal{_when(bundle)}. {_sizes(model)} "
        f"{_origin(bundle)}",
        _stages(bundle.manifest.stages),
        f"Precision: {bundle.manifest.precision}. Engines: {', '.join(targets) or 'none, portable ONNX graphs only'}. "
        f"Tokenizer: {bundle.manifest.tokenizer or 'none, ids only'}. {size / 1e6:.1f} MB.",
        f"## Run it\n\n{_example(bundle, repository)}",
    ]
    parts += [f"## Measured\n\n{_measured(figures)}"] if figures else []
    parts += ["## Notes of the conversion\n\n" + "\n".join(f"- {note}" for note in model.notes)] if model.notes else []
    return "\n\n".join(parts) + "\n"


def _metadata(bundle: Bundle, license: str | None) -> dict[str, Any]:
    model, precision = bundle.manifest.model, bundle.manifest.precision
    found: dict[str, Any] = {"library_name": "foveal"}
    if license is not None:
        named = _NAMED.fullmatch(license)
        found |= {"license": license} if named is None else {"license": "other", "license_name": named[1]}
    if model.source is not None:
        found["base_model"] = model.source.repository
        found |= {} if precision == "fp32" else {"base_model_relation": "quantized"}
    if bundle.manifest.tokenizer is not None:
        found["pipeline_tag"] = TASK
    kind = ["hierarchical"] * _is_hierarchical(bundle)
    found["tags"] = list(dict.fromkeys(("foveal", "onnx", *kind, model.architecture, precision)))
    return found


def _when(bundle: Bundle) -> str:
    return " stage by stage: its coarse stages run only when they are due" if _is_hierarchical(bundle) else ""


def _is_hierarchical(bundle: Bundle) -> bool:
    return len(bundle.manifest.stages) > 1


def _sizes(model: ModelInfo) -> str:
    return (
        f"{model.parameters:,} parameters, {model.layer_equivalents:.2f} layers' worth of work per token, context "
        f"{model.context} tokens, vocabulary {model.vocab_size}."
    )


def _origin(bundle: Bundle) -> str:
    source = bundle.manifest.model.source
    if source is None:
        return f"Converted from a {bundle.manifest.model.source_format} checkpoint."
    commit = source.name.partition("@")[2].partition("/")[0]
    return f"Converted from [{source.repository}](https://huggingface.co/{source.repository}) at `{commit[:12]}`."


def _stages(stages: Sequence[StageEntry]) -> str:
    rows = [
        f"| {spec.name} | {_rate(spec)} | {spec.layers} | {spec.parameters:,} | {entry.weight_bytes / 1e6:.2f} |"
        for entry in stages
        for spec in [entry.spec]
    ]
    return "\n".join(
        (
            "| stage | runs every | layers | parameters | weights, MB, as exported |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows,
        )
    )


def _rate(spec: StageSpec) -> str:
    if spec.clock is not None:
        return f"~{spec.tokens_per_firing:g} tokens, as the data decides"
    return "token" if spec.stride == 1 else f"{spec.stride} tokens"


def _example(bundle: Bundle, repository: str) -> str:
    call = 'model.generate("It was", max_new_tokens=64)'
    text = f'print(*{call}, sep="")'
    if bundle.manifest.tokenizer is None:
        text = "print(*model.generate_ids([1, 2, 3], max_new_tokens=64))"
    return f'```python\nimport foveal\n\nmodel = foveal.load("{PREFIX}{repository}")\n{text}\n```'


def _measured(figures: Sequence[Figures]) -> str:
    rows = [
        f"| {of.runtime} | {of.threads} | {of.prompt_tokens} | {_ms(of.ttft_ms)} | {_ms(of.itl_ms)} | {of.tokens_per_s:,.0f} |"
        for of in figures
    ]
    places = dict.fromkeys(f"{of.machine}; `{of.command}`" for of in figures)
    return "\n".join(
        (
            "| runs on | threads | prompt, tokens | first token, ms | each token, ms | tokens/s |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            *(f"Medians. {place}" for place in places),
        )
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
