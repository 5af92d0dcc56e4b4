"""Every way in which an engine does not fit a machine has its own sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from engine_bundles import (
    FULL,
    H100,
    LIBRARIES,
    RTX,
    RTX_4090,
    STAGES,
    engine,
    machine,
    sidecar,
    write,
    write_bundle,
    write_manifest_of,
    write_sidecar,
)
from tensorrt_surface import real, strict, surface

from foveal import BundleError, ConfigError, open_bundle
from foveal.bundle import chunks_name, list_files, write_manifest
from foveal.errors import BackendUnavailable, EngineMismatchError, install
from foveal.files import sha256_of
from foveal.runtime.engines.tensorrt_library import Library, library_of
from foveal.runtime.preflight import Preflight, check, check_all, require_match
from foveal.runtime.preflight.engine_fit import RTX_CAPABILITIES
from foveal.runtime.preflight.findings import Finding
from foveal.runtime.preflight.gpus import Gpu
from foveal.runtime.preflight.libraries import Installed
from foveal.runtime.preflight.machine import Machine
from foveal.runtime.preflight.validity import ask_library
from foveal.sidecar import ChunkEngine

COPY = "copy the bundle again"


def answer(found: Preflight) -> tuple[str, str, str]:
    """Answer, reason and sentence."""
    return found.answer, found.reason, found.sentence


def preflight(bundle: Path, target: str = "tensorrt-rtx", **changes: Any) -> tuple[str, str, str]:
    """The answer on a workstation that differs by `changes` from the usual one."""
    return answer(check(bundle, target, machine(**changes)))


@pytest.fixture
def rtx(tmp_path: Path) -> Path:
    """A bundle with TensorRT-RTX engines for every RTX GPU since Ampere."""
    return write_bundle(tmp_path / "b")


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A bundle with TensorRT engines built on an RTX 4090."""
    return write_bundle(tmp_path / "b", "tensorrt")


# Match


def test_engines_that_fit(rtx: Path) -> None:
    """One sentence, as all stages agree; a bundle that was opened before is as good as a path."""
    found = check(rtx, "tensorrt-rtx", machine())
    assert answer(found) == ("match", "fits", f"TensorRT-RTX {RTX} runs it on NVIDIA GeForce RTX 4090 (8.9)")
    assert list(found.stages) == list(STAGES)
    assert found.is_unanimous
    assert check(open_bundle(rtx), "tensorrt-rtx", machine()) == found
    require_match(rtx, "tensorrt-rtx", machine())


def test_tensorrt_engines_that_fit(full: Path) -> None:
    """On the GPU they were built on."""
    assert preflight(full, "tensorrt") == ("match", "fits", f"TensorRT {FULL} runs it on NVIDIA GeForce RTX 4090 (8.9)")


def test_another_gpu_of_the_same_capability(full: Path) -> None:
    """It runs, but was tuned for another."""
    text = (
        f"TensorRT {FULL} runs it on NVIDIA L4 (8.9); it was tuned on NVIDIA GeForce RTX 4090, "
        f"so run `foveal build {full} --target tensorrt` here if speed matters"
    )
    assert preflight(full, "tensorrt", gpus=(Gpu("NVIDIA L4", "8.9"),)) == ("match", "fits", text)


def test_stripped_weights(tmp_path: Path) -> None:
    """Such engines are for runtimes that refit them."""
    bundle = write_bundle(tmp_path / "b", weights_stripped=True)
    text = (
        "the engine holds no weights, and foveal's runtime can't put them back; "
        f"run `foveal build {bundle} --target tensorrt-rtx` without --strip-weights"
    )
    assert preflight(bundle) == ("rebuild", "sidecar", text)


def test_rtx_engines_are_portable_to_windows(rtx: Path) -> None:
    """Which calls the same processor by another name."""
    assert preflight(rtx, system="Windows-AMD64")[0] == "match"


def test_a_gpu_newer_than_the_library(rtx: Path) -> None:
    """Portable engines run on it."""
    text = (
        f"TensorRT-RTX {RTX} runs it on NVIDIA RTX 7090 (14.0); "
        "this GPU is newer than the library, so a later version may be faster"
    )
    assert preflight(rtx, gpus=(Gpu("NVIDIA RTX 7090", "14.0"),)) == ("match", "fits", text)


def test_the_version_that_jetpack_tells(tmp_path: Path) -> None:
    """Its module omits the build number."""
    bundle = write_bundle(tmp_path / "b", "tensorrt", version="10.3.0.30")
    assert preflight(bundle, "tensorrt", libraries={"tensorrt": Installed(version="10.3.0")})[0] == "match"


# Files


def test_a_missing_engine(rtx: Path) -> None:
    """Its stage is named; the others match."""
    engine(rtx, "4").unlink()
    found = check(rtx, "tensorrt-rtx", machine())
    text = f"engines/tensorrt-rtx/4.engine is missing; {COPY}"
    assert answer(found) == ("refuse", "file", f'stage "4": {text}')
    assert {name: finding.answer for name, finding in found.stages.items()} == {
        "1.pre": "match",
        "4": "refuse",
        "1.post": "match",
    }
    assert found.stages["4"].sentence == text
    assert not found.is_unanimous


def test_a_truncated_engine(rtx: Path) -> None:
    """Both sizes are named."""
    whole = engine(rtx, "4").read_bytes()
    engine(rtx, "4").write_bytes(whole[:-7])
    text = (
        f'stage "4": engines/tensorrt-rtx/4.engine is truncated: it has {len(whole) - 7} bytes, expected {len(whole)}; {COPY}'
    )
    assert preflight(rtx) == ("refuse", "file", text)


def test_an_altered_engine(rtx: Path) -> None:
    """One flipped bit is enough, and it may be an attack."""
    data = bytearray(engine(rtx, "4").read_bytes())
    data[9] ^= 1
    engine(rtx, "4").write_bytes(bytes(data))
    text = (
        'stage "4": engines/tensorrt-rtx/4.engine was altered: its SHA-256 differs from the manifest\'s; '
        f"{COPY}, from whom you trust"
    )
    assert preflight(rtx) == ("refuse", "file", text)


def test_swapped_engine_files(rtx: Path) -> None:
    """Found by their hashes."""
    first, second = engine(rtx, "1.pre"), engine(rtx, "4")
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    found = check(rtx, "tensorrt-rtx", machine())
    text = (
        'stage "1.pre": engines/tensorrt-rtx/1.pre.engine is a copy of engines/tensorrt-rtx/4.engine, so engines were swapped;'
        f" {COPY}"
    )
    assert answer(found) == ("refuse", "swapped", text)
    assert found.stages["4"].reason == "swapped"


def test_swapped_engines_in_a_manifest_written_anew(rtx: Path) -> None:
    """With their sidecars, which say whose they are."""
    for suffix in (".engine", ".json"):
        first, second = engine(rtx, "1.pre").with_suffix(suffix), engine(rtx, "4").with_suffix(suffix)
        one, other = first.read_bytes(), second.read_bytes()
        write(first, other)
        write(second, one)
    write_manifest_of(rtx)
    text = (
        'stage "1.pre": engines/tensorrt-rtx/1.pre.engine is the engine of stage "4", expected that of "1.pre": '
        f"engines were swapped; {COPY}, or run `foveal build {rtx} --target tensorrt-rtx`"
    )
    assert preflight(rtx) == ("refuse", "swapped", text)


def test_another_engine_under_an_old_sidecar(rtx: Path) -> None:
    """In a manifest written anew."""
    write(engine(rtx, "4"), b"another engine of the same stage")
    write_manifest_of(rtx)
    text = (
        'stage "4": engines/tensorrt-rtx/4.engine is not the engine that engines/tensorrt-rtx/4.json was written for: '
        f"its SHA-256 is another; {COPY}, or run `foveal build {rtx} --target tensorrt-rtx`"
    )
    assert preflight(rtx) == ("refuse", "swapped", text)


def test_an_edited_sidecar(rtx: Path) -> None:
    """Whatever was changed, the manifest's hash tells."""
    path = engine(rtx, "4").with_suffix(".json")
    path.write_text(path.read_text().replace("1.7.1.116", "1.7.1.117"))
    text = f'stage "4": engines/tensorrt-rtx/4.json was edited: its SHA-256 differs from the manifest\'s; {COPY}'
    assert preflight(rtx) == ("refuse", "sidecar", text)


def test_a_sidecar_of_another_target(rtx: Path) -> None:
    """In a manifest written anew."""
    edited = msgspec.structs.replace(sidecar(rtx, "4", "tensorrt-rtx"), target="tensorrt")
    write_sidecar(rtx, "4", "tensorrt-rtx", edited)
    write_manifest_of(rtx)
    text = (
        'stage "4": engines/tensorrt-rtx/4.json says that its engine is for tensorrt, expected tensorrt-rtx: '
        f"it was edited; {COPY}, or run `foveal build {rtx} --target tensorrt-rtx`"
    )
    assert preflight(rtx) == ("refuse", "sidecar", text)


def test_a_sidecar_that_is_none(rtx: Path) -> None:
    """In a manifest written anew; the schema says what is wrong."""
    write(engine(rtx, "4").with_suffix(".json"), b"{}")
    write_manifest_of(rtx)
    got = preflight(rtx)
    assert got[:2] == ("rebuild", "sidecar")
    assert "4.json is not an engine sidecar: Object missing required field `target`; build the engines again" in got[2]


def test_a_sidecar_without_a_build_record(rtx: Path) -> None:
    """Then nothing is known of the engine."""
    for name in STAGES:
        bare = msgspec.structs.replace(sidecar(rtx, name, "tensorrt-rtx"), build=None)
        write_sidecar(rtx, name, "tensorrt-rtx", bare)
    write_manifest_of(rtx)
    text = (
        "the sidecar does not say which TensorRT-RTX built the engine, and for which GPUs; "
        f"run `foveal build {rtx} --target tensorrt-rtx`"
    )
    assert preflight(rtx) == ("rebuild", "sidecar", text)


def test_a_graph_newer_than_the_engine(rtx: Path) -> None:
    """The engine is of the graph as it was."""
    write(rtx / "stages/4.onnx", b"another graph")
    write_manifest_of(rtx)
    text = (
        'stage "4": engines/tensorrt-rtx/4.engine was made of another graph than stages/4.onnx is now; '
        f"run `foveal build {rtx} --target tensorrt-rtx`"
    )
    assert preflight(rtx) == ("rebuild", "graph", text)


def test_the_gravest_answer_counts(rtx: Path) -> None:
    """Rebuilding would not mend an engine that was altered."""
    write(rtx / "stages/1.pre.onnx", b"another graph")
    write_manifest_of(rtx)
    engine(rtx, "4").unlink()
    found = check(rtx, "tensorrt-rtx", machine())
    assert (found.stages["1.pre"].answer, found.stages["4"].answer, found.answer) == ("rebuild", "refuse", "refuse")


def test_what_is_no_bundle(tmp_path: Path) -> None:
    """Is an error, not an answer."""
    with pytest.raises(BundleError, match=r"is not a bundle: there is no manifest\.json"):
        check(tmp_path, "tensorrt-rtx", machine())


def test_a_linked_engine(rtx: Path, tmp_path: Path) -> None:
    """What it leads to is looked at as if it lay there."""
    expected = check(rtx, "tensorrt-rtx", machine()).answer
    engine(rtx, "4").rename(tmp_path / "elsewhere")
    engine(rtx, "4").symlink_to(tmp_path / "elsewhere")
    assert check(rtx, "tensorrt-rtx", machine()).answer == expected
    write(tmp_path / "elsewhere", b"x")
    assert check(rtx, "tensorrt-rtx", machine()).answer == "refuse"


def test_an_engine_nobody_named(rtx: Path) -> None:
    """Nothing may be slipped in beside the engines."""
    write(rtx / "engines/tensorrt-rtx/5.engine", b"x")
    with pytest.raises(BundleError, match=r"5\.engine is not named in the manifest"):
        check(rtx, "tensorrt-rtx", machine())


def test_targets(rtx: Path) -> None:
    """One there is no engine for, and one there is not."""
    text = f"there are no engines for tensorrt, only for: tensorrt-rtx; run `foveal build {rtx} --target tensorrt`"
    assert preflight(rtx, "tensorrt") == ("rebuild", "no engines", text)
    with pytest.raises(ConfigError, match='unknown target "tpu"'):
        preflight(rtx, "tpu")


def test_all_targets(rtx: Path) -> None:
    """Those that the bundle has engines for; a bundle without engines has nothing to check."""
    assert [found.target for found in check_all(rtx, machine())] == ["tensorrt-rtx"]
    manifest = open_bundle(rtx).manifest
    shutil.rmtree(rtx / "engines")
    write_manifest(rtx, msgspec.structs.replace(manifest, engines={}, files=list_files(rtx)))
    with pytest.raises(ConfigError, match="has no engines to check; make some, as with `foveal build .* --target cpu`"):
        check_all(rtx, machine())


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt", "tensorrt-rtx"])
def test_an_engine_of_other_weights(tmp_path: Path, target: str) -> None:
    """In graphs that are alike weights make the difference: an engine is bound to those that it was made of."""
    bundle = write_bundle(tmp_path / "b", target)
    write(bundle / "stages/4.onnx.data", b"other weights")
    write_manifest_of(bundle, target)
    ending = "onnx" if target in ("cpu", "cuda") else "engine"
    text = (
        f"engines/{target}/4.{ending} was made of other weights than stages/4.onnx.data holds now; "
        f"run `foveal build {bundle} --target {target}`"
    )
    library = {**LIBRARIES, "onnxruntime": Installed(package="onnxruntime-gpu", version="1.32.0")}
    assert check(bundle, target, machine(libraries=library)).stages["4"] == Finding("rebuild", "graph", text)


@pytest.mark.parametrize("suffix", ["", ".data"])
def test_an_engine_for_many_rows_that_another_build_wrote(tmp_path: Path, suffix: str) -> None:
    """The sidecar says which belongs to the stage's first engine."""
    bundle = write_bundle(tmp_path / "b", "cpu")
    chunks = bundle / chunks_name("engines/cpu/4.onnx")
    for ending in ("", ".data"):
        write(chunks.with_name(chunks.name + ending), f"{ending} of one build".encode())
    hashes = [sha256_of(chunks.with_name(chunks.name + ending)) for ending in ("", ".data")]
    known = ChunkEngine(least_rows=32, engine_sha256=hashes[0], engine_data_sha256=hashes[1])
    write_sidecar(bundle, "4", "cpu", msgspec.structs.replace(sidecar(bundle, "4", "cpu"), chunks=known))
    write_manifest_of(bundle, "cpu")
    assert preflight(bundle, "cpu")[0] == "match"
    write(chunks.with_name(chunks.name + suffix), b"of another")
    write_manifest_of(bundle, "cpu")
    what = "the weights" if suffix else "the engine"
    text = (
        f'stage "4": engines/cpu/chunks/4.onnx{suffix} is not {what} that engines/cpu/4.json was written for: '
        f"its SHA-256 is another; {COPY}, or run `foveal build {bundle} --target cpu`"
    )
    assert preflight(bundle, "cpu") == ("refuse", "swapped", text)


@pytest.mark.parametrize("suffix", ["", ".data"])
def test_swapped_cpu_engines_in_a_manifest_written_anew(tmp_path: Path, suffix: str) -> None:
    """Without their sidecars, as a whole or their weights alone: sidecars say whose they are."""
    bundle = write_bundle(tmp_path / "b", "cpu")
    first, second = (engine(bundle, name, "cpu") for name in ("1.pre", "4"))
    for path, data in ((first, b"one"), (second, b"other")):
        write(path.with_name(f"{path.name}.data"), data)
    for name in STAGES:
        data = engine(bundle, name, "cpu").with_name(f"{name}.onnx.data")
        known = msgspec.structs.replace(
            sidecar(bundle, name, "cpu"), engine_data_sha256=sha256_of(data) if data.is_file() else ""
        )
        write_sidecar(bundle, name, "cpu", known)
    write_manifest_of(bundle, "cpu")
    assert preflight(bundle, "cpu")[0] == "match"
    one, other = (path.with_name(path.name + suffix) for path in (first, second))
    swapped = one.read_bytes(), other.read_bytes()
    write(other, swapped[0])
    write(one, swapped[1])
    write_manifest_of(bundle, "cpu")
    what = "the weights" if suffix else "the engine"
    text = (
        f'stage "1.pre": engines/cpu/1.pre.onnx{suffix} is not {what} that engines/cpu/1.pre.json was written for: '
        f"its SHA-256 is another; {COPY}, or run `foveal build {bundle} --target cpu`"
    )
    assert preflight(bundle, "cpu") == ("refuse", "swapped", text)


def test_an_engine_of_an_earlier_foveal(tmp_path: Path) -> None:
    """Its sidecar does not bind it to its file, so anything could lie there."""
    bundle = write_bundle(tmp_path / "b", "cpu")
    write_sidecar(bundle, "4", "cpu", msgspec.structs.replace(sidecar(bundle, "4", "cpu"), engine_sha256=""))
    write_manifest_of(bundle, "cpu")
    text = (
        'stage "4": engines/cpu/4.json does not say which engine it was written for, as those of an earlier foveal; '
        f"run `foveal build {bundle} --target cpu`"
    )
    assert preflight(bundle, "cpu") == ("rebuild", "sidecar", text)


def test_what_rebuilding_would_not_mend_is_said_at_once(rtx: Path) -> None:
    """Not first rebuild, and then that there is no GPU."""
    no_gpu = "this machine has no NVIDIA GPU that CUDA sees, so tensorrt-rtx engines can be built but not run here"
    text = (
        f"the engine was built by TensorRT-RTX {RTX}, got 1.8.0.1, and engines run on no version but their own; "
        f"run `foveal build {rtx} --target tensorrt-rtx`, or pip install tensorrt-rtx=={RTX}"
    )
    newer = {"tensorrt_rtx": Installed(package="tensorrt-rtx-cu13", version="1.8.0.1", cuda=13)}
    assert preflight(rtx, libraries=newer) == ("rebuild", "library version", text)
    answered = ("refuse", "no GPU", f"{no_gpu}; copy the bundle to one that has. Then rebuild them: {text}")
    assert preflight(rtx, libraries=newer, gpus=()) == answered
    nothing = f"there are no engines for tensorrt, only for: tensorrt-rtx; run `foveal build {rtx} --target tensorrt`"
    found = preflight(rtx, "tensorrt", gpus=())
    assert found[:2] == ("refuse", "no GPU")
    assert found[2].endswith(f"copy the bundle to one that has. Then rebuild them: {nothing}")


# Library


def test_a_missing_library(rtx: Path) -> None:
    """The version to install is the one that built the engines."""
    text = f"tensorrt_rtx, which runs these engines, is not installed; pip install tensorrt-rtx=={RTX}"
    assert preflight(rtx, libraries={}) == ("refuse", "library missing", text)
    with pytest.raises(BackendUnavailable) as caught:
        require_match(rtx, "tensorrt-rtx", machine(libraries={}))
    assert str(caught.value) == f"{rtx}, tensorrt-rtx: {text}"


def test_a_library_that_cannot_be_imported(full: Path) -> None:
    """With the reason."""
    broken = {"tensorrt": Installed(trouble="libnvinfer.so.10: cannot open shared object file")}
    text = (
        "tensorrt can't be imported: libnvinfer.so.10: cannot open shared object file; "
        f"pip install tensorrt=={FULL}, or on Jetson the JetPack that has it"
    )
    assert preflight(full, "tensorrt", libraries=broken) == ("refuse", "library missing", text)


def test_the_lean_library_alone(full: Path) -> None:
    """It needs engines that foveal does not build."""
    text = (
        "tensorrt is not installed, got tensorrt_lean, which runs only engines built to be version-compatible; "
        f"pip install tensorrt=={FULL}, or on Jetson the JetPack that has it"
    )
    assert preflight(full, "tensorrt", libraries={"tensorrt_lean": Installed(version=FULL)}) == (
        "refuse",
        "library missing",
        text,
    )


@pytest.mark.parametrize(
    ("target", "product", "built", "install"),
    [
        ("tensorrt-rtx", "TensorRT-RTX", "1.6.0.52", "pip install tensorrt-rtx==1.6.0.52"),
        ("tensorrt-rtx", "TensorRT-RTX", "1.7.1.115", "pip install tensorrt-rtx==1.7.1.115"),
        (
            "tensorrt",
            "TensorRT",
            "10.3.0.30",
            "pip install tensorrt==10.3.0.30, or on Jetson the JetPack that has it",
        ),
    ],
)
def test_another_version(tmp_path: Path, target: str, product: str, built: str, install: str) -> None:
    """Down to the build."""
    bundle = write_bundle(tmp_path / "b", target, version=built)
    text = (
        f"the engine was built by {product} {built}, got {LIBRARIES[target.replace('-', '_')].version}, "
        f"and engines run on no version but their own; run `foveal build {bundle} --target {target}`, or {install}"
    )
    assert preflight(bundle, target) == ("rebuild", "library version", text)
    with pytest.raises(EngineMismatchError) as caught:
        require_match(bundle, target, machine())
    assert (str(caught.value), caught.value.exit_code) == (f"{bundle}, {target}: {text}", 3)


# System, driver and GPU


def test_another_system(full: Path) -> None:
    """TensorRT's engines are not portable."""
    text = (
        "the engine was built on Linux-x86_64, got Linux-aarch64, and TensorRT's engines run on no other system; "
        f"run `foveal build {full} --target tensorrt` on this machine"
    )
    assert preflight(full, "tensorrt", system="Linux-aarch64") == ("rebuild", "system", text)


def test_another_processor(rtx: Path) -> None:
    """TensorRT-RTX's are portable between systems, not processors."""
    text = (
        "the engine was built on Linux-x86_64, got Linux-aarch64, and TensorRT-RTX's engines are portable between Linux and "
        f"Windows on one kind of processor; run `foveal build {rtx} --target tensorrt-rtx` on this machine"
    )
    assert preflight(rtx, system="Linux-aarch64") == ("rebuild", "system", text)


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("tensorrt-rtx", "tensorrt-rtx engines can be built but not run here"),
        ("tensorrt", "tensorrt engines can neither be built nor run here"),
    ],
)
def test_no_gpu(tmp_path: Path, target: str, what: str) -> None:
    """What can be done without one is said."""
    bundle = write_bundle(tmp_path / "b", target)
    text = f"this machine has no NVIDIA GPU that CUDA sees, so {what}; copy the bundle to one that has"
    assert preflight(bundle, target, gpus=()) == ("refuse", "no GPU", text)


def test_gpus_that_cannot_be_asked(rtx: Path) -> None:
    """The driver's trouble is passed on."""
    trouble = "nvidia-smi fails: Driver/library version mismatch; restart the machine or reinstall the driver"
    text = f"this machine's GPUs can't be asked: {trouble}"
    assert preflight(rtx, gpus=(), trouble=trouble) == ("refuse", "no GPU", text)


def test_an_old_driver(rtx: Path) -> None:
    """Its major version of CUDA counts."""
    text = (
        f"the NVIDIA driver 570.86.10 runs CUDA up to 12.8, but tensorrt-rtx-cu13 {RTX} needs CUDA 13; "
        "update the driver, or install its package for CUDA 12"
    )
    assert preflight(rtx, driver="570.86.10", cuda="12.8") == ("refuse", "driver", text)
    assert preflight(rtx, cuda=None)[0] == "match"  # nobody knows


def test_tensorrt_on_another_gpu(full: Path) -> None:
    """Of another compute capability."""
    text = (
        "the engine was built for compute capability 8.9 (NVIDIA GeForce RTX 4090), got NVIDIA H100 PCIe (9.0); "
        f"run `foveal build {full} --target tensorrt` on this machine"
    )
    assert preflight(full, "tensorrt", gpus=(H100, RTX_4090)) == ("rebuild", "compute capability", text)


@pytest.mark.parametrize("gpu", [H100, Gpu("Orin", "8.7"), Gpu("NVIDIA Thor", "11.0"), Gpu("Tesla V100", "7.0")])
def test_a_gpu_that_rtx_does_not_know(rtx: Path, gpu: Gpu) -> None:
    """Datacenter and Jetson GPUs; the other TensorRT is for those."""
    text = (
        f"TensorRT-RTX has no kernels for {gpu.name} ({gpu.compute_capability}), expected 7.5, 8.0, 8.6, 8.9, 12.0, 12.1 "
        f"or later; run `foveal build {rtx} --target tensorrt` on this machine instead"
    )
    assert preflight(rtx, gpus=(gpu,)) == ("refuse", "compute capability", text)


def test_turing_has_to_be_named(rtx: Path) -> None:
    """Portable engines leave it out."""
    text = (
        "the engine was built for compute capability 8.0 and later, got NVIDIA GeForce RTX 2080 Ti (7.5); "
        f"run `foveal build {rtx} --target tensorrt-rtx` with --compute-capability 7.5"
    )
    assert preflight(rtx, gpus=(Gpu("NVIDIA GeForce RTX 2080 Ti", "7.5"),)) == ("rebuild", "compute capability", text)


@pytest.mark.parametrize(
    ("gpu", "named"),
    [(Gpu("NVIDIA A10", "8.6"), " with --compute-capability 8.6"), (Gpu("NVIDIA RTX 7090", "14.0"), "")],
)
def test_an_rtx_gpu_that_was_not_named(tmp_path: Path, gpu: Gpu, named: str) -> None:
    """Engines for some GPUs run on no others; one that has no name yet is reached by a portable engine."""
    bundle = write_bundle(tmp_path / "b", compute_capabilities=("8.9", "12.0"))
    text = (
        f"the engine was built for compute capability 8.9, 12.0, got {gpu.name} ({gpu.compute_capability}); "
        f"run `foveal build {bundle} --target tensorrt-rtx`{named}"
    )
    assert preflight(bundle, gpus=(gpu,)) == ("rebuild", "compute capability", text)
    assert preflight(bundle)[0] == "match"


def test_the_capabilities_are_the_librarys() -> None:
    """A new version of it may bring new ones."""
    members = real("tensorrt_rtx").ComputeCapability.__members__
    known = {int(member) for name, member in members.items() if name.startswith("SM")}
    assert {int(capability.replace(".", "")) for capability in RTX_CAPABILITIES} == known


# ONNX Runtime


def test_cpu_engines(tmp_path: Path) -> None:
    """They need onnxruntime, and no GPU."""
    bundle = write_bundle(tmp_path / "b", "cpu")
    assert preflight(bundle, "cpu", gpus=()) == ("match", "fits", "onnxruntime 1.32.0 runs it")
    text = f"onnxruntime is not installed; {install('cpu')}"
    assert preflight(bundle, "cpu", libraries={}) == ("refuse", "library missing", text)


def test_int8_caches_need_a_newer_onnxruntime(tmp_path: Path) -> None:
    """As the engine says when it is loaded."""
    bundle = write_bundle(tmp_path / "b", "cpu")
    for name in STAGES:
        written = msgspec.structs.replace(sidecar(bundle, name, "cpu"), cache_dtype="int8")
        write_sidecar(bundle, name, "cpu", written)
    write_manifest_of(bundle, "cpu")
    old = {"onnxruntime": Installed(package="onnxruntime", version="1.27.1")}
    text = (
        "the engine keeps int8 caches, which need onnxruntime 1.28 or later, got 1.27.1; "
        "upgrade it, or build the bundle with --cache fp32"
    )
    assert preflight(bundle, "cpu", libraries=old) == ("refuse", "library version", text)
    assert preflight(bundle, "cpu")[0] == "match"


@pytest.mark.parametrize(
    ("target", "package", "old", "least"),
    [("cpu", "onnxruntime", "1.22.3", "1.23"), ("cuda", "onnxruntime-gpu", "1.23.2", "1.24")],
)
def test_an_onnxruntime_that_is_too_old(tmp_path: Path, target: str, package: str, old: str, least: str) -> None:
    """It can't load what foveal writes."""
    bundle = write_bundle(tmp_path / "b", target)
    text = f"onnxruntime {old} is installed, expected {least} or later; pip install --upgrade {package}"
    installed = {"onnxruntime": Installed(package=package, version=old)}
    assert preflight(bundle, target, libraries=installed) == ("refuse", "library version", text)


def test_cuda_engines(tmp_path: Path) -> None:
    """They need the other onnxruntime, and a GPU."""
    bundle = write_bundle(tmp_path / "b", "cuda")
    text = f"onnxruntime-gpu is not installed, got onnxruntime, which runs on the CPU only; uninstall it and {install('cuda')}"
    assert preflight(bundle, "cuda") == ("refuse", "library missing", text)
    gpu = {"onnxruntime": Installed(package="onnxruntime-gpu", version="1.32.0")}
    assert preflight(bundle, "cuda", libraries=gpu)[0] == "match"
    assert preflight(bundle, "cuda", libraries=gpu, gpus=())[1] == "no GPU"


# The library's own check


class Runtime:
    """One that says the same of every engine."""

    engine_header_size = 64
    says: tuple[str, int] = ("VALID", 0)
    headers: list[bytes] = []  # noqa: RUF012

    def __init__(self, logger: Any) -> None:
        pass

    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        self.headers.append(buffer)
        return getattr(real("tensorrt_rtx").EngineValidity, self.says[0]), self.says[1]


def asked(bundle: Path, validity: str, *diagnostics: str) -> tuple[str, str, str]:
    """The answer where the library gives this validity and these diagnostics, by their real names."""
    trt = real("tensorrt_rtx")
    bits = sum(int(getattr(trt.EngineInvalidityDiagnostics, name)) for name in diagnostics)
    runtime = type("Runtime", (Runtime,), {"says": (validity, bits), "headers": []})
    module = strict(surface(trt), SimpleNamespace(Runtime=runtime))
    found = check(bundle, "tensorrt-rtx", machine(), Library("tensorrt-rtx", module, RTX, trt.Logger()))
    assert {len(header) for header in runtime.headers} == {64}
    return answer(found)


def test_the_library_agrees(rtx: Path) -> None:
    """Then the match stands."""
    assert asked(rtx, "VALID")[:2] == ("match", "fits")


def test_the_library_expects_it_to_be_slow(rtx: Path) -> None:
    """It still runs."""
    text = f"TensorRT-RTX {RTX} runs it, and says that it will be slower than one of a later version"
    assert asked(rtx, "SUBOPTIMAL") == ("match", "library's own check", text)


@pytest.mark.parametrize(
    ("diagnostics", "verdict", "said", "mend"),
    [
        (("VERSION_MISMATCH", "UNSUPPORTED_CC"), "rebuild", "version mismatch, unsupported cc", None),
        (("MALFORMED_ENGINE",), "rebuild", "malformed engine", None),
        ((), "rebuild", "no reason given", None),
        (("OLD_CUDA_DRIVER",), "refuse", "old cuda driver", "update the driver"),
        (("OLD_CUDA_RUNTIME",), "refuse", "old cuda runtime", "update the CUDA runtime"),
        (("INSUFFICIENT_GPU_MEMORY",), "refuse", "insufficient gpu memory", "free memory of the GPU"),
        (
            ("OLD_CUDA_DRIVER", "CUDA_ERROR"),
            "refuse",
            "old cuda driver, cuda error",
            "restart the machine or reinstall the driver",
        ),
    ],
)
def test_the_library_objects(rtx: Path, diagnostics: tuple[str, ...], verdict: str, said: str, mend: str | None) -> None:
    """Its reasons are given, with what mends them."""
    got = asked(rtx, "INVALID", *diagnostics)
    remedy = mend or f"run `foveal build {rtx} --target tensorrt-rtx`"
    text = f"TensorRT-RTX {RTX} says that engines/tensorrt-rtx/1.pre.engine is invalid here ({said}); {remedy}"
    assert got == (verdict, "library's own check", f'stage "1.pre": {text}')


def test_the_real_library_is_asked(rtx: Path) -> None:
    """As far as it goes without a GPU: it sees that this is no engine."""
    found = ask_library(library_of("tensorrt-rtx"), rtx, "engines/tensorrt-rtx/4.engine")
    assert found is not None
    assert (found.answer, found.reason) == ("rebuild", "library's own check")
    assert "says that engines/tensorrt-rtx/4.engine is invalid here (malformed engine)" in found.sentence


def test_the_library_is_not_asked_where_a_rule_objects(rtx: Path) -> None:
    """Without a GPU its answer is worth nothing."""
    module = strict(surface(real("tensorrt_rtx")), SimpleNamespace())
    library = Library("tensorrt-rtx", module, RTX, None)
    assert check(rtx, "tensorrt-rtx", machine(gpus=()), library).reason == "no GPU"


def test_nothing_is_loaded(rtx: Path) -> None:
    """Neither an engine library, nor torch, nor onnx, on a machine without a GPU."""
    code = (
        "import sys; from foveal.runtime.preflight import check; from foveal.runtime.preflight.machine import Machine;"
        f"check({str(rtx)!r}, 'tensorrt-rtx', Machine(system='Linux-x86_64'));"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'tensorrt_rtx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_machine_is_json(rtx: Path) -> None:
    """What was found, and where, round-trips."""
    found = check(rtx, "tensorrt-rtx", machine())
    assert msgspec.json.decode(msgspec.json.encode(found), type=Preflight) == found
    assert msgspec.json.decode(msgspec.json.encode(machine()), type=Machine) == machine()
