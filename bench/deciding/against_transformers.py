"""A BLT on foveal against transformers' own, and against a model of bytes as large: the figures of docs/performance.md.

python -m foveal.bench.deciding.against_transformers --text TEXT.txt
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...bundle import Bundle
from ...calibration.settings import CalibrationSettings
from ...export import build, convert, convert_model
from ...files import scratch_directory
from ...forecast.firings import firings_of
from ...runtime.model import Model, load
from ...runtime.rows import Array, Ids
from ...runtime.session import Session
from ..decode import DecodeSamples, Load, measure_round
from ..environment import read_environment
from ..random_models import CALIBRATION_TOKENS, RandomModels
from ..script import run_script
from ..text import read_text
from .against_result import (
    AGAINST_SCHEMA_VERSION,
    BLT,
    ORIGINAL,
    VANILLA,
    AgainstResult,
    Contender,
    contender,
    ratios_of,
    show,
)
from .original import VOCABULARY, BltSizes, parameters_of, random_original, read_bytes
from .output import add_options, command_of, give

if TYPE_CHECKING:
    from transformers import BltForCausalLM

PRECISIONS = ("fp32", "int8")
_HEAD_DIM = 64


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="UTF-8: patches end as it has them, and it is decoded")
    parser.add_argument("--context", type=int, default=512, help="bytes before the first that is timed")
    parser.add_argument("--new-bytes", type=int, default=256, help="that foveal's models decode in a round")
    parser.add_argument("--original-bytes", type=int, default=6, help="that transformers' model does, a full forward for each")
    parser.add_argument("--bytes-per-patch", type=float, default=4.5)
    add_options(parser, rounds=7)
    given = parser.parse_args()
    result = measure(
        read_text(given.text),
        Load(given.context, given.new_bytes, given.rounds),
        original_bytes=given.original_bytes,
        threads=given.threads,
        bytes_per_patch=given.bytes_per_patch,
        command=command_of("against_transformers"),
    )
    give(result, given, show, 140)


@dataclass
class _Runner:
    """A bundle in the rounds."""

    name: str
    precision: str
    model: Model
    session: Session
    samples: DecodeSamples = field(default_factory=DecodeSamples)

    def contender(self, work: Load) -> Contender:
        """After the rounds."""
        rates = self.samples.round_tokens_per_s
        parameters = self.model.manifest.model.parameters
        return contender(self.name, self.precision, parameters, work.new_tokens, rates, fired_behind(self.session, work))


def fired_behind(session: Session, work: Load) -> dict[str, int]:
    """How often each stage was fired by the tokens behind the prompt, of a session that has just decoded them."""
    schedule = session.schedule
    each = {spec.name: firings_of(spec, schedule).among(work.prompt_tokens, work.new_tokens) for spec in session.specs}
    return {name: sum(1 for _ in fired) for name, fired in each.items()}


def measure(
    text: str,
    work: Load,
    *,
    original_bytes: int,
    threads: int,
    bytes_per_patch: float = 4.5,
    sizes: BltSizes | None = None,
    command: str = "",
) -> AgainstResult:
    """All systems decode the same text behind the same context, in rounds that take turns; one more warms up.

    Args:
        text: long enough for a round; the threshold is set on the bytes that are timed.
        work: bytes of context, of each round, and rounds.
        original_bytes: of transformers' model in a round.
        threads: of all.
        bytes_per_patch: on average, in those.
        sizes: of the BLT.
        command: what the user typed, for the record.

    Raises:
        BackendUnavailable: transformers is not installed.
        ConfigError: a text that is too short.
    """
    import torch

    torch.set_num_threads(threads)
    environment, ids = read_environment(), read_bytes(text)
    work = replace(work, text=replace(work, text=ids).sequences(1, VOCABULARY)[0])
    assert work.text is not None
    model = random_original(sizes or BltSizes(), work.text[None], bytes_per_patch, work.prompt_tokens)
    rates: list[float] = []
    with scratch_directory() as directory:
        runners = [
            _Runner(name, precision, loaded, loaded.session(capacity=work.prompt_tokens + work.new_tokens))
            for name, precision, bundle in _bundles(model, ids[:CALIBRATION_TOKENS], work, directory)
            if (loaded := load(bundle, threads=threads))
        ]
        for number in range(work.rounds + 1):
            for runner in runners:
                measure_round(runner.session, work, runner.samples if number else None)
            rate, logits = _original_round(model, work, original_bytes)
            if number:
                rates.append(rate)
        contenders = [runner.contender(work) for runner in runners]
        differ = _difference(runners[0].session, work, logits)
    parts = parameters_of(model)
    contenders.append(contender(ORIGINAL, "fp32", sum(parts.values()), original_bytes, rates))
    return AgainstResult(
        schema_version=AGAINST_SCHEMA_VERSION,
        command=command,
        environment=environment,
        threads=threads,
        context=work.prompt_tokens,
        rounds=work.rounds,
        parameters=parts,
        threshold=float(model.config.patching_threshold),
        bytes_per_patch=bytes_per_patch,
        logits_differ=differ,
        contenders=contenders,
        ratios=ratios_of(contenders),
    )


def _bundles(model: BltForCausalLM, ids: Ids, work: Load, directory: Path) -> Iterator[tuple[str, str, Bundle]]:
    """The BLT, and a vanilla model of as many parameters; tables, of which a byte reads a few rows, do not count."""
    model.save_pretrained(directory / "checkpoint")
    parts = parameters_of(model)
    sizes = _vanilla(model.config.global_config.hidden_size, work.prompt_tokens + work.new_tokens)
    layers = vanilla_layers(sizes, sum(parts.values()) - parts["tables"])
    full = {
        BLT: convert(directory / "checkpoint", directory / BLT),
        VANILLA: convert_model(sizes.build(f"{layers}@1"), directory / VANILLA),
    }
    settings = CalibrationSettings(max_tokens=CALIBRATION_TOKENS)
    for name, bundle in full.items():
        for precision in PRECISIONS:
            if precision == "fp32":
                yield name, precision, bundle
            else:
                path = directory / f"{name} {precision}"
                yield name, precision, build(bundle, path, precision, calibration=[ids], settings=settings)


def _vanilla(dim: int, context: int) -> RandomModels:
    return RandomModels(dim, max(dim // _HEAD_DIM, 1), 4 * dim, VOCABULARY, context, "rotary")


def vanilla_layers(sizes: RandomModels, parameters: int) -> int:
    """How many come nearest to so many parameters, at least 1."""
    one, two = (sum(value.numel() for value in sizes.build(f"{layers}@1").parameters()) for layers in (1, 2))
    return max(1 + round((parameters - one) / (two - one)), 1)


def _original_round(model: BltForCausalLM, work: Load, count: int) -> tuple[float, Array]:
    """Bytes per second of full forwards, the only way that is exact, and the logits `[count, V]` behind each byte."""
    import torch

    assert work.text is not None
    found, began = [], time.perf_counter()
    with torch.inference_mode():
        for end in range(work.prompt_tokens + 1, work.prompt_tokens + 1 + count):
            given = torch.from_numpy(work.text[None, :end])
            found.append(model(given, use_cache=False, logits_to_keep=1).logits[0, -1].numpy())
    return count / (time.perf_counter() - began), np.stack(found)


def _difference(session: Session, work: Load, logits: Array) -> float:
    """The largest between a session's logits, which has decoded the text, and the original's `[n, V]`."""
    assert work.text is not None
    session.rewind(work.new_tokens)
    own = session.advance(work.text[None, work.prompt_tokens : work.prompt_tokens + len(logits)])
    return float(np.abs(own[0] - logits).max())


if __name__ == "__main__":
    run_script(main)
