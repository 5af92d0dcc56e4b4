"""Who built an engine, on and for what: its `BuildRecord`."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Sequence

from ...runtime.preflight.machine import Machine, read_machine
from ...sidecar import BuildRecord
from .build import Built
from .family import Family
from .layers import EngineLayers, Kernel
from .profiles import DECODE


@functools.cache
def this_machine() -> Machine:
    """The machine that builds; it does not change while this process runs."""
    return read_machine()


def record_of(built: Built, layers: EngineLayers, family: Family, cache_key: str) -> BuildRecord:
    """What the sidecar says of a build."""
    library, machine = family.library, this_machine()
    gpu = machine.gpus[0] if machine.gpus else None
    here = () if library.is_rtx or gpu is None else (gpu.compute_capability,)
    return BuildRecord(
        library=library.target,
        version=library.version,
        system=machine.system,
        compute_capabilities=family.options.compute_capabilities or here,
        device=None if gpu is None else gpu.name,
        driver=machine.driver,
        weights_stripped=family.options.strip_weights,
        cache_key=cache_key,
        tactics_sha256=tactics_sha256(layers.kernels),
        kernels=dict(sorted(Counter(kernel.narrowest for kernel in layers.of_profile(DECODE)).items())),
        seconds=round(built.seconds, 3),
        peak_memory_bytes=built.peak_memory_bytes,
    )


def tactics_sha256(kernels: Sequence[Kernel]) -> str:
    """Of an engine's kernels in order, their implementations and the ONNX nodes they run."""
    digest = hashlib.sha256()
    for kernel in kernels:
        for text in (kernel.name, kernel.type, kernel.tactic, *sorted(kernel.nodes)):
            digest.update(text.encode() + b"\0")
        digest.update(b"\n")
    return digest.hexdigest()
