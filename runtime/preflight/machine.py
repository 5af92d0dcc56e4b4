"""What this machine is, as far as engines care."""

from __future__ import annotations

import platform

import msgspec

from .gpus import Gpu, find_gpus
from .libraries import Installed, find_libraries


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that engines are to run on.

    Attributes:
        system: operating system and processor, as `"Linux-x86_64"`.
        gpus: in CUDA's order; engines run on the first.
        driver: NVIDIA's, as `"580.65.06"`.
        cuda: the newest CUDA that the driver runs, as `"13.0"`.
        libraries: engine libraries, by module.
        trouble: why GPUs that may be there can't be asked.
    """

    system: str
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    libraries: dict[str, Installed] = {}
    trouble: str | None = None


def read_machine() -> Machine:
    """Describe this machine; neither torch nor an engine library is loaded, unless only its module knows its version."""
    found = find_gpus()
    return Machine(
        system=f"{platform.system()}-{platform.machine()}",
        gpus=found.gpus,
        driver=found.driver,
        cuda=found.cuda,
        libraries=find_libraries(),
        trouble=found.trouble,
    )
