"""Run a model the way a user would, and keep every sample."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from ..contract import StageSpec
from ..errors import CapacityError, ConfigError
from ..forecast.firings import coarse_steps, stages_fired
from ..runtime.engines.base import Engine
from ..runtime.engines.native import NativeEngine
from ..runtime.engines.native_library import NativeLibrary
from ..runtime.engines.onnxruntime import OnnxRuntimeEngine
from ..runtime.expected import expected_schedule
from ..runtime.model import Model
from ..runtime.rows import Ids
from ..runtime.session import Session


@dataclass
class DecodeSamples:
    """Nanoseconds of one model's runs, in order; `tokens` are the positions that `itl_ns` belong to.

    `fired`: of each step, whether it ran a coarse stage; `stages`: the stages that it ran.
    """

    ttft_ns: list[int] = field(default_factory=list)
    itl_ns: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    fired: list[bool] = field(default_factory=list)
    stages: list[tuple[str, ...]] = field(default_factory=list)
    round_tokens_per_s: list[float] = field(default_factory=list)
    copied_bytes_per_step: float = 0.0


@dataclass(frozen=True)
class Load:
    """What is run: a prompt in one call, then greedy decoding, in so many rounds after one that is not counted.

    Attributes:
        text: ids `[T]` to read and to go on with, in the place of random ones and of the likeliest: what a model fires whose
            firings the data decides, it fires as in this text.

    Raises:
        ConfigError: less than one of anything.
    """

    prompt_tokens: int
    new_tokens: int
    rounds: int = 3
    seed: int = 0
    text: Ids | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "new_tokens", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    def require_room(self, model: Model) -> None:
        """Raise a CapacityError if it does not fit a model's context."""
        context = model.manifest.model.context
        if self.prompt_tokens + self.new_tokens > context:
            raise CapacityError(
                f"{model.bundle.path} has a context of {context} tokens, got a prompt of {self.prompt_tokens} and "
                f"{self.new_tokens} new tokens; lower one of them"
            )

    def reading(self, model: Model, text: str | None) -> Load:
        """The same with a text, in the model's ids; None: itself.

        Raises:
            ConfigError: the text is shorter than a sequence, or the model has no tokenizer.
        """
        if text is None:
            return self
        ids = np.array(model.prompt_ids(text), np.int64)
        if len(ids) < self.prompt_tokens + self.new_tokens:
            raise ConfigError(
                f"the text has {len(ids)} tokens, expected at least {self.prompt_tokens + self.new_tokens}: the prompt and the "
                "new ones; give a longer one, or lower one of them"
            )
        return replace(self, text=ids)

    def sequences(self, count: int, vocab_size: int, more: int = 0) -> Ids:
        """Prompts `[count, prompt]`; of a text, sequences `[count, prompt + new + more]` that begin all over it.

        Raises:
            ConfigError: the text is shorter than a sequence.
        """
        if self.text is None:
            return np.random.default_rng(self.seed).integers(0, vocab_size, (count, self.prompt_tokens))
        length = self.prompt_tokens + self.new_tokens + more
        if len(self.text) < length:
            raise ConfigError(f"the text has {len(self.text)} tokens, expected at least {length}: give a longer one")
        starts = np.linspace(0, len(self.text) - length, count).astype(np.int64)
        found: Ids = self.text[starts[:, None] + np.arange(length)]
        return found


def measure_round(session: Session, load: Load, samples: DecodeSamples | None) -> None:
    """One round: reset, prefill, decode greedily; appends to `samples` unless it is a warm-up (None)."""
    ids = load.sequences(session.batch, session.model.vocab_size)
    prompt, text = ids[:, : load.prompt_tokens], ids[:, load.prompt_tokens :]
    session.reset()
    began = time.perf_counter_ns()
    logits = session.advance(prompt, last_only=True)
    ttft = time.perf_counter_ns() - began
    following = logits[:, 0].argmax(-1)[:, None] if load.text is None else text
    measure_steps(session, following, load.new_tokens, samples)
    if samples is not None:
        samples.ttft_ns.append(ttft)


def measure_steps(session: Session, ids: Ids, new_tokens: int, samples: DecodeSamples | None) -> None:
    """Append `ids` `[B, 1]` and then greedily, or all of a text's `[B, new]`, step by step; appends to `samples` unless it is a
    warm-up (None)."""
    copied, is_text = session.copied_bytes, ids.shape[1] > 1
    steps, positions, taken = [], [], ids[:, :1]
    for step in range(1, new_tokens + 1):
        positions.append(session.position)
        began = time.perf_counter_ns()
        logits = session.advance(taken, last_only=True)
        taken = logits[:, 0].argmax(-1)[:, None]
        steps.append(time.perf_counter_ns() - began)
        if is_text:
            taken = ids[:, step : step + 1]
    if samples is None:
        return
    samples.itl_ns += steps
    samples.tokens += positions
    schedule = session.schedule
    samples.fired += coarse_steps(session.specs, schedule, positions)
    samples.stages += stages_fired(session.specs, schedule, positions)
    samples.round_tokens_per_s.append(session.batch * len(steps) / (sum(steps) * 1e-9))
    samples.copied_bytes_per_step = (session.copied_bytes - copied) / len(steps)


def measure_stages(session: Session, load: Load) -> dict[str, list[int]]:
    """Nanoseconds of every engine call of each stage while decoding (a round of its own: watching costs time).

    After it the session has the schedule of what was decoded.
    """
    samples: dict[str, list[int]] = {name: [] for name in session.fires}

    def record(spec: StageSpec, _firings: int, elapsed_ns: int) -> None:
        samples[spec.name].append(elapsed_ns)

    ids = load.sequences(session.batch, session.model.vocab_size)
    prompt, text = ids[:, : load.prompt_tokens], ids[:, load.prompt_tokens :]
    session.reset()
    logits = session.advance(prompt, last_only=True)
    session.observer = record
    for step in range(load.new_tokens):
        taken = logits[:, 0].argmax(-1)[:, None] if load.text is None else text[:, step : step + 1]
        logits = session.advance(taken, last_only=True)
    session.observer = None
    return samples


class _IdleSession:
    """An `InferenceSession` that binds but does not run."""

    def __init__(self, engine: OnnxRuntimeEngine) -> None:
        self.io_binding, self.get_inputs = engine.session.io_binding, engine.session.get_inputs

    def run_with_iobinding(self, _binding: object) -> None:
        """Do nothing: what is left is the host's side."""


class _IdleLibrary:
    """A native library that runs nothing."""

    def run(self, _handle: object, _call: object) -> int:
        """Do nothing: what is left is the host's side."""
        return 0


def idle_engines(model: Model) -> list[Engine]:
    """A model's engines, which bind but do not run; the model's own stay as they are."""
    return [_idle(engine) for engine in model.engines] if isinstance(model.engines, tuple) else []


def _idle(engine: Engine) -> Engine:
    if isinstance(engine, NativeEngine):
        native = object.__new__(NativeEngine)
        native.__dict__.update(engine.__dict__)
        native.graph, native.library, native.handle = _idle_graph(engine.graph), cast(NativeLibrary, _IdleLibrary()), None
        return native
    assert isinstance(engine, OnnxRuntimeEngine)
    return _idle_graph(engine)


def _idle_graph(engine: OnnxRuntimeEngine) -> OnnxRuntimeEngine:
    idle = object.__new__(OnnxRuntimeEngine)
    idle.__dict__.update(engine.__dict__)
    idle._session = _IdleSession(engine)
    return idle


def host_ns_per_step(model: Model, load: Load) -> float:
    """Nanoseconds of everything outside the engine calls in a decode step: the same steps with idle engines.

    Where the data decides, stages fire as often as is expected: idle engines give no data. The mean of the quietest of ten
    rounds, as they take milliseconds and another process easily takes one whole.
    """
    rounds = []
    with Session(idle_engines(model), model.manifest.model, 1, load.prompt_tokens + load.new_tokens) as session:
        if schedule := expected_schedule(session.specs, session.capacity):
            session.follow(schedule)
        for _ in range(10):
            session.reset()
            session.advance(np.zeros((1, load.prompt_tokens), np.int64), last_only=True)
            token = np.zeros((1, 1), np.int64)
            began = time.perf_counter_ns()
            for _ in range(load.new_tokens):
                session.advance(token, last_only=True)
            rounds.append((time.perf_counter_ns() - began) / load.new_tokens)
    return min(rounds)
