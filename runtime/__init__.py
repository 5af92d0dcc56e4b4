"""Engines to tokens: numpy and one engine library; never torch, never onnx. Nothing is imported until it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batches.batch import Batch
    from .batches.sequence import Sequence
    from .engines.onnxruntime_library import share_threads
    from .guides.constraint import Constraint
    from .model import Model, load
    from .sampling import SamplingParams
    from .scores import Score, score
    from .session import Session
    from .snapshots import Snapshot
    from .store.session_store import SessionStore
    from .store.store_statistics import StoreStatistics

_LAZY = {
    "Batch": ".batches.batch",
    "Constraint": ".guides.constraint",
    "Model": ".model",
    "SamplingParams": ".sampling",
    "Score": ".scores",
    "Sequence": ".batches.sequence",
    "Session": ".session",
    "SessionStore": ".store.session_store",
    "Snapshot": ".snapshots",
    "StoreStatistics": ".store.store_statistics",
    "load": ".model",
    "score": ".scores",
    "share_threads": ".engines.onnxruntime_library",
}

__all__ = [
    "Batch",
    "Constraint",
    "Model",
    "SamplingParams",
    "Score",
    "Sequence",
    "Session",
    "SessionStore",
    "Snapshot",
    "StoreStatistics",
    "load",
    "score",
    "share_threads",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
