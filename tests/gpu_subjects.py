"""What runs engines, and whether this machine has it: what `make gpu-check` checks one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from foveal.errors import BackendUnavailable
from foveal.runtime.engines.onnxruntime_library import import_onnxruntime
from foveal.runtime.engines.onnxruntime_providers import PROVIDERS
from foveal.runtime.engines.tensorrt_library import library_of
from foveal.runtime.preflight.machine import Machine

_TARGETS = ("cuda", "tensorrt", "tensorrt-rtx")
_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"


@dataclass(frozen=True)
class Subject:
    """A target, and for `cuda` the provider that runs its engines."""

    target: str
    provider: str | None = None

    def __str__(self) -> str:
        return self.target if self.provider is None else f"{self.target}:{self.provider}"

    @staticmethod
    def parse(text: str) -> Subject:
        """From `"tensorrt"` or `"cuda:cpu"`; raises ValueError if there is no such thing."""
        target, _, provider = text.partition(":")
        if target not in _TARGETS or (provider and (target != "cuda" or provider not in PROVIDERS)):
            raise ValueError(f"{text} can't be checked, expected one of {', '.join(map(str, SUBJECTS))}, cuda:cpu")
        return Subject(target, provider or ("cuda" if target == "cuda" else None))

    def missing(self, machine: Machine) -> str | None:
        """What it takes and this machine has not; None: it can be checked here."""
        if self.provider == "cpu":
            return None
        if not machine.gpus:
            return no_gpu(machine)
        return self._missing_provider() if self.target == "cuda" else self._missing_library()

    def _missing_provider(self) -> str | None:
        assert self.provider is not None
        if self.provider == "tensorrt-rtx":
            return None if find_spec(_PLUGIN) else f"{_PLUGIN} is not installed"
        name, available = PROVIDERS[self.provider], import_onnxruntime().get_available_providers()
        return None if name in available else f"this onnxruntime has no {name}, only {', '.join(available)}"

    def _missing_library(self) -> str | None:
        try:
            library_of(self.target)  # type: ignore[arg-type]
        except BackendUnavailable as error:
            return str(error)
        return None


SUBJECTS = tuple(map(Subject.parse, ("tensorrt", "tensorrt-rtx", "cuda:cuda", "cuda:tensorrt", "cuda:tensorrt-rtx")))
"""All that need a GPU. `cuda:cpu` runs the graphs of `cuda` without one, through the same code; it has to be named."""


def no_gpu(machine: Machine) -> str:
    """Why nothing that needs a GPU can be checked."""
    if machine.trouble:
        return f"this machine's GPUs can't be asked: {machine.trouble}"
    return "this machine has no NVIDIA GPU that CUDA sees"
