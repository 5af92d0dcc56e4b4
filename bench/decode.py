"""Run a model the way a user would, and keep every sample."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..contract import StageSpec
from ..errors import CapacityError, ConfigError
from ..runtime.engines.base import Engine
from ..runtime.engines.onnxruntime import OnnxRuntimeEngine
from ..runtime.model import Model
from ..runtime.session import Session


@dataclass
class DecodeSamples:
    """Nanoseconds of one model's runs, in order; `tokens` are the positions that `itl_ns` belong to."""

    ttft_ns: list[int] = field(default_factory=list)
    itl_ns: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    round_tokens_per_s: list[float] = field(default_factory=list)
    copied_bytes_per_step: float = 0.0


@dataclass(frozen=True)
class Load:
    """What is run: a prompt in one call, then greedy decoding, in so many rounds after one that is not counted.

    Raises:
        ConfigError: less than one of anything.
    """

    prompt_tokens: int
    new_tokens: int
    rounds: int = 3
    seed: int = 0

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


def measure_round(session: Session, load: Load, samples: DecodeSamples | None) -> None:
    """One round: reset, prefill, decode greedily; appends to `samples` unless it is a warm-up (None)."""
    rng = np.random.default_rng(load.seed)
    prompt = rng.integers(0, session.model.vocab_size, (session.batch, load.prompt_tokens))
    session.reset()
    began = time.perf_counter_ns()
    logits = session.advance(prompt, last_only=True)
    ttft = time.perf_counter_ns() - began
    measure_steps(session, logits[:, 0].argmax(-1)[:, None], load.new_tokens, samples)
    if samples is not None:
        samples.ttft_ns.append(ttft)


def measure_steps(session: Session, ids: npt.NDArray[np.int64], new_tokens: int, samples: DecodeSamples | None) -> None:
    """Append `ids` `[B, 1]` and then greedily, step by step; appends to `samples` unless it is a warm-up (None)."""
    copied = session.copied_bytes
    steps, positions = [], []
    for _ in range(new_tokens):
        positions.append(session.position)
        began = time.perf_counter_ns()
        logits = session.advance(ids, last_only=True)
        ids = logits[:, 0].argmax(-1)[:, None]
        steps.append(time.perf_counter_ns() - began)
    if samples is None:
        return
    samples.itl_ns += steps
    samples.tokens += positions
    samples.round_tokens_per_s.append(session.batch * len(steps) / (sum(steps) * 1e-9))
    samples.copied_bytes_per_step = (session.copied_bytes - copied) / len(steps)


def measure_stages(session: Session, load: Load) -> dict[str, list[int]]:
    """Nanoseconds of every engine call of each stage while decoding (a round of its own: watching costs time)."""
    samples: dict[str, list[int]] = {name: [] for name in session.fires}

    def record(spec: StageSpec, _firings: int, elapsed_ns: int) -> None:
        samples[spec.name].append(elapsed_ns)

    rng = np.random.default_rng(load.seed)
    session.reset()
    logits = session.advance(rng.integers(0, session.model.vocab_size, (session.batch, load.prompt_tokens)), last_only=True)
    session.observer = record
    for _ in range(load.new_tokens):
        logits = session.advance(logits[:, 0].argmax(-1)[:, None], last_only=True)
    session.observer = None
    return samples


class _IdleSession:
    """An `InferenceSession` that binds but does not run."""

    def __init__(self, engine: OnnxRuntimeEngine) -> None:
        self.io_binding = engine.session.io_binding

    def run_with_iobinding(self, _binding: object) -> None:
        """Do nothing: what is left is the host's side."""


def idle_engines(model: Model) -> list[Engine]:
    """A model's engines, which bind but do not run; the model's own stay as they are."""
    engines: list[Engine] = []
    for engine in model.host_engines:
        idle = object.__new__(OnnxRuntimeEngine)
        idle.__dict__.update(engine.__dict__)
        idle.session = _IdleSession(engine)
        engines.append(idle)
    return engines


def host_ns_per_step(model: Model, load: Load) -> float:
    """Nanoseconds of everything outside the engine calls in a decode step: the same steps with idle engines.

    The mean of the quietest of ten rounds, as they take milliseconds and another process easily takes one whole.
    """
    rounds = []
    with Session(idle_engines(model), model.manifest.model, 1, load.prompt_tokens + load.new_tokens) as session:
        for _ in range(10):
            session.reset()
            session.advance(np.zeros((1, load.prompt_tokens), np.int64), last_only=True)
            token = np.zeros((1, 1), np.int64)
            began = time.perf_counter_ns()
            for _ in range(load.new_tokens):
                session.advance(token, last_only=True)
            rounds.append((time.perf_counter_ns() - began) / load.new_tokens)
    return min(rounds)
