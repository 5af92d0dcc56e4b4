"""Which processors sum up products of bytes exactly."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from foveal.runtime.engines import cpu_features
from foveal.runtime.engines.cpu_features import has_vnni


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse4_2 avx2 fma", False),  # EPYC 7xx3, Core of the 4th to the 9th generation
        ("avx2 avx_vnni", True),  # Core of the 12th generation and later
        ("avx2 avx512f avx512bw avx512dq avx512vl", False),  # Xeon Skylake
        ("avx2 avx512f avx512bw avx512dq avx512vl avx512_vnni", True),  # Xeon Cascade Lake, EPYC 9xx4
        ("avx2 avx_vnni avx512f avx512bw", False),  # ONNX Runtime takes its kernel for AVX-512
        ("", False),
    ],
)
def test_a_processor_says_it_by_its_flags(flags: str, expected: bool) -> None:
    assert has_vnni(frozenset(flags.split())) == expected


def test_where_nobody_knows_it_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on Windows: kernels that are exact everywhere are taken."""
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(cpu_features, "_CPUINFO", tmp_path / "none")
    cpu_features._flags.cache_clear()
    try:
        assert not has_vnni()
    finally:
        cpu_features._flags.cache_clear()


def test_only_x86_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert has_vnni()
