"""Engines to tokens: numpy and one engine library; never torch, never onnx."""

from .batch import Batch
from .engines.onnxruntime_library import share_threads
from .model import Model, load
from .sampling import SamplingParams
from .sequence import Sequence
from .session import Session
from .session_store import SessionStore
from .snapshots import Snapshot
from .store_statistics import StoreStatistics

__all__ = [
    "Batch",
    "Model",
    "SamplingParams",
    "Sequence",
    "Session",
    "SessionStore",
    "Snapshot",
    "StoreStatistics",
    "load",
    "share_threads",
]
