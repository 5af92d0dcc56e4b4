"""What a service costs beside stepping its batch directly: tokens per second of as many greedy texts as there are slots.

python -m foveal.bench.service_overhead a.bundle b.bundle --texts 16 --new-tokens 128
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from ..runtime import Model, load
from ..runtime.batches.batch import Batch
from ..runtime.batches.phases import Policy
from ..runtime.rows import Ids
from ..runtime.service.service import Service
from .batch_rounds import greedy
from .script import run_script

Way = Callable[[Ids, int], None]
"""Has each of some prompts `[N, T]` continued by so many tokens."""


def main() -> None:
    """Print a line for each bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--policy", default="staggered")
    given = parser.parse_args()
    title = f"{given.texts} texts, tokens/s, medians of {given.rounds} rounds; in brackets: share of the batch's"
    table = Table("bundle", "batch", "service: threads", "service: tasks", title=title, box=None)
    for bundle in given.bundles:
        model = load(bundle, threads=given.threads)
        rates = measure(model, given.texts, given.prompt_tokens, given.new_tokens, given.rounds, given.policy)
        shares = [f"{rate:,.0f} ({rate / rates[0]:.0%})" for rate in rates[1:]]
        table.add_row(bundle.name, f"{rates[0]:,.0f}", *shares)
    Console(width=150).print(table)


def measure(model: Model, texts: int, prompt_tokens: int, new_tokens: int, rounds: int, policy: Policy) -> list[float]:
    """Tokens per second of a batch that is stepped directly, of a service that threads read, and of one that tasks read: the
    medians of rounds in which they take turns, from the first request to the last token.

    Raises:
        ConfigError: no room for so many tokens, or nothing to measure.
    """
    context, needed = model.manifest.model.context, prompt_tokens + new_tokens
    if min(texts, prompt_tokens, new_tokens, rounds) < 1 or needed > context:
        raise ConfigError(
            f"got {texts} texts of {prompt_tokens} and {new_tokens} tokens in {rounds} rounds, expected at least one of each, "
            f"and together at most the model's {context} tokens"
        )
    prompts = np.random.default_rng(0).integers(0, model.manifest.model.vocab_size, (texts, prompt_tokens))
    with model.batch(texts, policy=policy) as batch, Service(model, texts, policy=policy) as service:
        ways: list[Way] = [_directly(batch), _by_threads(service), _by_tasks(service)]
        seconds: list[list[float]] = [[] for _ in ways]
        for turn in range(rounds + 1):
            for way, taken in zip(ways, seconds, strict=True):
                began = perf_counter()
                way(prompts, new_tokens)
                if turn:  # the first warms up
                    taken.append(perf_counter() - began)
    return [texts * new_tokens / median(taken) for taken in seconds]


def _directly(batch: Batch) -> Way:
    def run(prompts: Ids, new_tokens: int) -> None:
        left = {batch.join(prompt): new_tokens for prompt in prompts}
        tokens = greedy(batch.step())
        while left:
            for sequence in list(tokens):
                left[sequence] -= 1
                if not left[sequence]:
                    batch.leave(sequence)
                    del left[sequence], tokens[sequence]
            tokens = greedy(batch.step(tokens))

    return run


def _by_threads(service: Service) -> Way:
    def read(prompt: Sequence[int], new_tokens: int) -> None:
        for _ in service.submit(prompt, temperature=0, max_new_tokens=new_tokens, as_text=False):
            pass

    def run(prompts: Ids, new_tokens: int) -> None:
        readers = [threading.Thread(target=read, args=(prompt, new_tokens)) for prompt in prompts]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()

    return run


def _by_tasks(service: Service) -> Way:
    async def read(prompt: Sequence[int], new_tokens: int) -> None:
        submit = partial(service.submit_to, asyncio.get_running_loop(), prompt)
        async for _ in await asyncio.to_thread(submit, temperature=0, max_new_tokens=new_tokens, as_text=False):
            pass

    async def read_all(prompts: Ids, new_tokens: int) -> None:
        await asyncio.gather(*(read(prompt, new_tokens) for prompt in prompts))

    def run(prompts: Ids, new_tokens: int) -> None:
        asyncio.run(read_all(prompts, new_tokens))

    return run


if __name__ == "__main__":
    run_script(main)
