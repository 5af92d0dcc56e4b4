"""The GPU as a device, on a driver that is not there (tests/fake_cuda.py), and the real binding where there is no driver."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest
from fake_cuda import QUEUEING, FakeGpu
from resident_engines import session_of, tensorrt_engines
from specimens import Zoo, random_ids
from tensorrt_surface import real

from foveal.errors import BackendUnavailable, DeviceError
from foveal.runtime.cuda import CudaDevice, import_cudart
from foveal.runtime.device import Buffer, Region


@pytest.fixture
def device(gpu: FakeGpu) -> CudaDevice:
    """On the fake GPU."""
    return CudaDevice(cudart=gpu.cudart)


def region(array: np.ndarray) -> Region:
    """All of an array."""
    return Region(array.ctypes.data, array.nbytes)


def read(device: CudaDevice, buffer: Buffer) -> np.ndarray:
    """Bytes of a buffer, waited for."""
    array = np.empty(buffer.nbytes, np.uint8)
    device.copy(region(array), Region(buffer.address, buffer.nbytes))
    device.synchronize()
    return array


class TestMemory:
    """Of the device, and of the host where the device reaches it."""

    def test_of_the_device_is_zeroed(self, device: CudaDevice) -> None:
        """What cudaMalloc gives is not."""
        assert read(device, device.allocate(100)).tolist() == [0] * 100

    def test_on_the_host_is_zeroed_and_shaped(self, device: CudaDevice) -> None:
        """As an array like any other."""
        array = device.pinned((3, 4), np.int64)
        assert (array.shape, array.dtype, array.any()) == ((3, 4), np.dtype(np.int64), False)

    def test_may_be_empty(self, device: CudaDevice) -> None:
        """An engine may need no activation memory."""
        assert device.allocate(0).nbytes == 0
        assert device.pinned((0,), np.float32).size == 0

    def test_is_given_back_with_the_last_that_refers_to_it(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """A part of a buffer, or a view of an array, keeps all of it."""
        part, view = device.allocate(64).at(8, 8), device.pinned((5,), np.int64)[1:]
        assert gpu.leaks() == ["64 bytes, device", "40 bytes, pinned", "stream"]
        del part
        assert gpu.leaks() == ["40 bytes, pinned", "stream"]
        del view
        assert gpu.leaks() == ["stream"]

    @pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc"])
    def test_that_runs_out(self, gpu: FakeGpu, device: CudaDevice, function: str) -> None:
        """How much was asked for, and what to do."""
        gpu.failing[function] = "cudaErrorMemoryAllocation"
        with pytest.raises(DeviceError) as raised:
            device.allocate(1234567) if function == "cudaMalloc" else device.pinned((1234567,), np.uint8)
        assert str(raised.value) == (
            f"no memory for 1,234,567 bytes: {function} failed: cudaErrorMemoryAllocation (out of memory); "
            "ask for fewer sequences or less capacity, or free memory"
        )

    def test_that_can_not_be_zeroed_is_given_back(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """Nothing is left behind by what failed."""
        gpu.failing["cudaMemsetAsync"] = "cudaErrorInvalidValue"
        with pytest.raises(DeviceError, match="cudaMemsetAsync failed: cudaErrorInvalidValue"):
            device.allocate(16)
        gc.collect()
        assert gpu.leaks() == ["stream"]


class TestWork:
    """What is queued on the stream."""

    def test_is_done_in_order_when_it_is_waited_for(self, device: CudaDevice) -> None:
        """And not before."""
        buffer, source, target = device.allocate(8), device.pinned((8,), np.uint8), device.pinned((8,), np.uint8)
        device.synchronize()
        source[:] = 7
        device.copy(Region(buffer.address, 8), region(source))
        device.copy(region(target), Region(buffer.address, 8))
        assert target.tolist() == [0] * 8
        device.synchronize()
        assert target.tolist() == [7] * 8

    def test_copies_rows_of_one_pitch_to_rows_of_another(self, device: CudaDevice) -> None:
        """As when the first rows of every head's cache are read."""
        buffer, source = device.allocate(24), np.arange(1, 7, dtype=np.uint8)
        device.copy(Region(buffer.address, 2, 3, 8), Region(source.ctypes.data, 2, 3, 2))
        assert read(device, buffer).reshape(3, 8)[:, :3].tolist() == [[1, 2, 0], [3, 4, 0], [5, 6, 0]]

    def test_on_memory_that_is_not_the_devices_fails(self, device: CudaDevice) -> None:
        """Beyond a buffer's end, or in one that was given back."""
        buffer, array = device.allocate(16), np.zeros(32, np.uint8)
        with pytest.raises(DeviceError, match="cudaMemcpyAsync failed: cudaErrorIllegalAddress"):
            device.copy(Region(buffer.address, 32), region(array))
        address = buffer.address
        del buffer
        with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
            device.copy(Region(address, 16), Region(array.ctypes.data, 16))


class TestARecording:
    """A CUDA graph: what some work queues, to be queued again at once."""

    @pytest.fixture
    def arrays(self, device: CudaDevice) -> tuple[np.ndarray, np.ndarray]:
        """Two on the host."""
        return device.pinned((8,), np.uint8), device.pinned((8,), np.uint8)

    def test_does_nothing_until_it_is_called(
        self, gpu: FakeGpu, device: CudaDevice, arrays: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Then it does what the memory then holds, as often as one likes, with one call of the driver."""
        source, target = arrays
        buffer = device.allocate(8)
        device.synchronize()

        def work() -> None:
            device.copy(Region(buffer.address, 8), region(source))
            device.copy(region(target), Region(buffer.address, 8))

        recorded = device.capture(work)
        device.synchronize()
        assert target.tolist() == [0] * 8
        for value in (3, 4):
            source[:] = value
            before = len(gpu.calls)
            recorded()
            assert [call.name for call in gpu.calls[before:]] == ["cudaGraphLaunch"]
            device.synchronize()
            assert target.tolist() == [value] * 8

    def test_is_given_back_when_nobody_calls_it_any_more(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """With the graph it was made of at once."""
        recorded = device.capture(lambda: None)
        assert gpu.leaks() == ["stream", "launchable graph"]
        del recorded
        assert gpu.leaks() == ["stream"]

    def test_of_work_that_fails_is_none(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """The error is the work's, the stream is usable, and no half graph is left."""

        def work() -> None:
            raise KeyError("a tensor")

        with pytest.raises(KeyError, match="a tensor"):
            device.capture(work)
        device.synchronize()
        device.capture(lambda: None)
        gc.collect()
        assert gpu.leaks() == ["stream"]

    @pytest.mark.parametrize("forbidden", ["synchronize", "allocate"])
    def test_can_not_wait_or_allocate(self, gpu: FakeGpu, device: CudaDevice, forbidden: str) -> None:
        """CUDA refuses that; it is not done instead."""
        work = {"synchronize": device.synchronize, "allocate": lambda: device.allocate(8)}[forbidden]
        with pytest.raises(DeviceError, match="cudaErrorStreamCaptureUnsupported"):
            device.capture(work)
        assert read(device, device.allocate(8)).tolist() == [0] * 8
        assert gpu.graphs == gpu.launchables == {}

    def test_that_was_spoilt_unnoticed_is_refused(self, device: CudaDevice) -> None:
        """As when a library waits inside and keeps the error to itself."""

        def work() -> None:
            with pytest.raises(DeviceError):
                device.synchronize()

        with pytest.raises(DeviceError, match="cudaStreamEndCapture failed: cudaErrorStreamCaptureInvalidated"):
            device.capture(work)
        device.synchronize()

    def test_that_can_not_be_made_launchable(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """The graph is given back, and the error says which call failed."""
        gpu.failing["cudaGraphInstantiate"] = "cudaErrorNotSupported"
        with pytest.raises(
            DeviceError, match=r"cudaGraphInstantiate failed: cudaErrorNotSupported \(operation not supported\)"
        ):
            device.capture(lambda: None)
        assert gpu.graphs == {}

    def test_is_not_spoilt_by_garbage(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """Buffers in cycles, as of a session whose error was kept, are not given back while recording."""
        cycle: list[Any] = [device.allocate(8)]
        cycle.append(cycle)
        del cycle

        def work() -> None:
            if gc.isenabled():
                gc.collect()  # as Python does whenever it likes

        device.capture(work)
        assert gc.isenabled()
        gc.collect()
        assert gpu.leaks() == ["stream"]


class TestWithoutAGpu:
    """What the caller is told."""

    def test_the_driver_is_missing(self) -> None:
        """The real binding, on a machine without a driver."""
        if real("cuda.bindings.runtime").cudaGetDeviceCount()[0] == 0:
            pytest.skip("this machine has a CUDA driver")
        with pytest.raises(BackendUnavailable) as raised:
            CudaDevice()
        assert str(raised.value) == (
            "GPU 0 can't be used: cudaSetDevice failed: cudaErrorInsufficientDriver "
            "(CUDA driver version is insufficient for CUDA runtime version); `foveal doctor` shows what this machine has"
        )

    def test_there_is_no_such_gpu(self, gpu: FakeGpu) -> None:
        """Its number is named."""
        with pytest.raises(BackendUnavailable, match=r"GPU 3 can't be used: cudaSetDevice failed: cudaErrorInvalidDevice"):
            CudaDevice(3, gpu.cudart)

    def test_the_binding_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the line that installs it."""
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
        with pytest.raises(
            BackendUnavailable,
            match=r"cuda-bindings can't be imported .*: pip install '\.\[rtx\]'",
        ):
            import_cudart()

    def test_the_real_binding_takes_every_argument(self, gpu: FakeGpu, zoo: Zoo) -> None:
        """All calls of a session, given to it anew: it converts their arguments, and then misses the driver."""
        cudart = real("cuda.bindings.runtime")
        missing = cudart.cudaError_t.cudaErrorInsufficientDriver
        if cudart.cudaGetDeviceCount()[0] != missing:
            pytest.skip("this machine has a CUDA driver, which would follow the addresses")
        session = session_of(tensorrt_engines(zoo["linear"], "tensorrt", gpu), zoo["linear"])
        session.advance(random_ids(1, 7))
        session.restore(session.snapshot())
        del session
        calls = [call for call in gpu.calls if call.name != "execute_async_v3"]
        assert {call.name for call in calls} >= {*QUEUEING, "cudaFree", "cudaGraphExecDestroy"} - {"execute_async_v3"}
        assert {(name, getattr(cudart, name)(*arguments)[0]) for name, arguments in calls} == {
            (call.name, missing) for call in calls
        }


class TestTheFake:
    """It is as strict as CUDA, or the tests above and those of the engines would show nothing."""

    def test_fills_what_it_gives_with_garbage(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """NaN, for an engine that reads it as a float."""
        _, address = gpu.cudart.cudaMalloc(8)
        assert np.isnan(read(device, Buffer(address, 8, None)).view(np.float32)).all()

    def test_knows_one_capture_at_a_time(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """A second is an error; so is an end without a beginning."""
        with pytest.raises(DeviceError, match="cudaStreamBeginCapture failed: cudaErrorIllegalState"):
            device.capture(lambda: device.capture(lambda: None) and None)
        assert gpu.cudart.cudaStreamEndCapture(device.stream)[0] == gpu.cudart.cudaError_t.cudaErrorIllegalState

    def test_records_no_copy_of_memory_that_may_move(self, device: CudaDevice) -> None:
        """The host's own, that is not pinned."""
        buffer, array = device.allocate(8), np.zeros(8, np.uint8)
        with pytest.raises(DeviceError, match="cudaMemcpyAsync failed: cudaErrorStreamCaptureUnsupported"):
            device.capture(lambda: device.copy(Region(buffer.address, 8), region(array)))

    def test_gives_back_nothing_twice(self, gpu: FakeGpu) -> None:
        """Nor what it never gave."""
        _, address = gpu.cudart.cudaMalloc(8)
        statuses = [gpu.cudart.cudaFree(given)[0].name for given in (address, address, address + 1)]
        assert statuses == ["cudaSuccess", "cudaErrorInvalidValue", "cudaErrorInvalidValue"]
