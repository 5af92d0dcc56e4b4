"""Engines to tokens: numpy and one engine library; never torch, never onnx."""

from .engines.onnxruntime_library import share_threads
from .model import Model, load
from .sampling import SamplingParams
from .session import Session
from .session_store import SessionStore
from .snapshots import Snapshot
from .store_statistics import StoreStatistics

__all__ = ["Model", "SamplingParams", "Session", "SessionStore", "Snapshot", "StoreStatistics", "load", "share_threads"]
