"""Whether a machine can run an engine, by what the engine's sidecar says. docs/engines.md has the rules and their sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import install
from ...sidecar import BuildRecord, EngineSidecar
from ..engines.onnxruntime_library import INT8_CACHES_SINCE, SINCE
from .engine_files import build_command
from .findings import Finding, Reason
from .gpus import Gpu
from .libraries import Installed
from .machine import Machine

_PRODUCTS = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
# What TensorRT-RTX compiles for (its enum ComputeCapability, 1.7); later GPUs run its portable engines too.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
_RTX_PORTABLE_SINCE = "8.0"  # Turing has to be named
_RTX_SYSTEMS = ("Linux", "Windows")
_PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}  # Windows' names for what Linux calls otherwise


@dataclass(frozen=True)
class Case:
    """An engine, or any of a target (no sidecar), and a machine that is to run it."""

    bundle: Path
    target: str
    sidecar: EngineSidecar | None
    machine: Machine

    @property
    def record(self) -> EngineSidecar:
        """The sidecar of an engine, once it is known which."""
        if self.sidecar is None:
            raise ValueError("no engine is meant here, but all that a target may have")
        return self.sidecar

    @property
    def product(self) -> str:
        """NVIDIA's name of the library."""
        return _PRODUCTS[self.target]

    @property
    def library(self) -> Installed:
        """The library, once it is known to be installed."""
        return self.machine.libraries[_MODULES[self.target]]

    @property
    def gpu(self) -> Gpu:
        """The GPU, once it is known that there is one."""
        return self.machine.gpus[0]

    @property
    def build(self) -> str:
        """The command that builds the engine again."""
        return build_command(self.bundle, self.target)


def obstacle(bundle: Path, target: str, machine: Machine) -> Finding | None:
    """What keeps any engine of a target from running on a machine, however it is built."""
    if target not in _PRODUCTS:
        return _onnxruntime_obstacle(target, machine)
    installed = machine.libraries.get(_MODULES[target])
    case = Case(bundle, target, None, machine)
    found = _no_gpu(case)
    if found is None and installed is not None and installed.version is not None:  # else the build says what to install
        found = _driver(case) or (_rtx_supports(case) if target == "tensorrt-rtx" else None)
    return found


def fit(case: Case) -> Finding:
    """The first rule that the engine breaks, or that it fits."""
    return fit_tensorrt(case) if case.target in _PRODUCTS else fit_onnxruntime(case)


def fit_onnxruntime(case: Case) -> Finding:
    """Engines that are graphs run wherever ONNX Runtime knows their kernels."""
    if found := _onnxruntime_obstacle(case.target, case.machine):
        return found
    version = case.machine.libraries["onnxruntime"].version or ""
    if case.record.cache_dtype == "int8" and _numbers(version)[:2] < _numbers(INT8_CACHES_SINCE):
        text = f"the engine keeps int8 caches, which need onnxruntime {INT8_CACHES_SINCE} or later, got {version}"
        return _refuse("library version", f"{text}; upgrade it, or build the bundle with --cache fp32")
    return Finding("match", "fits", f"onnxruntime {version} runs it")


def _onnxruntime_obstacle(target: str, machine: Machine) -> Finding | None:
    """Why ONNX Runtime runs no engines of a target."""
    library = machine.libraries.get("onnxruntime")
    if library is None or library.version is None:
        why = f"can't be imported ({library.trouble})" if library else "is not installed"
        return _refuse("library missing", f"onnxruntime {why}; {install(target)}")
    if _numbers(library.version)[:2] < _numbers(SINCE[target]):
        text = f"onnxruntime {library.version} is installed, expected {SINCE[target]} or later"
        return _refuse("library version", f"{text}; pip install --upgrade {library.package or 'onnxruntime'}")
    if target == "cuda" and library.package != "onnxruntime-gpu":
        text = f"onnxruntime-gpu is not installed, got {library.package}, which runs on the CPU only"
        return _refuse("library missing", f"{text}; uninstall it and {install('cuda')}")
    return _no_gpu(Case(Path(), target, None, machine)) if target == "cuda" else None


def fit_tensorrt(case: Case) -> Finding:
    """Engines of TensorRT and TensorRT-RTX are for the version, the system and the GPUs that they were built for."""
    record = case.record.build
    if record is None or record.library != case.target:
        text = f"the sidecar does not say which {case.product} built the engine, and for which GPUs"
        return _rebuild("sidecar", f"{text}; run {case.build}")
    if record.weights_stripped:
        text = "the engine holds no weights, and foveal's runtime can't put them back"
        return _rebuild("sidecar", f"{text}; run {case.build} without --strip-weights")
    rules = _RTX_RULES if case.target == "tensorrt-rtx" else _TENSORRT_RULES
    for rule in (*_RULES, *rules):
        if found := rule(case, record):
            return found
    return Finding("match", "fits", f"{case.product} {case.library.version} runs it on {_named(case.gpu)}{_note(case, record)}")


Rule = Callable[[Case, BuildRecord], Finding | None]


def _library_missing(case: Case, record: BuildRecord) -> Finding | None:
    module, mend = _MODULES[case.target], _install(case.target, record.version)
    library = case.machine.libraries.get(module)
    if library is None and case.target == "tensorrt" and "tensorrt_lean" in case.machine.libraries:
        text = "tensorrt is not installed, got tensorrt_lean, which runs only engines built to be version-compatible"
        return _refuse("library missing", f"{text}; {mend}")
    if library is None:
        return _refuse("library missing", f"{module}, which runs these engines, is not installed; {mend}")
    if library.version is None:
        return _refuse("library missing", f"{module} can't be imported: {library.trouble}; {mend}")
    return None


def _library_version(case: Case, record: BuildRecord) -> Finding | None:
    got, built = case.library.version or "", record.version
    if all(a == b for a, b in zip(got.split("."), built.split("."), strict=False)):  # JetPack's module omits the build
        return None
    text = f"the engine was built by {case.product} {built}, got {got}, and engines run on no version but their own"
    return _rebuild("library version", f"{text}; run {case.build}, or {_install(case.target, built)}")


def _no_gpu(case: Case, _record: BuildRecord | None = None) -> Finding | None:
    if case.machine.gpus:
        return None
    if case.machine.trouble:
        return _refuse("no GPU", f"this machine's GPUs can't be asked: {case.machine.trouble}")
    here = (
        "tensorrt engines can neither be built nor"
        if case.target == "tensorrt"
        else f"{case.target} engines can be built but not"
    )
    return _refuse(
        "no GPU", f"this machine has no NVIDIA GPU that CUDA sees, so {here} run here; copy the bundle to one that has"
    )


def _driver(case: Case, _record: BuildRecord | None = None) -> Finding | None:
    """Within a major version of CUDA any driver of it will do."""
    needed, has = case.library.cuda, case.machine.cuda
    if needed is None or has is None or _numbers(has)[0] >= needed:
        return None
    driver = f"the NVIDIA driver {case.machine.driver}" if case.machine.driver else "the NVIDIA driver"
    text = f"{driver} runs CUDA up to {has}, but {case.library.package} {case.library.version} needs CUDA {needed}"
    return _refuse("driver", f"{text}; update the driver, or install its package for CUDA {_numbers(has)[0]}")


def _same_system(case: Case, record: BuildRecord) -> Finding | None:
    if record.system == case.machine.system:
        return None
    text = f"the engine was built on {record.system}, got {case.machine.system}, and TensorRT's engines run on no other system"
    return _rebuild("system", f"{text}; run {case.build} on this machine")


def _same_processor(case: Case, record: BuildRecord) -> Finding | None:
    (built_on, built_for), (here, processor) = _split(record.system), _split(case.machine.system)
    if record.system == case.machine.system or (built_for == processor and {built_on, here} <= set(_RTX_SYSTEMS)):
        return None
    text = f"the engine was built on {record.system}, got {case.machine.system}"
    why = "TensorRT-RTX's engines are portable between Linux and Windows on one kind of processor"
    return _rebuild("system", f"{text}, and {why}; run {case.build} on this machine")


def _same_capability(case: Case, record: BuildRecord) -> Finding | None:
    if case.gpu.compute_capability in record.compute_capabilities:
        return None
    built = (
        f"{_listed(record.compute_capabilities)} ({record.device})" if record.device else _listed(record.compute_capabilities)
    )
    text = f"the engine was built for compute capability {built}, got {_named(case.gpu)}"
    return _rebuild("compute capability", f"{text}; run {case.build} on this machine")


def _rtx_supports(case: Case, _record: BuildRecord | None = None) -> Finding | None:
    if case.gpu.compute_capability in RTX_CAPABILITIES or _is_newer_than_rtx(case.gpu):
        return None
    text = f"TensorRT-RTX has no kernels for {_named(case.gpu)}, expected {_listed(RTX_CAPABILITIES)} or later"
    return _refuse("compute capability", f"{text}; run {build_command(case.bundle, 'tensorrt')} on this machine instead")


def _rtx_capability(case: Case, record: BuildRecord) -> Finding | None:
    capability, built = case.gpu.compute_capability, record.compute_capabilities
    if capability in built or (not built and _numbers(capability) >= _numbers(_RTX_PORTABLE_SINCE)):
        return None
    meant = _listed(built) if built else f"{_RTX_PORTABLE_SINCE} and later"
    text = f"the engine was built for compute capability {meant}, got {_named(case.gpu)}"
    named = "" if _is_newer_than_rtx(case.gpu) else f" with --compute-capability {capability}"
    return _rebuild("compute capability", f"{text}; run {case.build}{named}")


_RULES: tuple[Rule, ...] = (_library_missing, _library_version)
_TENSORRT_RULES: tuple[Rule, ...] = (_same_system, _no_gpu, _driver, _same_capability)
_RTX_RULES: tuple[Rule, ...] = (_same_processor, _no_gpu, _driver, _rtx_supports, _rtx_capability)


def _note(case: Case, record: BuildRecord) -> str:
    """What one should know of an engine that runs."""
    notes = []
    if case.target == "tensorrt" and record.device not in (None, case.gpu.name):
        notes.append(f"; it was tuned on {record.device}, so run {case.build} here if speed matters")
    if case.target == "tensorrt-rtx" and _is_newer_than_rtx(case.gpu):
        notes.append("; this GPU is newer than the library, so a later version may be faster")
    return "".join(notes)


def _refuse(reason: Reason, sentence: str) -> Finding:
    return Finding("refuse", reason, sentence)


def _rebuild(reason: Reason, sentence: str) -> Finding:
    return Finding("rebuild", reason, sentence)


def _install(target: str, version: str) -> str:
    if target == "tensorrt":
        return f"pip install tensorrt=={version}, or on Jetson the JetPack that has it"
    return f"pip install {target}=={version}"


def _is_newer_than_rtx(gpu: Gpu) -> bool:
    return _numbers(gpu.compute_capability) > _numbers(RTX_CAPABILITIES[-1])


def _named(gpu: Gpu) -> str:
    return f"{gpu.name} ({gpu.compute_capability})"


def _listed(capabilities: tuple[str, ...]) -> str:
    return ", ".join(capabilities) or "unknown"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _split(system: str) -> tuple[str, str]:
    """Operating system and processor."""
    name, _, processor = system.partition("-")
    return name, _PROCESSORS.get(processor.lower(), processor)
