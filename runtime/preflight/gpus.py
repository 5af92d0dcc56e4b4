"""The GPUs of this machine, without creating a CUDA context.

The CUDA driver is asked where `cuda-bindings` is installed: it numbers GPUs as the runtime will, obeys CUDA_VISIBLE_DEVICES,
and answers on Jetson too. Else `nvidia-smi` is, and where that is missing, as on some Jetsons, the device tree.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec

_SECONDS = 60  # nvidia-smi takes a few where no process keeps the driver loaded, and hangs where a GPU has failed
_FIELDS = ("name", "compute_cap", "memory.total", "driver_version")
# https://developer.nvidia.com/cuda-gpus, for the boards that TensorRT 10.3 and later run on.
_JETSONS = {"Orin": "8.7", "Thor": "11.0"}


class Gpu(msgspec.Struct, frozen=True):
    """One GPU; `memory_bytes` is None where it shares the host's and the driver does not say."""

    name: str
    compute_capability: str
    memory_bytes: int | None = None


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs that CUDA programs see, in CUDA's order.

    Attributes:
        driver: its version, as `"580.65.06"`.
        cuda: the newest CUDA that the driver runs, as `"13.0"`, a forward-compatibility package counted in.
        trouble: why GPUs that may be there can't be asked.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    trouble: str | None = None


def find_gpus(root: Path = Path("/")) -> Gpus:
    """Ask the CUDA driver, `nvidia-smi` or the device tree under `root`: the first that is there."""
    driver = _cuda_driver()
    found = None if driver is None else ask_cuda(driver, root)
    return found or ask_nvidia_smi() or read_device_tree(root) or Gpus()


def _cuda_driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError:
        return None
    return driver


def ask_cuda(driver: Any, root: Path = Path("/")) -> Gpus | None:
    """What the CUDA driver says, through the module `cuda.bindings.driver`; None where there is no driver."""
    version = _read_driver_version(root)
    try:
        (code,) = driver.cuInit(0)
    except RuntimeError:  # there is no libcuda
        return None
    if code.name == "CUDA_ERROR_NO_DEVICE":
        return Gpus(driver=version)
    try:
        _value((code, None))
        cuda = _value(driver.cuDriverGetVersion())
        gpus = tuple(_gpu(driver, _value(driver.cuDeviceGet(index))) for index in range(_value(driver.cuDeviceGetCount())))
    except _CudaError as error:
        return Gpus(driver=version, trouble=f"CUDA fails: {error}; restart the machine or reinstall the driver")
    return Gpus(gpus=gpus, driver=version, cuda=f"{cuda // 1000}.{cuda % 1000 // 10}")


class _CudaError(Exception):
    """A call of the driver that gave an error; its name."""


def _gpu(driver: Any, device: Any) -> Gpu:
    names = driver.CUdevice_attribute
    major, minor = (
        _value(driver.cuDeviceGetAttribute(getattr(names, f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}"), device))
        for part in ("MAJOR", "MINOR")
    )
    name = _value(driver.cuDeviceGetName(128, device)).split(b"\0")[0].decode()
    return Gpu(name, f"{major}.{minor}", _value(driver.cuDeviceTotalMem(device)))


def _value(result: tuple[Any, Any]) -> Any:
    code, value = result
    if code.name != "CUDA_SUCCESS":
        raise _CudaError(code.name)
    return value


def _read_driver_version(root: Path) -> str | None:
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    return found[1] if found else None


def ask_nvidia_smi() -> Gpus | None:
    """What `nvidia-smi` says; None where there is no such program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Gpus(trouble=f"nvidia-smi does not run: {error}; restart the machine or reinstall the driver")
    said = (done.stdout + done.stderr).strip()
    if said.startswith("No devices were found"):
        return Gpus()
    rows = [[field.strip() for field in line.split(",")] for line in done.stdout.strip().splitlines()]
    if done.returncode != 0 or any(len(row) != len(_FIELDS) for row in rows):
        first = said.splitlines()[0] if said else f"exit code {done.returncode}"
        return Gpus(trouble=f"nvidia-smi fails: {first.rstrip('. ')}; restart the machine or reinstall the driver")
    gpus = tuple(Gpu(name, capability, _bytes(memory)) for name, capability, memory, _ in rows)
    return Gpus(gpus=gpus, driver=rows[0][3] if rows else None)


def _bytes(mebibytes: str) -> int | None:
    return int(mebibytes) << 20 if mebibytes.isdecimal() else None  # "[N/A]" where the host's memory is used


def read_device_tree(root: Path) -> Gpus | None:
    """The GPU of a Jetson, by the name of its board; None on other machines."""
    try:
        board = (root / "proc/device-tree/model").read_text(encoding="utf-8").rstrip("\0\n")
    except OSError:
        return None
    capability = next((known for name, known in _JETSONS.items() if name in board), None)
    if "Jetson" not in board or capability is None:
        return None
    return Gpus(gpus=(Gpu(board, capability),), driver=_read_driver_version(root))
