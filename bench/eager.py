"""The same model decoded incrementally by PyTorch eager with its own caches: what foveal is compared with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..contract import period_of
from ..forecast.firings import coarse_steps, stages_fired
from .decode import DecodeSamples, Load
from .result import ModelResult, latency_of, samples_of

if TYPE_CHECKING:
    from ..models.hourglass.model import Hourglass


@dataclass
class EagerModel:
    """A PyTorch model in the rounds of a benchmark; torch is imported only when it runs.

    Prefill is the full forward's time for comparison, then the caches are filled token by token, untimed.
    """

    name: str
    model: object
    threads: int = 1
    samples: DecodeSamples = field(default_factory=DecodeSamples)

    def measure_round(self, work: Load, is_warm_up: bool, threads: int) -> None:
        """One round of the reference `step` on so many threads, as `decode.measure_round`."""
        import torch

        model = self._hourglass()
        self.threads = threads
        torch.set_num_threads(threads)
        rng = np.random.default_rng(work.seed)
        prompt = torch.from_numpy(rng.integers(0, model.config.vocab_size, (1, work.prompt_tokens)))
        with torch.inference_mode():
            began = time.perf_counter_ns()
            logits = model(prompt)[:, -1:]
            ttft = time.perf_counter_ns() - began
            state = model.init_state(1, work.prompt_tokens + work.new_tokens)
            for token in range(work.prompt_tokens):
                logits = model.step(prompt[:, token : token + 1], state)
            steps = []
            for _ in range(work.new_tokens):
                began = time.perf_counter_ns()
                logits = model.step(logits[:, 0].argmax(-1)[:, None], state)
                steps.append(time.perf_counter_ns() - began)
        if not is_warm_up:
            self.samples.ttft_ns.append(ttft)
            self.samples.itl_ns += steps
            positions = range(work.prompt_tokens, work.prompt_tokens + work.new_tokens)
            self.samples.tokens += positions
            specs = [stage.spec for stage in model.stages()]
            self.samples.fired += coarse_steps(specs, {}, positions)
            self.samples.stages += stages_fired(specs, {}, positions)
            self.samples.round_tokens_per_s.append(len(steps) / (sum(steps) * 1e-9))

    def result(self) -> ModelResult:
        """The figures of the rounds so far; what only an engine has is null or empty."""
        model, kept = self._hourglass(), self.samples
        levels = model.config.levels
        return ModelResult(
            name=self.name,
            runtime="PyTorch eager",
            hierarchy=str(levels),
            precision="fp32",
            layers=levels.depth,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            layer_equivalents=levels.layer_equivalents,
            threads=self.threads,
            latency=latency_of(kept, kept.tokens[0]),
            fires={},
            copied_bytes_per_step=None,
            host_us_per_step=None,
            stages=[],
            memory=None,
            roofline=None,
            samples=samples_of(kept, {}),
            period=period_of([stage.spec for stage in model.stages()]),
        )

    def _hourglass(self) -> Hourglass:
        from ..models.hourglass.model import Hourglass

        if not isinstance(self.model, Hourglass):
            raise TypeError(f"expected an Hourglass, got {type(self.model).__name__}")
        return self.model
