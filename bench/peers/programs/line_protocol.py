"""A peer's end of the benchmark: what each program of this folder does with its library, from the command line and in lines.

A program runs in its peer's own environment, where foveal is not: this file needs numpy alone.

    PROGRAM versions                          prints {"name": "version", ...}
    PROGRAM prepare ORIGINAL OUT PRECISION    converts the model of a folder that `original.py` wrote
    PROGRAM serve OUT --threads 2 ...         loads it, prints {"ready": true}, and answers each line that it reads

A line `{"logits": {"ids": [...], "prompt": n}}` is answered with the logits of the last row of the prompt and of each token
behind it; `{"round": {"prompts": [[...], ...], "new_tokens": n}}` with the seconds of the prefill and of each greedy step.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


class Decoder(Protocol):
    """A model in memory, and so many sequences of it, all at one position."""

    def reset(self) -> None:
        """Forget all tokens."""

    def append(self, tokens: npt.NDArray[np.int64]) -> Logits:
        """Append `[B, L]` tokens; logits `[B, V]` behind the last of each sequence."""


class Peer(Protocol):
    """What a program gives to `run`."""

    def versions(self) -> dict[str, str]:
        """Of the libraries; what is prepared for one is not taken for another."""

    def prepare(self, original: Path, out: Path, precision: str) -> None:
        """Write what `load` reads into an empty folder."""

    def load(self, path: Path, threads: int, sequences: int, capacity: int) -> Decoder:
        """Open it for so many sequences of at most `capacity` tokens."""


def run(peer: Peer) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    todo = parser.add_subparsers(dest="todo", required=True)
    todo.add_parser("versions")
    prepare = todo.add_parser("prepare")
    prepare.add_argument("original", type=Path)
    prepare.add_argument("out", type=Path)
    prepare.add_argument("precision")
    serve = todo.add_parser("serve")
    serve.add_argument("path", type=Path)
    for number in ("threads", "sequences", "capacity"):
        serve.add_argument(f"--{number}", type=int, required=True)
    given = parser.parse_args()
    replies = _own_output()
    if given.todo == "versions":
        _say(replies, peer.versions())
    elif given.todo == "prepare":
        peer.prepare(given.original, given.out, given.precision)
    else:
        _serve(peer.load(given.path, given.threads, given.sequences, given.capacity), replies)


def _own_output() -> TextIO:
    """Standard output for replies alone: what libraries print there goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _say(replies: TextIO, what: dict[str, Any]) -> None:
    replies.write(json.dumps(what) + "\n")
    replies.flush()


def _serve(decoder: Decoder, replies: TextIO) -> None:
    _say(replies, {"ready": True})
    for line in sys.stdin:
        ((what, given),) = json.loads(line).items()
        _say(replies, _logits(decoder, **given) if what == "logits" else _round(decoder, **given))


def _logits(decoder: Decoder, ids: list[int], prompt: int) -> dict[str, Any]:
    decoder.reset()
    tokens = np.array([ids], np.int64)
    rows = [decoder.append(tokens[:, :prompt])[0]]
    rows += [decoder.append(tokens[:, place : place + 1])[0] for place in range(prompt, len(ids))]
    return {"logits": [row.tolist() for row in rows]}


def _round(decoder: Decoder, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
    decoder.reset()
    tokens = np.array(prompts, np.int64)
    began = time.perf_counter()
    chosen = decoder.append(tokens).argmax(-1)[:, None]
    prefill, steps = time.perf_counter() - began, []
    for _ in range(new_tokens):
        began = time.perf_counter()
        chosen = decoder.append(chosen).argmax(-1)[:, None]
        steps.append(time.perf_counter() - began)
    return {"prefill_s": prefill, "step_s": steps}
