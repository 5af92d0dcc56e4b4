"""Bundles with the engines to be checked, made once for each subject, model and precision."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from exactness import EXACT
from gpu_subjects import Subject
from precisions import HIERARCHIES, LOSSY, Precise, PrecisionZoo, classic_engines, cpu_engines, logits
from specimens import GOLDEN, GOLDENS, ZOO, Goldens, Zoo, full_forward, random_ids

from foveal.bench.random_models import RandomModels
from foveal.bundle import Bundle
from foveal.calibration.calibrate import calibrate
from foveal.calibration.settings import CalibrationSettings
from foveal.export import build, convert
from foveal.export.tensorrt.options import PREFILL, EngineOptions
from foveal.models import SHIPPED, SHIPPED_TEXT
from foveal.models.hourglass.model import Hourglass
from foveal.models.readers.loading import load_model
from foveal.precision import Plan
from foveal.progress import silent
from foveal.runtime.model import load
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.rows import Array
from foveal.runtime.session import Session
from foveal.runtime.tokenizer import load_tokenizer

PRECISIONS = ("fp32", *LOSSY)
SMALL = tuple(f"small {name}" for name in HIERARCHIES)
MODELS = {
    precision: (*SHIPPED, *((*(f"zoo {name}" for name in ZOO), *GOLDENS) if precision == "fp32" else SMALL))
    for precision in PRECISIONS
}
"""Of each precision: the zoo and the golden checkpoints have widths that no blocks of weights divide."""

TOLERANCES = {"fp32": EXACT, "fp16": 1e-2, "int8": 5e-2, "w8": 1e-2, "w4": 1e-2}
"""Of the largest logit. fp32 is held against PyTorch; the others against the same graphs, run node by node on the CPU, from
which engines part where a value lies on the border of two steps (fp16, int8), or is rounded to fp16 on the way (w8, w4)."""

DEEP = ("2@1 8@4 2@1", "12@1")
PROMPT = "It was a dark and stormy night, and"
_CALIBRATION_TOKENS = 8192


@dataclass(frozen=True)
class Case:
    """What is built and run."""

    subject: Subject
    model: str
    precision: str

    def __str__(self) -> str:
        return f"{self.subject}-{self.model}-{self.precision}"


@dataclass(frozen=True)
class Contest:
    """Two models to be measured side by side, with half of `context` as prompt and half to write."""

    subject: Subject
    model: str
    precision: str
    context: int

    def __str__(self) -> str:
        return f"{self.subject}-{self.model}-{self.precision}-{self.context}"


def contests_of(subject: Subject) -> list[Contest]:
    """The trained models, two of random weights that are as deep as those people run, and the zoo's, which take no time."""
    trained = [Contest(subject, "shipped", precision, context) for precision in PRECISIONS for context in (128, 512)]
    deep = [Contest(subject, "12 layers", precision, context) for precision in ("fp32", "fp16") for context in (1024, 4096)]
    return [*trained, *deep, Contest(subject, "zoo", "fp32", 64)]


@dataclass
class Made:
    """A bundle with the engines of a case, and what they should compute."""

    case: Case
    bundle: Bundle
    model: Hourglass
    seconds: float

    @property
    def tolerance(self) -> float:
        """Of the case's precision."""
        return TOLERANCES[self.case.precision]

    @cached_property
    def engines(self) -> ResidentEngines:
        """Loaded."""
        engines = load(self.bundle, self.case.subject.target, provider=self.case.subject.provider).engines
        assert isinstance(engines, ResidentEngines)
        return engines

    def engines_but(self, **changes: Any) -> ResidentEngines:
        """The same, with other arguments of `ResidentEngines`."""
        of = self.engines
        return ResidentEngines(of.engines, of.device, **{"sampler": of.sampler, "overlap": of.overlap, **changes})

    def session(self, batch: int = 1, engines: ResidentEngines | None = None) -> Session:
        """A session on them."""
        return Session(engines or self.engines, self.bundle.manifest.model, batch)

    def host_session(self) -> Session:
        """A session on the CPU: of fp32 on its engines, of others on the graphs as they are."""
        engines = cpu_engines if self.case.precision == "fp32" else classic_engines
        return Session(engines(self.bundle), self.bundle.manifest.model)

    def expected(self, ids: Array) -> Array:
        """As `Reference`."""
        if self.case.precision == "fp32":
            return full_forward(self.model, ids)
        return logits(self.bundle, classic_engines(self.bundle), ids)

    def prompt(self) -> Array:
        """Some ids `[1, L]`, of text where there is a tokenizer for it."""
        manifest = self.bundle.manifest
        tokenizer = load_tokenizer(manifest.tokenizer, self.bundle.path) if self.case.model in SHIPPED else None
        return random_ids(1, 20, manifest.model.vocab_size) if tokenizer is None else np.array([tokenizer.encode(PROMPT)])


class Workshop:
    """Converts and calibrates each model once, and builds engines in copies of its bundles."""

    def __init__(self, directory: Path, zoo: Zoo, goldens: Goldens, precise: PrecisionZoo) -> None:
        self._directory, self._zoo, self._goldens, self._precise = directory, zoo, goldens, precise
        self._shipped: dict[str, Precise] = {}

    def make(self, case: Case, options: EngineOptions | None = None) -> Made:
        """Build a case's engines.

        Raises:
            FovealError: as `build`.
        """
        model, source = self._source(case.model, case.precision)
        began = time.perf_counter()
        built = self._build(source.path, case.subject, str(case), options)
        return Made(case, built, model, time.perf_counter() - began)

    def make_pair(self, contest: Contest) -> list[Bundle]:
        """Build the engines of a hierarchical model and of a vanilla one.

        Raises:
            FovealError: as `build`.
        """
        half = contest.context // 2
        options = EngineOptions(capacity=contest.context, max_prefill=min(half, PREFILL))
        return [
            self._build(source, contest.subject, f"{contest}-{number}", options)
            for number, source in enumerate(self._pair(contest))
        ]

    def _pair(self, contest: Contest) -> list[Path]:
        if contest.model == "12 layers":
            sizes = RandomModels(512, 8, 2048, 256, contest.context)
            directory, text = self._directory / f"12 layers {contest.context}", SHIPPED_TEXT["calibration"]
            return sizes.convert(DEEP, directory, silent, [contest.precision], [text])
        names = ("hourglass", "vanilla") if contest.model == "shipped" else ("zoo nested", "zoo vanilla")
        return [self._source(name, contest.precision)[1].path for name in names]

    def _build(self, source: Path, subject: Subject, name: str, options: EngineOptions | None) -> Bundle:
        bundle = Path(shutil.copytree(source, self._directory / name.replace(" ", "_").replace(":", "_"), dirs_exist_ok=True))
        return build(bundle, target=subject.target, options=options)

    def _source(self, name: str, precision: str) -> tuple[Hourglass, Bundle]:
        if name.startswith("zoo "):
            specimen = self._zoo[name.removeprefix("zoo ")]
            return specimen.model, specimen.bundle
        if name in GOLDENS:
            return load_model(GOLDEN / name).model, self._goldens[name]
        precise = self._trained(name) if name in SHIPPED else self._precise[name.removeprefix("small ")]
        plan = Plan(default=precision, cache="fp32")
        return precise.model, precise.full if precision == "fp32" else precise.build(plan)

    def _trained(self, name: str) -> Precise:
        if name not in self._shipped:
            text = SHIPPED_TEXT["calibration"]
            full = convert(SHIPPED[name], self._directory / "shipped" / name)
            ranges = calibrate(full, [text], CalibrationSettings(max_tokens=_CALIBRATION_TOKENS), threads=1)
            self._shipped[name] = Precise(load_model(SHIPPED[name]).model, full, ranges, text)
        return self._shipped[name]
