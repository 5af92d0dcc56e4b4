"""What Ray Serve costs beside `foveal serve` alone: the same requests to both, taking turns.

python -m foveal.bench.serving.on_ray model.bundle
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ..script import run_script
from .client import Outcome, stream
from .server import Server, serving


def main() -> None:
    """Print when each served, and what its tokens took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--streams", type=int, default=4, help="at once, in the second half of each round")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--cpus", type=float, default=0.5, help="of each replica")
    given = parser.parse_args()
    ray = ["--ray", "--replicas", str(given.replicas), "--cpus-per-replica", str(given.cpus)]
    with ExitStack() as stack:
        servers, started = dict[str, Server](), dict[str, float]()
        for name, options in (("foveal serve", []), ("foveal serve --ray", ray)):
            began = time.monotonic()
            servers[name] = stack.enter_context(serving(given.bundle, ["--threads", "1", *options]))
            started[name] = time.monotonic() - began
        alone, together = asyncio.run(_measure(servers, given.rounds, given.new_tokens, given.streams))
    _show(started, alone, together, given.streams)


Outcomes = dict[str, list[Outcome]]


async def _measure(servers: dict[str, Server], rounds: int, tokens: int, streams: int) -> tuple[Outcomes, Outcomes]:
    """Of requests one by one, and of several at once; the first round of each server is not counted."""
    alone: Outcomes = {name: [] for name in servers}
    together: Outcomes = {name: [] for name in servers}
    models = {name: server.status()["id"] for name, server in servers.items()}
    for count in range(rounds + 1):
        for name, server in servers.items():
            body = {"model": models[name], "prompt": "It was", "max_tokens": tokens, "seed": count}
            one = await stream(server.port, body, None)
            several = await asyncio.gather(*(stream(server.port, {**body, "seed": seed}, None) for seed in range(streams)))
            if count:
                alone[name].append(one)
                together[name] += several
    return alone, together


def _show(started: dict[str, float], alone: Outcomes, together: Outcomes, streams: int) -> None:
    table = Table("", "serves after, s", "TTFT p50, p90, ms", "ITL p50, p90", f"{streams} at once: TTFT", "ITL", box=None)
    for name, seconds in started.items():
        cells = [text for outcomes in (alone[name], together[name]) for text in _figures(outcomes)]
        table.add_row(name, f"{seconds:.1f}", *cells)
    console = Console(width=150)
    console.print(table)
    failed = sum(not outcome.is_whole for each in (alone, together) for outcomes in each.values() for outcome in outcomes)
    console.print(f"requests that were not answered whole: {failed}")


def _figures(outcomes: list[Outcome]) -> list[str]:
    firsts = [outcome.first for outcome in outcomes if outcome.first is not None]
    gaps = [gap for outcome in outcomes for gap in outcome.gaps]
    return [", ".join(f"{value * 1e3:.2f}" for value in np.percentile(given, [50, 90])) for given in (firsts, gaps)]


if __name__ == "__main__":
    run_script(main)
