"""What every family must do beyond its own forward: engines of all kinds, precisions, a benchmark, with no code of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
import torch
from batches import BatchWalk, wander
from combinations import deep
from drafts import check_drafts
from exactness import EXACT, Walk
from own_positions import check_own_positions
from precisions import classic_engines
from slots import SLOTS, Slots, everything
from store import Store
from turing import TOLERANCES, check_turing

from foveal.bench.decode import Load
from foveal.bench.run import bench
from foveal.bundle import Bundle, open_bundle
from foveal.calibration.calibrate import calibrate_ids
from foveal.calibration.settings import CalibrationSettings
from foveal.contract import Limits, needs_clocks
from foveal.errors import ConfigError
from foveal.export import build, convert_model, verify
from foveal.export.graphs.dialect import DIALECTS
from foveal.export.graphs.gpu import DeviceFamily, lower
from foveal.export.tensorrt.options import EngineOptions
from foveal.models import Architecture
from foveal.precision import PRECISIONS
from foveal.runtime import load, resident_batch
from foveal.runtime.backends import open_engines
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.rows import Array, TokenLog
from foveal.runtime.sampling import SamplingParams
from foveal.runtime.session import Session

RTX = "tensorrt-rtx"
KINDS = [
    *(
        "cpu",
        "classic graphs",
        "own positions",
        "slots",
        "cuda",
        "int8",
        "w8",
        "fp16",
        "batch",
        "batch int8",
        "drafts",
        "drafts int8",
    ),
    pytest.param("w4", marks=deep),
    *(
        pytest.param(f"{RTX} {dialect} {precision}", marks=() if (dialect, precision) == ("modern", "int8") else deep)
        for dialect in DIALECTS
        for precision in PRECISIONS
    ),
    *(pytest.param(f"turing {precision}", marks=deep) for precision in TOLERANCES),
    pytest.param("bench", marks=deep),
]
"""Of engines, or of what is done with them. A TensorRT build takes seconds: one stands for ten on every change, of the default
dialect and of the precision that most may go wrong in; `classic graphs` are what the others of its dialect are built from. The
graphs for Turing are looked at in tests/export/tensorrt/test_turing.py, of one model."""
PREFILL = 16
EIGHT_BITS_OF_FLOAT = {value for name, value in onnx.TensorProto.DataType.items() if name.startswith(("FLOAT8", "FLOAT4"))}
NONPAD_KV_SEQLEN = 6
"""Index of that input of Attention."""
WALK = (
    ("advance", 24),
    ("advance", 1),
    ("advance", 1),
    ("rewind", 5),
    ("advance", 3),
    ("snapshot", 0),
    ("advance", 7),
    ("restore", 0),
)
CLOSE = 0.25
"""Of the spread of the logits, how far small random models may be off in integers: enough to notice what is broken."""


BATCH_TOLERANCES = {"fp32": 1e-4, "int8": 0.05}
"""Of logits of a batch against a session's: in integers the last bit of a sum may move an activation to the next step."""


def check_reliance(graph: bytes) -> None:
    """Nothing in a graph that TensorRT-RTX 1.7 reads and does not honour: it ignores the lengths that Attention may be given,
    and its portable build takes FP8, which some of the GPUs it is for refuse.
    """
    model = onnx.load_model_from_string(graph)
    types = {tensor.data_type for tensor in model.graph.initializer}
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        if node.op_type == "Attention":
            assert not any(node.input[NONPAD_KV_SEQLEN:]), node.name
        types |= {attribute.i for attribute in node.attribute if attribute.name in ("to", "output_dtype")}
    assert not types & EIGHT_BITS_OF_FLOAT


def _check_reliance(bundle: Bundle) -> None:
    stages = [entry.spec for entry in bundle.manifest.stages]
    for dialect in DIALECTS.values():
        family = DeviceFamily(bundle.manifest.model, tuple(stages), Limits(batch=1, capacity=32, prefill=PREFILL), dialect)
        for entry in bundle.manifest.stages:
            check_reliance(lower(bundle.file(entry.graph), entry.spec, family).model)


class FamilyEngines:
    """A small model of a family, converted once in a run, and a directory for what a test adds.

    Args:
        name: of the model, which no other has.
        make: the model, the same for the same seed of torch's.
    """

    def __init__(self, name: str, make: Callable[[], Architecture], store: Store, directory: Path) -> None:
        torch.manual_seed(0)
        self.name, self.model, self.store, self.directory = name, make(), store, directory
        made = store.once(f"families/{name}", lambda new: convert_model(self.model, new / "b"))
        self.full = open_bundle(made / "b")
        self.decides = any(entry.spec.clock is not None for entry in self.full.manifest.stages)
        self.together = 1 if self.decides else 2  # sequences of a session, which fire in step

    def check(self, kind: str) -> None:
        """Put the model through one of `KINDS`."""
        if kind == "cpu":
            verify(self.full, self.model).require_equal()
            _check_reliance(self.full)
            self._walk(load(self.full, threads=1).session(self.together))
        elif kind == "classic graphs":
            self._walk(Session(classic_engines(self.full), self.full.manifest.model, self.together))
        elif kind == "own positions":
            for dialect in DIALECTS:
                check_own_positions(self.full, dialect)
        elif kind == "slots":
            self._check_slots()
        elif kind == "cuda":
            resident = build(self._own("fp32"), target="cuda", options=self._options(max_batch=2))
            self._walk(load(resident, "cuda", provider="cpu").session(self.together))
        elif kind.startswith(RTX):
            _, dialect, precision = kind.split()
            assert RTX in build(self._own(precision), target=RTX, options=self._options(dialect=dialect)).manifest.engines
        elif kind.startswith("drafts"):
            self._check_drafts(kind.removeprefix("drafts").strip() or "fp32")
        elif kind.startswith("batch"):
            self._check_batch(kind.removeprefix("batch").strip() or "fp32")
        elif kind.startswith("turing"):
            self._check_turing(kind.split()[1])
        elif kind == "bench":
            (measured,) = bench([self.full.path], Load(prompt_tokens=5, new_tokens=12, rounds=1), threads=1).models
            assert measured.latency.decode_tokens_per_s > 0
        else:
            self._check_precision(kind)

    def _check_slots(self) -> None:
        """A batch of sequences that come and go, in which all stages run for all slots that they may run for."""
        if self.decides:
            pytest.skip("devices refuse batches of sequences that each fire by their own data")
        built = build(self._own("fp32"), target="cuda", options=self._options(max_batch=SLOTS))
        engines = open_engines(built, "cuda", provider="cpu")
        assert isinstance(engines, ResidentEngines)
        if needs_clocks(engines.specs):
            with pytest.raises(ConfigError, match="open a session for each sequence"):
                engines.batch_decoder(TokenLog.allocate(0, 64, SLOTS), SLOTS, 64)
            return
        sessions = [Session(engines, built.manifest.model, 1, engines.capacity) for _ in range(SLOTS)]
        random = np.random.default_rng(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resident_batch, "ranges_of", everything)
            slots = Slots(engines.batch_decoder, sessions, EXACT)
            for slot in range(SLOTS):
                slots.prefill(slot, int(random.integers(3, 30)))
            for slot in range(SLOTS):
                for what, tokens in (("step", 3), ("rewind", 2), ("fork", (slot + 1) % SLOTS), ("step", 5), ("prefill", 4)):
                    slots.take(what, 2**SLOTS - 1 if what == "step" else slot, tokens)

    def _check_turing(self, precision: str) -> None:
        ids = self._seen()[None, : min(self.full.manifest.model.context, 64) - 3]
        for dialect in DIALECTS:
            got = check_turing(self._in(precision), ids, precision, dialect)
            self._check_close(got, self._logits(ids), f"{precision} for Turing, {dialect}")

    def _check_batch(self, precision: str) -> None:
        """Sequences of a batch against sessions of their own, by the same engines."""
        model, choose = load(self._in(precision), threads=1), Random(0)
        capacity = min(model.manifest.model.context, 64)
        for policy in ("staggered", "aligned"):
            batch = model.batch(4, capacity, policy, prefill_seconds=0)
            walk = BatchWalk(batch, lambda: model.session(capacity=capacity), BATCH_TOLERANCES[precision])
            wander(walk, choose, 60, capacity, model.manifest.model.vocab_size)

    def _check_drafts(self, precision: str) -> None:
        """Sampled and greedy, to the end of a short context."""
        model = load(self._in(precision), threads=1)
        capacity = min(model.manifest.model.context, 48)
        prompt = self._seen()[:7].tolist()
        for seed, temperature in enumerate((0.0, 0.8, 2.0)):
            params = SamplingParams(temperature=temperature, seed=seed, max_new_tokens=100)
            check_drafts(model, prompt, params, capacity, seed)

    def _options(self, **choices: object) -> EngineOptions:
        capacity = min(self.full.manifest.model.context, 64)
        return EngineOptions(capacity=capacity, max_prefill=PREFILL, **choices)  # type: ignore[arg-type]

    def _own(self, precision: str) -> Bundle:
        """A bundle that engines may be added to."""
        return open_bundle(shutil.copytree(self._in(precision).path, self.directory / "b"))

    def _in(self, precision: str) -> Bundle:
        """Built once in a run."""
        if precision == "fp32":
            return self.full

        def make(directory: Path) -> None:
            ranges = calibrate_ids(load(self.full, threads=1), self._seen(), CalibrationSettings())
            build(self.full, directory / "b", precision, "cpu", calibration=ranges)

        return open_bundle(self.store.once(f"families/{self.name} in {precision}", make) / "b")

    def _seen(self) -> Array:
        """Random ids, which calibrate it."""
        seen: Array = np.random.default_rng(0).integers(0, self.full.manifest.model.vocab_size, 3000)
        return seen

    def _logits(self, ids: Array) -> Array:
        with torch.no_grad():
            found: Array = self.model(torch.from_numpy(ids)).numpy()
        return found

    def _walk(self, session: Session) -> None:
        walk = Walk(session, self._logits)
        for step, tokens in WALK:
            walk.take(step, tokens)

    def _check_precision(self, precision: str) -> None:
        ids = self._seen()[None, : min(self.full.manifest.model.context, 64) - 3]
        session = load(self._in(precision), threads=1).session()
        if self.decides:  # a boundary that moved would change all that comes after it
            exact = load(self.full, threads=1).session()
            exact.advance(ids)
            session.follow(exact.schedule)
        self._check_close(session.advance(ids), self._logits(ids), precision)
        _check_reliance(self._in(precision))

    def _check_close(self, got: Array, expected: Array, what: str) -> None:
        error = np.sqrt(np.square(got - expected).mean()) / expected.std()
        assert 0 < error < CLOSE, f"{what}: {error}"
