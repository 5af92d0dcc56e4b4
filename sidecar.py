"""The sidecar of an engine: a JSON file beside it that says who made it, from what, for what."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from .contract import Limits
from .errors import BundleError
from .json_files import decode
from .precision import CacheScale, ProductPrecision

TensorRTLibrary = Literal["tensorrt", "tensorrt-rtx"]


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a TensorRT engine was built by, on and for; enough to tell, without deserialising it, where it runs.

    Attributes:
        library: whose engine it is; `tensorrt` and `tensorrt-rtx` don't read each other's.
        version: of that library, as `"1.7.1.116"`.
        system: operating system and machine, as `"Linux-x86_64"`.
        compute_capabilities: of the GPUs it runs on, as `"8.9"`; empty: every RTX GPU since Ampere.
        device, driver: the GPU it was built on and its driver; None where there was none.
        weights_stripped: the engine holds no weights, and foveal's runtime can't put them back: it is for other runtimes.
        cache_key: SHA-256 of all that the engine depends on: graph, options, library, device.
        tactics_sha256: of its kernels and the layers they run; two builds that differ in it may differ in speed.
        kernels: how many a decode step runs, by the narrowest type of activations or weights that they read.
        seconds: that building took.
        peak_memory_bytes: of the process while it was built.
    """

    library: TensorRTLibrary
    version: str
    system: str
    compute_capabilities: tuple[str, ...]
    device: str | None = None
    driver: str | None = None
    weights_stripped: bool = False
    cache_key: str
    tactics_sha256: str
    kernels: dict[str, int]
    seconds: float
    peak_memory_bytes: int


class ChunkEngine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The second engine of a stage on the CPU, which runs what has many rows, over the caches of the first.

    Attributes:
        least_rows: it runs so many firings and more.
        engine_sha256: of its file, of the engine's name in the folder `chunks` beside it.
        engine_data_sha256: of the weights beside that.
    """

    least_rows: int
    engine_sha256: str
    engine_data_sha256: str = ""


class EngineSidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What lies beside an engine.

    Attributes:
        graph_sha256: of the portable graph it was made from; empty for the sampler, which is made from none.
        graph_data_sha256: of that graph's weights; empty if it has none.
        engine_sha256: of the engine's file.
        engine_data_sha256: of the weights beside an engine that is a graph; empty if it has none.
        batch_one_chunks: the engine takes several rows at once only for a single sequence.
        products: precision asked for and obtained, and kernel, of every matrix product; `precision_asked` and
            `precision_obtained` sum them up.
        cache_widths: of the rows of each of the stage's caches, which an engine may pad.
        cache_scales: of int8 caches, by layer.
        dialect: the ONNX vocabulary it was compiled from.
        limits: of a resident engine whose shapes are bounded; None: it takes any.
        own_positions: each sequence of a batch may stand at a position of its own; engines of earlier versions want all at one.
        chunks: the engine for many rows, if there is one of its own.
        build: of an engine that TensorRT built.
        native: of a `cpu` engine, why its stage has no program of native steps beside it; empty: it has one, or nobody tried.
    """

    target: str
    stage: str
    builder: str
    precision_asked: str
    precision_obtained: str
    graph_sha256: str
    graph_data_sha256: str = ""
    engine_sha256: str = ""
    engine_data_sha256: str = ""
    cache_widths: tuple[int, ...] = ()
    cache_dtype: Literal["float32", "float16", "int8"] = "float32"
    cache_scales: tuple[CacheScale, ...] = ()
    batch_one_chunks: bool = False
    products: tuple[ProductPrecision, ...] = ()
    dialect: str = "modern"
    limits: Limits | None = None
    own_positions: bool = False
    chunks: ChunkEngine | None = None
    build: BuildRecord | None = None
    native: str = ""


def read_sidecar(engine: Path) -> EngineSidecar:
    """The sidecar of an engine file; raises BundleError if it is not one."""
    path = engine.with_suffix(".json")
    try:
        return decode(path.read_bytes(), EngineSidecar)
    except (OSError, msgspec.MsgspecError) as error:
        raise BundleError(f"{path} is not an engine sidecar: {error}; build the engines again") from error
