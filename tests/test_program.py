"""What a program must keep to, whatever its file says."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import msgspec
import native_reference
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_reference import ReferenceLibrary
from natively import native_engines
from precisions import PrecisionZoo

from foveal.bundle import Bundle
from foveal.contract.program import Program
from foveal.contract.program_checks import problem_of_program
from foveal.errors import FovealError
from foveal.json_files import decode
from foveal.precision import Plan
from foveal.runtime.backends import cpu_engines
from foveal.runtime.engines.native import NativeEngine
from foveal.runtime.engines.native_library import Pool
from foveal.runtime.rows import Block

SIZES = st.one_of(st.sampled_from([-1, 0, 1, 2, 3, 63, 64, 1 << 31, (1 << 63) - 1]), st.integers(-1000, 100_000))


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a JSON has whole numbers."""
    if isinstance(value, dict):
        return [found for key, one in value.items() for found in numbers(one, (*path, key))]
    if isinstance(value, list):
        return [found for index, one in enumerate(value) for found in numbers(one, (*path, index))]
    return [path] if isinstance(value, int) and not isinstance(value, bool) else []


class Fence:
    """Memory that a program may touch: anything else is an error."""

    def __init__(self) -> None:
        self.allowed: list[tuple[int, int]] = []

    def add(self, address: int, size: int) -> None:
        self.allowed.append((address, address + size))

    def array(self, address: int | None, shape: tuple[int, ...], dtype: Any) -> Any:
        """As `native_reference._array`, within what is allowed."""
        size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        assert address is not None
        assert any(first <= address and address + size <= last for first, last in self.allowed), f"{size} bytes at {address}"
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


@pytest.fixture(scope="module")
def bundle(precise: PrecisionZoo) -> Bundle:
    """Of stages that embed, shorten with attention, attend over int8 caches with rotation, and give logits."""
    return precise["resampled"].build(Plan(default="w4"))


@given(data=st.data())
def test_a_program_with_another_number_is_refused_or_keeps_to_its_memory(bundle: Bundle, data: st.DataObject) -> None:
    """Of sizes, places, buffers, counts and kinds, any one."""
    graph = data.draw(st.sampled_from(cpu_engines(bundle)))
    names = bundle.program(graph.spec.name)
    assert names is not None
    raw = msgspec.json.decode(bundle.file(names[0]).read_bytes())
    *path, last = data.draw(st.sampled_from(numbers(raw)))
    place = raw
    for key in path:
        place = place[key]
    place[last] = data.draw(SIZES)
    try:
        program = decode(msgspec.json.encode(raw), Program)
    except msgspec.MsgspecError:
        return
    if problem_of_program(program, graph.spec, graph.sidecar.cache_widths, graph.sidecar.cache_dtype) is None:
        _run_fenced(program, graph, bundle.file(names[1]))


def _run_fenced(program: Program, graph: Any, weights: Path) -> None:
    """One call of one firing by numpy, with every address looked at; errors that say so are fine."""
    # As many bytes as the file of weights says: who opens it compares them with the file's.
    held = np.zeros(program.data_bytes + 64, np.uint8)
    start = -held.ctypes.data % 64
    real = np.fromfile(weights, np.uint8)
    data = held[start : start + program.data_bytes]
    data[: len(real)] = real[: len(data)]
    library, fence = ReferenceLibrary(), Fence()
    engine = NativeEngine(graph, program, data, library, Pool(library, 1))  # type: ignore[arg-type]
    stage, spec = engine.bind(1, 4), graph.spec
    inputs = [
        np.zeros((1, one.count), np.int64) if one.kind == "tokens" else np.zeros((one.count, 1, one.width), np.float32)
        for one in spec.inputs
    ]
    is_logits = spec.output == "logits"
    output = np.zeros((1, 1, spec.width) if is_logits else (spec.output_rows, 1, spec.width), np.float32)
    wanted = np.zeros(1, np.int64)
    for array in (data, *stage.caches, *inputs, output, wanted, stage._index):
        fence.add(array.ctypes.data, array.nbytes)
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(native_reference, "_array", fence.array)
        try:
            stage.run(0, 1, [Block.of(one) for one in inputs], Block.of(output), Block.of(wanted) if is_logits else None)
        except FovealError:
            return


def test_a_program_as_it_was_written_has_no_problem(bundle: Bundle) -> None:
    """And runs in the fence."""
    for graph in cpu_engines(bundle):
        names = bundle.program(graph.spec.name)
        assert names is not None
        program = decode(bundle.file(names[0]).read_bytes(), Program)
        assert problem_of_program(program, graph.spec, graph.sidecar.cache_widths, graph.sidecar.cache_dtype) is None
        _run_fenced(program, graph, bundle.file(names[1]))
    assert len(native_engines(bundle, ReferenceLibrary())) == len(bundle.manifest.stages)
