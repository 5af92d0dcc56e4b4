"""Bundles whose engines are a few bytes: a preflight reads their sidecars and hashes, and deserialises nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from foveal.bundle import SCHEMA_VERSION, Manifest, ModelInfo, StageEntry, list_files, write_manifest
from foveal.contract import InputSpec, StageSpec, layer_caches
from foveal.files import sha256_of
from foveal.runtime.preflight.gpus import Gpu
from foveal.runtime.preflight.libraries import Installed
from foveal.runtime.preflight.machine import Machine
from foveal.sidecar import BuildRecord, EngineSidecar

STAGES = ("1.pre", "4", "1.post")
RTX, FULL = "1.7.1.116", "11.4.0.106"
RTX_4090, H100 = Gpu("NVIDIA GeForce RTX 4090", "8.9"), Gpu("NVIDIA H100 PCIe", "9.0")
LIBRARIES = {
    "tensorrt_rtx": Installed(package="tensorrt-rtx-cu13", version=RTX, cuda=13),
    "tensorrt": Installed(package="tensorrt-cu13", version=FULL, cuda=13),
    "onnxruntime": Installed(package="onnxruntime", version="1.32.0"),
}
MACHINE = Machine(system="Linux-x86_64", gpus=(RTX_4090,), driver="580.65.06", cuda="13.0", libraries=LIBRARIES)

_RECORDS: dict[str, dict[str, Any]] = {
    "tensorrt-rtx": {"version": RTX, "compute_capabilities": ()},
    "tensorrt": {"version": FULL, "compute_capabilities": ("8.9",), "device": RTX_4090.name},
}


def machine(**changes: Any) -> Machine:
    """A workstation on which both TensorRTs are installed, but for `changes`."""
    return msgspec.structs.replace(MACHINE, **changes)


def write_bundle(directory: Path, target: str = "tensorrt-rtx", **record: Any) -> Path:
    """A bundle with an engine of `target` for each of three stages; `record` overrides what their build records say."""
    for name in STAGES:
        write(directory / f"stages/{name}.onnx", f"graph of {name}".encode())
        write(engine(directory, name, target), f"engine of {name}, longer than a header. ".encode() * 4)
        write_sidecar(directory, name, target, sidecar(directory, name, target, **record))
    write_manifest_of(directory, target)
    return directory


def engine(directory: Path, stage: str, target: str = "tensorrt-rtx") -> Path:
    """Where a stage's engine is."""
    return directory / f"engines/{target}/{stage}.{'onnx' if target in ('cpu', 'cuda') else 'engine'}"


def sidecar(directory: Path, stage: str, target: str, **record: Any) -> EngineSidecar:
    """What a build would write beside a stage's engine."""
    is_graph = target in ("cpu", "cuda")
    return EngineSidecar(
        target=target,
        stage=stage,
        builder="foveal 0.1.0",
        precision_asked="fp32",
        precision_obtained="fp32",
        graph_sha256=sha256_of(directory / f"stages/{stage}.onnx"),
        engine_sha256=sha256_of(engine(directory, stage, target)),
        cache_widths=(8, 8),
        build=None if is_graph else build_record(target, **record),
    )


def build_record(target: str, **changes: Any) -> BuildRecord:
    """Of an engine that was built on a machine like `MACHINE`."""
    usual: dict[str, Any] = {
        "library": target,
        "system": "Linux-x86_64",
        "cache_key": "0" * 64,
        "tactics_sha256": "0" * 64,
        "kernels": {},
        "seconds": 1.0,
        "peak_memory_bytes": 1,
    }
    return BuildRecord(**{**usual, **_RECORDS[target], **changes})


def write_sidecar(directory: Path, stage: str, target: str, written: EngineSidecar) -> None:
    """Beside the stage's engine."""
    write(engine(directory, stage, target).with_suffix(".json"), msgspec.json.encode(written))


def write_manifest_of(directory: Path, target: str = "tensorrt-rtx") -> None:
    """A manifest of the files as they are now."""
    info = ModelInfo(
        architecture="hourglass",
        source_format="foveal",
        hierarchy="1@1 1@4 1@1",
        vocab_size=8,
        dim=8,
        max_positions=None,
        context=16,
        parameters=1,
        layer_equivalents=2.25,
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        foveal_version="0.1.0",
        model=info,
        dialect="modern",
        precision="fp32",
        tokenizer=None,
        stages=tuple(StageEntry(spec=_spec(name), graph=f"stages/{name}.onnx", weight_bytes=1) for name in STAGES),
        engines={target: {name: engine(directory, name, target).relative_to(directory).as_posix() for name in STAGES}},
        files=list_files(directory),
    )
    write_manifest(directory, manifest)


def write(path: Path, data: bytes) -> None:
    """Write a file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _spec(name: str) -> StageSpec:
    tokens = (InputSpec(kind="tokens"),)
    output = "logits" if name == "1.post" else "hidden"
    return StageSpec(
        name=name,
        stride=4 if name == "4" else 1,
        inputs=tokens,
        output=output,
        width=8,
        layers=1,
        caches=layer_caches(1, 1, 8),
        parameters=1,
    )
