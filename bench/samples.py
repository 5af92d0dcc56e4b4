"""Raw samples as JSON lines: one for each token that was decoded, with what fired; the schema of docs/bench-results.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Union

import msgspec

from ..files import write_atomically
from ..runtime.batches.phases import Policy
from .environment import Environment
from .result import BenchResult, ModelResult

SAMPLES_SCHEMA_VERSION = 1


class Run(msgspec.Struct, frozen=True, kw_only=True, tag="run", forbid_unknown_fields=True):
    """The first line: what was run, on what."""

    schema_version: int
    command: str
    environment: Environment


class Prompt(msgspec.Struct, frozen=True, kw_only=True, tag="prompt", forbid_unknown_fields=True):
    """A prompt that was read in one call. Rounds count from 1."""

    bundle: str
    round: int
    tokens: int
    host_ns: int


class Token(msgspec.Struct, frozen=True, kw_only=True, tag="token", forbid_unknown_fields=True):
    """A decode step of one sequence: `step` is the position of its token, `phase` that modulo the period of all strides.

    `fired`: the stages that it ran, in dataflow order. `host_ns`: from the call to the likeliest next token, on the host's
    clock.
    """

    bundle: str
    round: int
    step: int
    phase: int
    fired: tuple[str, ...]
    host_ns: int


class BatchStep(msgspec.Struct, frozen=True, kw_only=True, tag="batch step", forbid_unknown_fields=True):
    """A step of a batch, which brought a token to each of its `slots`; `step` counts from 0 in each round.

    `fired`: for how many slots each stage ran; those that ran for none are left out.
    """

    bundle: str
    policy: Policy
    slots: int
    round: int
    step: int
    fired: dict[str, int]
    host_ns: int


Sample = Union[Run, Prompt, Token, BatchStep]  # noqa: UP007 - msgspec takes it on Python 3.10 too


def save_samples(path: Path, result: BenchResult) -> None:
    """Write all samples of a result, a line each, whole or not at all.

    Raises:
        StorageError: the place can't be written to.
    """
    write_atomically(path, b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples(result)))


def samples(result: BenchResult) -> Iterator[Sample]:
    """All of a result that has them, in the order of models, rounds and steps."""
    yield Run(schema_version=SAMPLES_SCHEMA_VERSION, command=result.command, environment=result.environment)
    for model in result.models:
        yield from _of_one_sequence(result, model)
        yield from _of_batches(model)


def _of_one_sequence(result: BenchResult, model: ModelResult) -> Iterator[Sample]:
    kept = model.samples
    for number, ns in enumerate(kept.ttft_ns, 1):
        yield Prompt(bundle=model.name, round=number, tokens=result.prompt_tokens, host_ns=ns)
    for index, (step, ns, which) in enumerate(zip(kept.token, kept.itl_ns, kept.stage_set, strict=True)):
        yield Token(
            bundle=model.name,
            round=index // result.new_tokens + 1,
            step=step,
            phase=step % model.period,
            fired=kept.stages[which],
            host_ns=ns,
        )


def _of_batches(model: ModelResult) -> Iterator[Sample]:
    for batch in model.batches:
        kept = batch.samples
        steps = len(kept.itl_ns) // len(batch.tokens_per_s_by_round)
        for index, (ns, which) in enumerate(zip(kept.itl_ns, kept.firing_set, strict=True)):
            yield BatchStep(
                bundle=model.name,
                policy=batch.policy,
                slots=batch.slots,
                round=index // steps + 1,
                step=index % steps,
                fired=batch.firing_sets[which].fires,
                host_ns=ns,
            )


def json_schema() -> bytes:
    """Of one line, as JSON Schema 2020-12: what docs/bench-sample.schema.json is."""
    schema = msgspec.json.schema(Sample)
    return msgspec.json.format(
        msgspec.json.encode({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}), indent=1
    )


if __name__ == "__main__":
    print(json_schema().decode())
