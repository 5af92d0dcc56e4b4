"""`/status`: what the models have to do right now, for people and pages."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .served import Served


def status_of(served: Served) -> dict[str, Any]:
    """Of one model, as JSON has it."""
    model, service = served.model, served.service
    info, statistics, store = model.manifest.model, service.statistics, service.sessions.store
    return {
        "id": served.name,
        "architecture": info.architecture,
        "hierarchy": info.hierarchy,
        "context": info.context,
        "precision": model.manifest.precision,
        "target": model.target,
        "tokenizer": served.is_text,
        "chat": served.template is not None,
        "stages": [{"name": spec.name, "stride": spec.tokens_per_firing} for spec in model.specs],
        "is_ready": service.is_ready,
        "queue": service.queue,
        **asdict(statistics),
        "sessions": 0 if store is None else len(store),
        "store": None if store is None else asdict(store.statistics),
    }
