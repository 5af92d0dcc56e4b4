"""What this processor multiplies: whether it sums up products of bytes exactly."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def has_vnni(flags: frozenset[str] | None = None) -> bool:
    """Whether ONNX Runtime's products of unsigned by signed bytes are known to be exact here: on VNNI, or on no x86 at all.

    Older x86 instructions add pairs of products in 16 bits, which saturates. Only Linux says what the processor has; where
    nobody knows, the answer is no.

    Args:
        flags: of the processor, as `/proc/cpuinfo` names them; None: this one's.
    """
    if flags is None:
        if platform.machine().lower() not in ("x86_64", "amd64", "i686", "i386"):
            return True
        flags = _flags()
    # With AVX-512 ONNX Runtime takes its kernels for AVX-512, whatever narrower ones there are.
    return "avx512_vnni" in flags if "avx512f" in flags else "avx_vnni" in flags


@functools.cache
def _flags() -> frozenset[str]:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
