"""Many streaming clients for minutes: errors, latencies, memory, and slots of clients that vanish.

python -m foveal.bench.serving.load model.bundle --clients 200 --seconds 300
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ..script import run_script
from .client import Outcome, stream
from .server import Server, serving

_PROMPTS = ("It was", "The sea", "Once upon a time there was", "She said nothing, and", "In the beginning")
_DROPPED = 0.1
"""The share of clients that go away in the middle."""


def main() -> None:
    """Print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=48)
    given = parser.parse_args()
    options = ["--slots", str(given.slots), "--queue", str(given.queue)]
    with serving(given.bundle, options) as server:
        outcomes, memory = asyncio.run(_load(server, given.clients, given.seconds, given.new_tokens))
        time.sleep(1)
        left = server.status()
    _show(outcomes, memory, left["running"] + left["reading"] + left["waiting"])


async def _load(server: Server, clients: int, seconds: float, tokens: int) -> tuple[list[Outcome], list[tuple[float, int]]]:
    until, outcomes = time.monotonic() + seconds, list[Outcome]()
    memory: list[tuple[float, int]] = []

    async def watch() -> None:
        began = time.monotonic()
        while time.monotonic() < until:
            memory.append((time.monotonic() - began, server.resident_bytes()))
            await asyncio.sleep(min(5.0, seconds / 20))

    async def client(seed: int) -> None:
        choices = random.Random(seed)
        while time.monotonic() < until:
            body = {
                "model": server_model,
                "prompt": choices.choice(_PROMPTS),
                "max_tokens": choices.randint(tokens // 2, tokens),
                "seed": choices.randrange(1 << 30),
            }
            leaves = choices.randint(1, 8) if choices.random() < _DROPPED else None
            outcome = await stream(server.port, body, leaves)
            outcomes.append(outcome)
            if outcome.status in (429, 503):
                await asyncio.sleep(choices.uniform(0.5, 1.5))

    server_model = server.status()["id"]
    await asyncio.gather(watch(), *(client(seed) for seed in range(clients)))
    return outcomes, memory


def _show(outcomes: list[Outcome], memory: list[tuple[float, int]], left: int) -> None:
    console = Console(width=150)
    statuses = Counter(outcome.status for outcome in outcomes)
    broken = [outcome for outcome in outcomes if outcome.status not in (200, 429, 503) or outcome.error]
    cut = sum(outcome.status == 200 and not outcome.is_whole for outcome in outcomes)
    console.print(f"requests by status: {dict(sorted(statuses.items()))}; failed: {len(broken)}, cut short: {cut}")
    for outcome in broken[:3]:
        console.print(f"  {outcome.status}: {outcome.error}")
    table = Table("ms", "p50", "p99", "most", box=None)
    table.add_row("first token", *_percentiles([o.first for o in outcomes if o.first is not None]))
    table.add_row("between tokens", *_percentiles([gap for o in outcomes for gap in o.gaps]))
    console.print(table)
    # The first fifth is what the allocator, caches and threads take once.
    settled = np.array(memory[len(memory) // 5 :], np.float64)
    slope = np.polyfit(settled[:, 0] / 60, settled[:, 1] / 1e6, 1)[0] if len(settled) > 2 else float("nan")
    console.print(
        f"memory: {settled[0, 1] / 1e6:.0f} to {settled[-1, 1] / 1e6:.0f} MB, {slope:+.2f} MB/min; texts left: {left}"
    )


def _percentiles(seconds: list[float]) -> list[str]:
    if not seconds:
        return ["-"] * 3
    return [f"{value * 1e3:.1f}" for value in np.percentile(seconds, [50, 99, 100])]


if __name__ == "__main__":
    run_script(main)
