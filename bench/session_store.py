"""What a store of sessions costs, beside reading the tokens again: the figures of docs/embedding.md.

python -m foveal.bench.session_store a.bundle b.bundle --tokens 512 2048
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from ..files import scratch_directory
from ..runtime import Model, Session, SessionStore, load
from ..runtime.rows import Array
from ..runtime.store.blocks import BLOCK_TOKENS
from .script import run_script

_ROOM = 1 << 40


class Costs(NamedTuple):
    """Of one sequence, in milliseconds, and the megabytes of its state.

    Attributes:
        prefill: to read its tokens.
        put, put_on: to put it, and to put it again when it has gone on by `BLOCK_TOKENS`.
        restore: to let a session go on from memory.
        fork: to let one go on from its first tokens but a few, found by their ids.
        spill: to write it to files.
        bring_back: to let a session go on from files that the system has read before.
    """

    megabytes: float
    prefill: float
    put: float
    put_on: float
    restore: float
    fork: float
    spill: float
    bring_back: float


def main() -> None:
    """Print a line for each bundle and number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--tokens", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    titles = ("bundle", "tokens", "MB", "prefill", "put", "put again", "restore", "fork", "to files", "from files")
    table = Table(*titles, title=f"medians of {given.rounds} rounds, milliseconds", box=None)
    for bundle in given.bundles:
        model = load(bundle, threads=given.threads)
        for tokens in given.tokens:
            rounds = [measure(model, tokens, seed) for seed in range(given.rounds)]
            costs = Costs(*map(median, zip(*rounds, strict=True)))
            table.add_row(bundle.name, f"{tokens:,}", *(f"{value:.1f}" for value in costs))
    Console(width=150).print(table)


def measure(model: Model, tokens: int, seed: int) -> Costs:
    """One round, with a sequence of its own.

    Raises:
        ConfigError: too many tokens for the model's context.
    """
    context = model.manifest.model.context
    if not BLOCK_TOKENS < tokens <= context - BLOCK_TOKENS:
        raise ConfigError(f"expected tokens between {BLOCK_TOKENS + 1} and {context - BLOCK_TOKENS}, got {tokens}")
    ids = np.random.default_rng(seed).integers(0, model.manifest.model.vocab_size, (1, tokens + BLOCK_TOKENS))
    session, other = model.session(), model.session()
    other.advance(ids[:, :1])
    with scratch_directory() as directory, SessionStore(model, _ROOM, directory) as store:
        prefill = _ms(lambda: session.advance(ids[:, :tokens], last_only=True))
        megabytes = session.snapshot().nbytes / 1e6
        put = _ms(lambda: store.put("a", session))
        restore = _ms(lambda: store.restore("a", other))
        fork = _ms(lambda: _fork(store, ids[0, : tokens - 5], other))
        session.advance(ids[:, tokens:], last_only=True)
        put_on = _ms(lambda: store.put("a", session))
        spill = _ms(store.flush)
        store.close()
        with SessionStore(model, _ROOM, directory) as again:
            bring_back = _ms(lambda: again.restore("a", other))
    return Costs(megabytes, prefill, put, put_on, restore, fork, spill, bring_back)


def _fork(store: SessionStore, ids: Array, session: Session) -> None:
    found = store.longest_prefix(ids)
    if found is not None:
        session.restore(found.snapshot)


def _ms(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return (perf_counter() - began) * 1e3


if __name__ == "__main__":
    run_script(main)
