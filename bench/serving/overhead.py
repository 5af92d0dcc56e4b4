"""What HTTP costs beside a batch that is stepped directly: tokens per second of all streams, and time to the first token.

python -m foveal.bench.serving.overhead model.bundle --streams 16 --rounds 6
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from ...runtime import Model, load
from ...runtime.sampling import Sampler, SamplingParams
from ..script import run_script
from .client import stream
from .server import serving

PROMPT = "It was a dark and stormy night, and the"


def main() -> None:
    """Print medians of interleaved rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--direct", action="store_true", help="measure only the batch, in this process")
    given = parser.parse_args()
    if given.direct:
        print(*direct(load(given.bundle, threads=given.threads), given.streams, given.new_tokens))
        return
    options = ["--slots", str(given.streams), "--threads", str(given.threads)]
    with serving(given.bundle, options) as server:
        model = server.status()["id"]
        asyncio.run(_served(server.port, model, given.streams, 8))  # the first requests find cold caches
        found = [_round(given, server.port, model) for _ in range(given.rounds)]
    rates, firsts = zip(*found, strict=True)
    direct_rate, served_rate = (median(column) for column in zip(*rates, strict=True))
    direct_first, served_first = (median(column) * 1e3 for column in zip(*firsts, strict=True))
    print(f"medians of {given.rounds} rounds, {given.streams} streams of {given.new_tokens} tokens, {given.threads} threads")
    print(f"tokens/s: batch {direct_rate:.0f}, HTTP {served_rate:.0f}, {served_rate / direct_rate:.1%}")
    print(f"first token of one stream, ms: session {direct_first:.2f}, HTTP {served_first:.2f}")


def _round(given: argparse.Namespace, port: int, model: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Directly, in a process of its own that is over when HTTP begins, and through HTTP; in turn."""
    command = [sys.executable, "-m", __spec__.name, str(given.bundle), "--direct", "--threads", str(given.threads)]
    command += ["--streams", str(given.streams), "--new-tokens", str(given.new_tokens)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    served = asyncio.run(_served(port, model, given.streams, given.new_tokens))
    first = median(asyncio.run(_first(port, model)) for _ in range(9))
    return (float(said[0]), served), (float(said[1]), first)


def direct(model: Model, streams: int, tokens: int) -> tuple[float, float]:
    """Tokens per second of a batch, sampled as a request is; and seconds to the first token of a session."""
    ids, text = model.prompt_ids(PROMPT), model.required_tokenizer()
    params = [SamplingParams(seed=seed, max_new_tokens=tokens) for seed in range(streams)]
    with model.batch(streams) as batch:
        for count in (8, tokens):
            began = time.perf_counter()
            samplers = {batch.join(ids): (Sampler(one), text.detokenizer()) for one in params}
            left, following = dict.fromkeys(samplers, count), dict[object, int]()
            while any(left.values()):
                logits = batch.step({one: following[one] for one in samplers if one in following and left[one]})
                for one, row in logits.items():
                    sampler, detokenizer = samplers[one]
                    following[one] = sampler.sample(row, batch.tokens(one))
                    detokenizer.push(following[one])
                    left[one] -= 1
            seconds = time.perf_counter() - began
            for one in samplers:
                batch.leave(one)
    firsts = []
    for seed in range(9):
        began = time.perf_counter()
        next(model.generate(PROMPT, seed=seed, max_new_tokens=1))
        firsts.append(time.perf_counter() - began)
    return streams * tokens / seconds, median(firsts)


async def _served(port: int, model: str, streams: int, tokens: int) -> float:
    bodies = [
        {"model": model, "prompt": PROMPT, "max_tokens": tokens, "seed": seed, "temperature": 1.0} for seed in range(streams)
    ]
    began = time.perf_counter()
    await asyncio.gather(*(stream(port, body) for body in bodies))
    return streams * tokens / (time.perf_counter() - began)


async def _first(port: int, model: str) -> float:
    outcome = await stream(port, {"model": model, "prompt": PROMPT, "max_tokens": 1, "seed": 1})
    return outcome.first or float("nan")


if __name__ == "__main__":
    run_script(main)
