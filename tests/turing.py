"""The graphs that TensorRT-RTX compiles for Turing GPUs, run by ONNX Runtime: what their rewriting may change, and what not."""

from __future__ import annotations

import numpy as np
import onnxruntime
from resident_engines import sidecar_of

from foveal.bundle import Bundle
from foveal.contract import Limits
from foveal.export.graphs.dialect import DIALECTS
from foveal.export.graphs.gpu import DeviceFamily, lower
from foveal.export.tensorrt.turing import fit_turing
from foveal.runtime.device import HostDevice
from foveal.runtime.engines.onnxruntime_library import memory_of
from foveal.runtime.engines.onnxruntime_resident import ResidentOrtEngine
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.rows import Array
from foveal.runtime.session import Session

TOLERANCES = {"fp16": 2e-3, "int8": 1e-2}
"""Of the largest logit: fp32 sums in another order, and sums of int8 products rounded to fp16."""
PREFILL = 16


def check_turing(bundle: Bundle, ids: Array, precision: str, dialect: str) -> Array:
    """Logits of ids `[1, L]` by the graphs for Turing, a prefill and single tokens; they are those of the graphs as they were.

    There is at least one stage in which something was rewritten, and no product in fp32 in any.
    """
    (before, _), (after, rewritten) = (_session(bundle, dialect, fits) for fits in (False, True))
    assert rewritten > 0 or precision == "fp16"
    first = ids.shape[1] - 6
    found = []
    for session in (before, after):
        parts = [ids[:, :first], *np.split(ids[:, first:], 6, axis=1)]
        found.append(np.concatenate([session.advance(part) for part in parts], axis=1))
    assert np.abs(found[1] - found[0]).max() <= TOLERANCES[precision] * np.abs(found[0]).max()
    return found[1]


def _session(bundle: Bundle, dialect: str, fits: bool) -> tuple[Session, int]:
    """On the lowered graphs, rewritten or not, and how many stages' graphs the rewriting changed."""
    info, specs = bundle.manifest.model, tuple(entry.spec for entry in bundle.manifest.stages)
    limits = Limits(batch=1, capacity=min(info.context, 64), prefill=PREFILL)
    family, engines, changed = DeviceFamily(info, specs, limits, DIALECTS[dialect]), [], 0
    for entry in bundle.manifest.stages:
        stage = lower(bundle.file(entry.graph), entry.spec, family)
        graph = fit_turing(stage).model if fits else stage.model
        changed += graph != stage.model
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(stage.graph.parent))
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        sidecar = sidecar_of(entry.spec, "cuda", dialect, limits, cache_dtype=entry.spec.cache_dtype)
        engines.append(ResidentOrtEngine(entry.spec, session, sidecar, memory_of("cpu")))
    return Session(ResidentEngines(engines, HostDevice()), info), changed
