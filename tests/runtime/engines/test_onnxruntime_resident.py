"""Resident stages on ONNX Runtime: what is bound, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from resident_engines import LIMITS, lowered, ort_engines, session_of, sidecar_of
from specimens import ZOO, Zoo, full_forward, random_ids

from foveal.contract import Limits
from foveal.errors import DeviceError
from foveal.runtime.device import HostDevice
from foveal.runtime.engines import onnxruntime_library
from foveal.runtime.engines.onnxruntime_library import memory_of
from foveal.runtime.engines.onnxruntime_resident import ResidentOrtEngine, ResidentOrtStage
from foveal.runtime.session import Session


class NotingBinding:
    """An IOBinding that remembers what it was told: tensors and their shapes."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[int, ...]]] = []
        self._iobinding = self

    def bind_input(self, name: str, device: Any, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        self.told.append((name, shape))

    bind_output = bind_input


class NotingSession:
    """An InferenceSession that runs nothing."""

    def __init__(self, error: Exception | None = None) -> None:
        self.binding, self.error, self.options = NotingBinding(), error, []  # type: ignore[var-annotated]

    def io_binding(self) -> NotingBinding:
        return self.binding

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self.options.append(options)
        if self.error is not None:
            raise self.error


def bound_stage(zoo: Zoo, session: Any, limits: Limits | None = LIMITS) -> ResidentOrtStage:
    """The last stage of a specimen, with a buffer for every tensor."""
    stage = lowered(zoo["linear"], "modern")[-1]
    sidecar = sidecar_of(stage.spec, "cuda", "modern", limits)
    engine = ResidentOrtEngine(stage.spec, session, sidecar, memory_of("cpu"))
    bound = engine.bind("prefill", 2)
    sizes = {"S": 96, "R": 96, "R.1.pre": 100, "R.5": 100, "B": 2, "L": 5, "N": 5}
    for tensor in (*engine.contract.inputs, *engine.contract.outputs):
        shape = [size if isinstance(size, int) else sizes[size] for size in tensor.shape]
        bound.bind(tensor.name, HostDevice().allocate(int(np.prod(shape)) * np.dtype(tensor.dtype).itemsize))
    return bound


def test_tensors_are_bound_once(zoo: Zoo) -> None:
    """And again where a shape changes, or an address: a decode step binds nothing."""
    session = NotingSession()
    stage, told = bound_stage(zoo, session), session.binding.told
    stage.run(3, 1)
    shapes = dict(told)
    assert shapes["offsets"] == (3,)
    assert shapes["logits"] == (2, 1, 41)
    assert shapes["rows.1.pre"] == (2, 1, 100, 24)
    assert shapes["past_key_values.0.key"] == shapes["present.0.key"] == (2, 3, 96, 8)
    told.clear()
    stage.run(3, 1)
    assert told == []
    stage.run(4, 1)
    assert told == [("offsets", (4,))]
    told.clear()
    stage.bind("present.0.key", HostDevice().allocate(2 * 3 * 96 * 8 * 4))
    stage.run(4, 1)
    assert told == [("present.0.key", (2, 3, 96, 8))]


def test_a_run_does_not_wait_for_the_device(zoo: Zoo) -> None:
    """ONNX Runtime waits for its stream after every run unless told not to, which can't be recorded in a CUDA graph."""
    session = NotingSession()
    bound_stage(zoo, session).run(1, 1)
    (options,) = session.options
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"


def test_what_onnxruntime_refuses_is_told_with_the_stage(zoo: Zoo) -> None:
    """In its own words, of which the first line says it."""
    with pytest.raises(DeviceError) as raised:
        bound_stage(zoo, NotingSession(RuntimeError("cudaErrorLaunchFailure\nstack"))).run(1, 1)
    assert str(raised.value) == 'onnxruntime could not run stage "1.post": cudaErrorLaunchFailure'


def test_a_tensor_that_onnxruntime_can_not_bind_is_told_likewise(zoo: Zoo) -> None:
    """As where an engine has no input of that name."""

    def refuse(name: str, *_: object) -> None:
        raise RuntimeError(f"Failed to find input name in the mapping: {name}\nstack")

    session = NotingSession()
    session.binding.bind_input = refuse  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match=r'^onnxruntime could not run stage "1.post": Failed to find input name.*: \S+$'):
        bound_stage(zoo, session).run(1, 1)


def test_its_own_error_is_one_of_ours(zoo: Zoo) -> None:
    """Real sessions, whose caches are longer than those they are given."""
    shorter = ort_engines(zoo["linear"], "modern", Limits(batch=2, capacity=40, prefill=5))
    for engine, other in zip(shorter.engines, ort_engines(zoo["linear"], "modern").engines, strict=True):
        vars(engine)["session"] = vars(other)["session"]
    session = Session(shorter, zoo["linear"].bundle.manifest.model, capacity=40)
    with pytest.raises(DeviceError, match=r'onnxruntime could not run stage "1\.pre": .*Got invalid dimensions for input'):
        session.advance(random_ids(1, 3))


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("dialect", ["modern", "classic"])
def test_any_length_without_limits(name: str, dialect: str, zoo: Zoo) -> None:
    """Graphs whose sizes were left open keep caches as long as the session asks for, and read a prompt in one call."""
    model, bundle = zoo[name].model, zoo[name].bundle
    for capacity in (17, 40):
        session = Session(ort_engines(zoo[name], dialect, None), bundle.manifest.model, 2, capacity)
        ids = random_ids(2, 17)
        np.testing.assert_allclose(session.advance(ids), full_forward(model, ids), atol=1e-4)
        assert session.copied_bytes == 0


def test_options_of_a_run_are_onnxruntimes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made when they are needed, for onnxruntime is imported when it is first asked for."""
    entries: dict[str, str] = {}
    fake = SimpleNamespace(RunOptions=lambda: SimpleNamespace(add_run_config_entry=entries.__setitem__))
    monkeypatch.setattr(onnxruntime_library, "import_onnxruntime", lambda: fake)
    onnxruntime_library.run_options()
    assert entries == {"disable_synchronize_execution_providers": "1"}


def test_state_is_the_same_memory_before_and_after(zoo: Zoo) -> None:
    """There ONNX Runtime writes the new rows only."""
    session = session_of(ort_engines(zoo["linear"], "classic"), zoo["linear"])
    session.advance(random_ids(1, 3))
    decoder: Any = session.decoder
    for stage in decoder._stages["prefill"]:
        for tensor in stage._program.contract.inputs:
            if tensor.aliased_with is not None:
                assert stage._buffers[tensor.name].address == stage._buffers[tensor.aliased_with].address
