"""What a machine is found to be, whichever of its parts answers."""

from __future__ import annotations

import subprocess
import sys
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tensorrt_surface import real, strict, surface

from foveal.runtime.preflight import libraries
from foveal.runtime.preflight.gpus import Gpu, Gpus, ask_cuda, ask_nvidia_smi, find_gpus, read_device_tree
from foveal.runtime.preflight.libraries import Installed, find_libraries
from foveal.runtime.preflight.machine import read_machine

RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", "8.9", 24564 << 20)


class Code(IntEnum):
    """Of the results that the CUDA driver gives."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_ECC_UNCORRECTABLE = 214
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803


class Driver:
    """A CUDA driver of version 13.0 with one GPU; `start` is what cuInit gives, `lost` what asking the GPU gives."""

    def __init__(self, start: Code = Code.CUDA_SUCCESS, lost: Code = Code.CUDA_SUCCESS) -> None:
        self._start, self._lost = start, lost

    def cuInit(self, Flags):
        return (self._start,)

    def cuDriverGetVersion(self):
        return Code.CUDA_SUCCESS, 13000

    def cuDeviceGetCount(self):
        return Code.CUDA_SUCCESS, 1

    def cuDeviceGet(self, ordinal):
        return Code.CUDA_SUCCESS, ordinal

    def cuDeviceGetName(self, length, dev):
        return Code.CUDA_SUCCESS, RTX_4090.name.encode().ljust(length, b"\0")

    def cuDeviceTotalMem(self, dev):
        return self._lost, RTX_4090.memory_bytes

    def cuDeviceGetAttribute(self, attrib, dev):
        return Code.CUDA_SUCCESS, {75: 8, 76: 9}[int(attrib)]


def driver(**results: Code):
    """The fake, which may do what the real `cuda.bindings.driver` may."""
    return strict(surface(real("cuda.bindings.driver")), Driver(**results))


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program of that name, which prints and exits as told, in front of all others."""

    def install(prints: str, code: int = 0) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    return install


def root(tmp_path: Path, name: str, content: str) -> Path:
    """A root directory with one file."""
    path = tmp_path / "root" / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return tmp_path / "root"


def test_the_cuda_driver_knows_its_gpus(tmp_path: Path) -> None:
    """In CUDA's order, with the newest CUDA that runs; the kernel module tells the driver's version."""
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\n"
    where = root(tmp_path, "proc/driver/nvidia/version", text)
    assert ask_cuda(driver(), where) == Gpus(gpus=(RTX_4090,), driver="580.65.06", cuda="13.0")


def test_a_cuda_driver_without_gpus(tmp_path: Path) -> None:
    """Also what an empty CUDA_VISIBLE_DEVICES leads to."""
    assert ask_cuda(driver(start=Code.CUDA_ERROR_NO_DEVICE), tmp_path) == Gpus()


@pytest.mark.parametrize(
    "results", [{"start": Code.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH}, {"lost": Code.CUDA_ERROR_ECC_UNCORRECTABLE}]
)
def test_a_cuda_driver_that_fails(results: dict[str, Code], tmp_path: Path) -> None:
    """Its name for the error is given, whether it does not start or a GPU is lost."""
    (code,) = results.values()
    found = ask_cuda(driver(**results), tmp_path)
    assert found == Gpus(trouble=f"CUDA fails: {code.name}; restart the machine or reinstall the driver")


def test_a_machine_without_a_cuda_driver(tmp_path: Path) -> None:
    """`cuda-bindings` can be installed where there is no libcuda."""

    def missing(_flags: int) -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    assert ask_cuda(SimpleNamespace(cuInit=missing), tmp_path) is None


def test_nvidia_smi_knows_its_gpus(nvidia_smi) -> None:
    """Memory that is the host's is not told, as on Jetson and GB10."""
    nvidia_smi("NVIDIA GeForce RTX 4090, 8.9, 24564, 580.65.06\nNVIDIA GB10, 12.1, [N/A], 580.65.06")
    assert ask_nvidia_smi() == Gpus(gpus=(RTX_4090, Gpu("NVIDIA GB10", "12.1", None)), driver="580.65.06")


def test_nvidia_smi_without_gpus(nvidia_smi) -> None:
    """That is no failure."""
    nvidia_smi("No devices were found", code=6)
    assert ask_nvidia_smi() == Gpus()


@pytest.mark.parametrize(
    ("prints", "code", "reason"),
    [
        (
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.65",
            18,
            "Driver/library version",
        ),
        ('Field "compute_cap" is not a valid field to query.', 2, 'Field "compute_cap" is not a valid field to query;'),
        ("", 139, "exit code 139"),
        ("something else", 0, "something else"),
    ],
)
def test_a_broken_nvidia_smi(nvidia_smi, prints: str, code: int, reason: str) -> None:
    """Its first line is the finding; there is no traceback."""
    nvidia_smi(prints, code)
    found = ask_nvidia_smi()
    assert found is not None
    assert found.gpus == ()
    assert found.trouble is not None
    assert found.trouble.startswith("nvidia-smi fails: ")
    assert reason in found.trouble
    assert found.trouble.endswith("; restart the machine or reinstall the driver")


def test_an_nvidia_smi_that_hangs(nvidia_smi, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does where a GPU has failed."""
    nvidia_smi("")

    def hang(command: list[str], **_options: object) -> None:
        raise subprocess.TimeoutExpired(command[0], 60)

    monkeypatch.setattr(subprocess, "run", hang)
    found = ask_nvidia_smi()
    assert found is not None
    assert "timed out after 60 seconds; restart the machine" in str(found.trouble)


@pytest.mark.parametrize(("board", "capability"), [("AGX Orin Developer Kit", "8.7"), ("AGX Thor Developer Kit", "11.0")])
def test_a_jetson_by_its_board(tmp_path: Path, board: str, capability: str) -> None:
    """Where neither answers."""
    where = root(tmp_path, "proc/device-tree/model", f"NVIDIA Jetson {board}\0")
    assert read_device_tree(where) == Gpus(gpus=(Gpu(f"NVIDIA Jetson {board}", capability),))


def test_another_board(tmp_path: Path) -> None:
    """It is no Jetson."""
    assert read_device_tree(root(tmp_path, "proc/device-tree/model", "Raspberry Pi 5\0")) is None


def test_nothing_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no GPU."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert find_gpus(tmp_path) == Gpus()


def test_libraries_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package named after a CUDA version tells which one it was built for."""
    versions = {"tensorrt-rtx": "1.7.1.116", "tensorrt-rtx-cu13": "1.7.1.116", "onnxruntime": "1.32.0"}
    monkeypatch.setattr(libraries, "version", lambda name: versions[name] if name in versions else _missing(name))
    monkeypatch.setattr(libraries, "find_spec", lambda name: name in ("tensorrt_rtx", "onnxruntime") or None)
    assert find_libraries() == {
        "tensorrt_rtx": Installed(package="tensorrt-rtx-cu13", version="1.7.1.116", cuda=13),
        "onnxruntime": Installed(package="onnxruntime", version="1.32.0"),
    }


def test_the_tensorrt_of_jetpack(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package of pip's; the module knows its version."""
    module = ModuleType("tensorrt")
    module.__version__ = "10.3.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(libraries, "find_spec", lambda name: name == "tensorrt" or None)
    monkeypatch.setattr(libraries, "version", _missing)
    assert find_libraries() == {"tensorrt": Installed(version="10.3.0")}


def test_a_library_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is kept."""
    monkeypatch.setattr(libraries, "find_spec", lambda name: name == "tensorrt" or None)
    monkeypatch.setattr(libraries, "version", _missing)
    monkeypatch.setattr(libraries, "import_module", _unloadable)
    assert find_libraries() == {"tensorrt": Installed(trouble="libnvinfer.so.10: cannot open shared object file")}


def test_this_machine() -> None:
    """Its system is named as a build record names it, and the libraries that are installed are there."""
    found = read_machine()
    assert found.system.partition("-")[0] in ("Linux", "Windows", "Darwin")
    assert found.libraries["onnxruntime"].version


def test_no_engine_library_is_loaded() -> None:
    """Nor torch, nor onnx."""
    code = (
        "import sys; from foveal.runtime.preflight.machine import read_machine; read_machine();"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'tensorrt_rtx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def _missing(name: str) -> str:
    raise libraries.PackageNotFoundError(name)


def _unloadable(_name: str) -> ModuleType:
    raise OSError("libnvinfer.so.10: cannot open shared object file")
