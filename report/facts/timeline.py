"""Which tokens fire which stage: by arithmetic, and where the data decides, by what it decided on a text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...bundle import Bundle
from ...contract import StageSpec
from ...forecast.firings import firings_of
from ...runtime.model import load
from ...runtime.schedules import Schedule
from ..document import Timeline

_LEAST, _MOST = 16, 64


def timeline_of(bundle: Bundle, target: str, threads: int | None, native: bool | None, text: str | None) -> Timeline:
    """Of two periods, but of 16 tokens at least and 64 at most.

    Args:
        bundle: the subject.
        target, threads, native: as `load` takes them, where the model has to run.
        text: what to read where the data decides; None: such stages are left out.

    Raises:
        ConfigError: the text has no tokens, or the model no tokenizer.
    """
    specs, context = [entry.spec for entry in bundle.manifest.stages], bundle.manifest.model.context
    decides = [spec.name for spec in specs if spec.clock is not None]
    if decides and text is not None:
        return _of_text(bundle, target, threads, native, text)
    known = [spec for spec in specs if spec.clock is None]
    tokens = min(context, max(_LEAST, min(2 * math.lcm(*(spec.stride for spec in known)), _MOST)))
    missing = f"the data decides when {', '.join(decides)} fire: give a text (--text F) to see it" if decides else None
    return _timeline(tokens, _fires(known, None, tokens), missing=missing)


def _of_text(bundle: Bundle, target: str, threads: int | None, native: bool | None, text: str) -> Timeline:
    model = load(bundle, target, threads, native=native)
    ids = model.prompt_ids(text)[: min(_MOST, bundle.manifest.model.context)]
    with model.session(capacity=len(ids)) as session:
        session.advance([ids], last_only=True)
        fires = _fires(model.specs, session.schedule, len(ids))
    return _timeline(len(ids), fires, is_of_text=True)


def _timeline(tokens: int, fires: dict[str, list[int]], is_of_text: bool = False, missing: str | None = None) -> Timeline:
    shares = {name: len(fired) / tokens for name, fired in fires.items()}
    return Timeline(tokens=tokens, is_of_text=is_of_text, fires=fires, shares=shares, missing=missing)


def _fires(specs: Sequence[StageSpec], schedule: Schedule | None, tokens: int) -> dict[str, list[int]]:
    return {spec.name: [fired.seen - 1 for fired in firings_of(spec, schedule).among(0, tokens)] for spec in specs}
