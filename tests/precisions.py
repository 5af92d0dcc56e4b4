"""Small models in every precision, and two ways to run what was written: by its meaning, and by its definition in PyTorch."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from specimens import random_model
from store import Store
from torch import Tensor, nn

from foveal.bundle import Bundle, open_bundle
from foveal.calibration.calibrate import Calibration, calibrate
from foveal.contract import StageSpec, read_tensors
from foveal.export import build, convert_model
from foveal.export.comparison.torch_engine import TorchEngine
from foveal.export.graphs.change_dialect import change_dialect
from foveal.export.graphs.dialect import CLASSIC
from foveal.export.graphs.saving import save_graph
from foveal.export.precision import quantise
from foveal.models.hourglass.model import Hourglass
from foveal.precision import Plan, ProductPrecision
from foveal.runtime import backends
from foveal.runtime.engines.base import Engine
from foveal.runtime.engines.onnxruntime_library import has_int8_caches
from foveal.runtime.rows import Array, Block
from foveal.runtime.session import Session

LOSSY = ("fp16", "int8", "w8", "w4")
CACHE = "auto" if has_int8_caches() else "fp32"
WORDS = ("the", "sea", "and", "a", "ship", "in", "storm", "said", "captain", "of", "whales", "at", "night", "harbour", "never")
needs_opset_24 = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24),
    reason=f"onnxruntime {onnxruntime.__version__}, the newest for this Python, does not run the portable graphs",
)
needs_int8_caches = pytest.mark.skipif(
    not has_int8_caches(), reason=f"onnxruntime {onnxruntime.__version__}, the newest for this Python, has no int8 caches"
)


def write_text(path: Path, words: int = 900, seed: int = 0) -> Path:
    """A text of some 5,000 bytes, all of them ASCII."""
    rng = np.random.default_rng(seed)
    ends = np.where(rng.random(words) < 0.1, ".\n", " ")
    path.write_text("".join(word + end for word, end in zip(rng.choice(WORDS, words), ends, strict=True)))
    return path


def bytes_model(hierarchy: str, **choices: Any) -> Hourglass:
    """A random model of bytes whose widths all have blocks."""
    sizes = {"vocab_size": 128, "dim": 32, "heads": 2, "head_dim": 16, "ff_dim": 64}
    return random_model(hierarchy, **{**sizes, **choices})


@dataclass(frozen=True)
class Precise:
    """A model, its fp32 bundle, what a text showed of it, and the bundles built from that so far."""

    model: Hourglass
    full: Bundle
    calibration: Calibration
    text: Path
    _built: dict[bytes, Bundle] = field(default_factory=dict)

    def build(self, plan: Plan, calibrated: bool = True) -> Bundle:
        """The bundle of a plan; tests must not change it."""
        key = msgspec.json.encode((plan, calibrated))
        if key not in self._built:
            calibration = self.calibration if calibrated else ()
            made = Store(self.full.path.parent).once(
                hashlib.sha256(key).hexdigest()[:16],
                lambda directory: build(self.full, directory / "b", plan, calibration=calibration),
            )
            self._built[key] = open_bundle(made / "b")
        return self._built[key]

    def ids(self, batch: int, length: int, seed: int = 0) -> Array:
        """Pieces of the text `[batch, length]`: what the calibration has seen, if in other places."""
        text = np.frombuffer(self.text.read_bytes(), np.uint8).astype(np.int64)
        starts = np.random.default_rng(seed).integers(0, len(text) - length, batch)
        return np.stack([text[start : start + length] for start in starts])


# Between them: products in the layers, in both kinds of resampling and in a head with bias; rotary and learned positions; a
# tied table in the stage of the head; empty stages; heads that the CPU kernel must pad, and whose 20 rows no block divides.
_ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "vanilla": ("2@1", {}),
    "resampled": (
        "1@1 1@2 1@1",
        {
            "shortening": "linear+attention",
            "upsampling": "linear+attention",
            "positions": "rotary",
            "head_dim": 10,
            "tie_embeddings": False,
            "head_bias": True,
        },
    ),
    "nested": ("1@1 0@2 1@6 1@2 0@1", {"upsampling": "linear"}),
}
HIERARCHIES = tuple(_ZOO)


class PrecisionZoo:
    """Converts and calibrates each model once in a run, when it is first asked for."""

    def __init__(self, store: Store) -> None:
        self._store, self._found = store, {}  # type: Store, dict[str, Precise]

    def __getitem__(self, name: str) -> Precise:
        if name not in self._found:
            hierarchy, choices = _ZOO[name]
            self._found[name] = stored(self._store, f"precise/{name}", bytes_model(hierarchy, **choices))
        return self._found[name]


def stored(store: Store, name: str, model: Hourglass) -> Precise:
    """A model of bytes, converted and calibrated once in a run."""

    def make(directory: Path) -> None:
        full = convert_model(model, directory / "full", tokenizer="bytes")
        calibrate(full, [write_text(directory / "text.txt")], threads=1)

    directory = store.once(name, make)
    full, text = open_bundle(directory / "full"), directory / "text.txt"
    return Precise(model, full, calibrate(full, [text], threads=1), text)  # which is found among the bundle's reports


def logits(bundle: Bundle, engines: Sequence[Engine], ids: Array, chunks: Sequence[int] = ()) -> Array:
    """Logits of all ids `[B, L]`, in one call or chunk by chunk."""
    session, found, start = Session(engines, bundle.manifest.model, len(ids)), [], 0
    for size in chunks or [ids.shape[1]]:
        found.append(session.advance(ids[:, start : start + size]))
        start += size
    return np.concatenate(found, 1)


def cpu_engines(bundle: Bundle) -> Sequence[Engine]:
    """What the bundle runs on; loaded once."""
    return _loaded(bundle.path)


@functools.cache
def _loaded(path: Path) -> Sequence[Engine]:
    return backends.cpu_engines(open_bundle(path))


def portable_engines(bundle: Bundle) -> Sequence[Engine]:
    """What the bundle's portable graphs mean."""
    return [PortableEngine(entry.spec, bundle.file(entry.graph)) for entry in bundle.manifest.stages]


def classic_graphs(bundle: Bundle) -> dict[str, Path]:
    """The bundle's portable graphs restated in the dialect classic, by stage; once, beside the bundle, which tests must not
    change."""

    def make(directory: Path) -> None:
        for entry in bundle.manifest.stages:
            model = ir.load(bundle.file(entry.graph))
            change_dialect(model, CLASSIC)
            save_graph(model, directory / Path(entry.graph).name)

    directory = Store(bundle.path.parent).once(f"{bundle.path.name}_classic", make)
    return {entry.spec.name: directory / Path(entry.graph).name for entry in bundle.manifest.stages}


def classic_engines(bundle: Bundle) -> Sequence[Engine]:
    """What those mean."""
    graphs = classic_graphs(bundle)
    return [PortableEngine(entry.spec, graphs[entry.spec.name]) for entry in bundle.manifest.stages]


def defined_engines(precise: Precise, bundle: Bundle) -> Sequence[Engine]:
    """PyTorch stages whose products and tables are rounded as the bundle's sidecars and plan say that they are."""
    engines, plan = [], bundle.manifest.plan
    stages = copy.deepcopy(precise.model).stages()
    for stage in stages:
        for product in bundle.sidecar("cpu", stage.spec.name).products:
            place = module_path(product.product.removeprefix(f"{stage.spec.name}/"))
            parent, _, name = place.rpartition(".")
            linear = stage.module.get_submodule(place)
            setattr(stage.module.get_submodule(parent), name, Rounded(linear, product, precise.calibration))
        engines.append(TorchEngine(stage))
    for stage in stages if plan.embedding else ():  # last: the head's product may be tied to the table
        for table in stage.module.modules():
            if isinstance(table, nn.Embedding):
                table.weight = nn.Parameter(rounded_table(table.weight, plan.of_stage(stage.spec.name)))
    return engines


class PortableEngine:
    """A portable graph on ONNX Runtime, without the optimisations that would replace products of dequantised weights by kernels
    that round the activations too."""

    def __init__(self, spec: StageSpec, graph: Path) -> None:
        self.spec, self.session = spec, exact_session(graph)

    def bind(self, batch: int, firings: int) -> PortableStage:
        """Zeroed caches as the graph declares them."""
        shapes = [(batch, cache.heads, cache.length(firings), cache.width) for cache in self.spec.caches]
        return PortableStage(self, [np.zeros(shape, self.spec.cache_dtype) for shape in shapes])


class PortableStage:
    """A `PortableEngine` with its caches, which are copied at every call."""

    copied_bytes = 0

    def __init__(self, engine: PortableEngine, caches: Sequence[Array]) -> None:
        self.engine, self.caches = engine, caches
        self.lent: Sequence[Array] = ()

    def borrow(self, caches: Sequence[Array]) -> None:
        """As `BoundStage.borrow`."""
        self.lent = caches

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        spec = self.engine.spec
        batch = output.array.shape[0 if logit_rows is not None else 1]
        given = {tensor.name: block.array for tensor, block in zip(read_tensors(spec), inputs, strict=True)}
        given |= {"position": np.full(batch, first)} if spec.uses_position else {}
        given |= {"logit_rows": logit_rows.array} if logit_rows is not None else {}
        given |= {borrowed.name: lent for borrowed, lent in zip(spec.borrows, self.lent, strict=True)}
        given |= {f"past_key_values.{cache.name}": past for cache, past in zip(spec.caches, self.caches, strict=True)}
        output.array[...], *present = self.engine.session.run(None, given)
        for cache, new in zip(self.caches, present, strict=True):
            cache[...] = new


def exact_session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """A session that runs a graph node by node."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


_RESAMPLING = {
    "Shorten/flat_pooled": "entry.pool",
    "Shorten/query_flat": "entry.attention.query",
    "Shorten/key_value_flat": "entry.attention.key_value",
    "Shorten/found_out": "entry.attention.out",
    "Shorten/ff_up": "entry.feed_forward.up",
    "Shorten/ff_down": "entry.feed_forward.down",
    "Lengthen/wide": "exit.spread",
    "Lengthen/value": "exit.value",
    "Lengthen/found": "exit.out",
}
_AFTER_A_NORM = ("/qkv", "/up", "/ff_up", "/query_flat", "/logits")


def module_path(product: str) -> str:
    """Where a product's `nn.Linear` is in the module of its stage."""
    return _RESAMPLING.get(product, product.replace("/", "."))


class Rounded(nn.Module):
    """A product by the definition of its precision, in fp32 arithmetic."""

    def __init__(self, linear: nn.Module, product: ProductPrecision, calibration: Calibration) -> None:
        super().__init__()
        assert isinstance(linear, nn.Linear)
        self.precision, self.bias = product.obtained, linear.bias
        weight, self.divisor, self.step = linear.weight.detach().numpy().T, torch.ones(product.rows), 0.0
        ranges = calibration.products[product.product]
        if self.precision == "int8":
            largest, threshold = float(ranges.absmax.max()), calibration.threshold(product.product)
            scales = None
            if product.product.endswith(_AFTER_A_NORM):
                scales = quantise.migration(weight, ranges.absmax, ranges.mean_square, threshold / largest)
            if scales is not None:
                weight, self.divisor = weight * scales[:, None], torch.from_numpy(scales)
                threshold *= float((ranges.absmax / scales).max()) / largest
            values, steps = quantise.by_column(weight)
            weight, self.step = values * steps, float(np.float32(threshold / 127))
        elif self.precision == "w8":
            values, steps = quantise.by_column(weight)
            weight = values * steps
        elif self.precision == "w4":
            block = quantise.block_for(product.rows)
            assert block is not None
            values, steps = quantise.by_block(weight, block, ranges.mean_square)
            weight = values * np.repeat(steps, block, axis=0)
        self.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(weight.T, np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., K]` -> `[..., N]`."""
        if self.precision == "fp16":
            product = half(F.linear(half(x), half(self.weight)))
            return product if self.bias is None else half(product + half(self.bias))
        if self.precision == "int8":
            x = (x / self.divisor / self.step).round().clamp(-128, 127) * self.step
        return F.linear(x, self.weight, self.bias)


def rounded_table(table: Tensor, precision: str) -> Tensor:
    """Rows `[V, D]` in fp16, or in 8 bits with a scale for each."""
    if precision == "fp32":
        return table.detach()
    steps = table.detach().abs().amax(1, keepdim=True) / 127
    return half(table.detach()) if precision == "fp16" else (table.detach() / steps).round() * steps


def half(x: Tensor) -> Tensor:
    """Round to fp16."""
    return x.half().float()


def distance(got: Array, expected: Array) -> float:
    """Largest difference, relative to the largest expected magnitude."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def rms_distance(got: Array, expected: Array) -> float:
    """Root of the mean squared difference, relative to the root of the mean square expected."""
    return float(np.sqrt(np.square(got - expected).mean() / np.square(expected).mean()))
