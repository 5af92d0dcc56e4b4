"""Sequences of one engine call, each at a position of its own: every one gets what it would get alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort

from foveal.bundle import Bundle
from foveal.contract import Contract, Limits, StageSpec, TensorSpec, size_of
from foveal.export.graphs.dialect import dialect_named
from foveal.export.graphs.gpu import DeviceFamily, LoweredStage, lower
from foveal.runtime.rows import Array

CLOSE = 1e-5
"""Products of three rows and of one are summed in another order."""
_SPAN = 5
_DTYPES = {"float32": np.float32, "float16": np.float16}


def check_own_positions(bundle: Bundle, dialect: str) -> None:
    """Run every stage on caches and logs that are full, on three sequences at once and on each by itself."""
    stages = tuple(entry.spec for entry in bundle.manifest.stages)
    limits = Limits(batch=3, capacity=min(bundle.manifest.model.context, 64), prefill=16)
    family = DeviceFamily(bundle.manifest.model, stages, limits, dialect_named(dialect))
    for entry in bundle.manifest.stages:
        stage = lower(bundle.file(entry.graph), entry.spec, family)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(stage.graph.parent))
        session = ort.InferenceSession(stage.model, options, providers=["CPUExecutionProvider"])
        for firings, positions in _calls(entry.spec, stage.sizes["S"], limits.capacity):
            _check_call(session, stage, firings, np.array(positions))


def _calls(spec: StageSpec, room: int, capacity: int) -> Iterator[tuple[int, list[int]]]:
    """Firings of a call, and where each sequence stands: at the beginning, in the middle, at the end."""
    for firings in (1, 2):
        places = [first for first in range(room - firings + 1) if _may_call(spec, first, firings)]
        if places:
            middle = places[len(places) // 2 + len(places) % 2 - 1]
            yield firings, [places[-1], places[0], middle]


def _may_call(spec: StageSpec, first: int, firings: int) -> bool:
    last = first + firings - 1
    if spec.page is not None and spec.fired_by(first) // spec.page != spec.fired_by(last) // spec.page:
        return False
    return spec.resets is None or first // spec.resets == last // spec.resets


def _check_call(session: ort.InferenceSession, stage: LoweredStage, firings: int, positions: Array) -> None:
    letters = {**stage.sizes, "B": len(positions), "L": firings, "N": 1}
    told = {"position": positions, "offsets": np.arange(firings), "logit_rows": np.array([firings - 1])}
    for name in stage.spec.names():  # of inputs that read spans: all find theirs at the same places of blocks of their own
        letters |= {f"M.{name}": _SPAN * firings, f"P.{name}": _SPAN}
        lengths = np.random.default_rng(1).integers(1, _SPAN + 1, (len(positions), firings))
        told |= {f"{name}.first": np.arange(firings) * _SPAN, f"{name}.within": np.arange(_SPAN), f"{name}.lengths": lengths}
    feeds = _feeds(stage.contract, letters, told)
    together = session.run(None, feeds)
    for place in range(len(positions)):
        alone = session.run(None, _only(feeds, stage.contract.inputs, place))
        for tensor, ours, theirs in zip(stage.contract.outputs, together, alone, strict=True):
            error = np.abs(ours[place].astype(np.float64) - theirs[0]).max() / np.abs(theirs).max()
            assert error <= CLOSE, f"{stage.spec.name}: {tensor.name} at {positions[place]} of {positions}: {error:.1e}"


def _feeds(contract: Contract, letters: dict[str, int], told: dict[str, Array]) -> dict[str, Array]:
    random, feeds = np.random.default_rng(0), {}
    for tensor in contract.inputs:
        shape = [size_of(size, letters) for size in tensor.shape]
        if tensor.name in told:
            feeds[tensor.name] = told[tensor.name]
        elif tensor.dtype == "int64":
            feeds[tensor.name] = random.integers(0, 40, shape)
        else:
            feeds[tensor.name] = random.standard_normal(shape).astype(_DTYPES[tensor.dtype])
    return feeds


def _only(feeds: dict[str, Array], tensors: Sequence[TensorSpec], place: int) -> dict[str, Array]:
    batched = {tensor.name for tensor in tensors if tensor.shape[0] == "B"}
    return {name: array[place : place + 1] if name in batched else array for name, array in feeds.items()}
