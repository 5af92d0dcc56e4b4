"""Engines to tokens: numpy and one engine library; never torch, never onnx."""

from .batches.batch import Batch
from .batches.sequence import Sequence
from .engines.onnxruntime_library import share_threads
from .guides.constraint import Constraint
from .model import Model, load
from .sampling import SamplingParams
from .score import Score, score
from .session import Session
from .snapshots import Snapshot
from .store.session_store import SessionStore
from .store.store_statistics import StoreStatistics

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
