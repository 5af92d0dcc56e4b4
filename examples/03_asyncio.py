"""Several users at once in an asyncio app: one batch serves them all, and each has a session of its own.

    python examples/03_asyncio.py

Four users share three slots, so that one waits for a slot. Each prints its lines as they are whole, with its name before them,
so that the lines of different users mix. One leaves in the middle of its text; one gets what can be made in `--seconds`; two
come back and go on where their sessions stand, of which nothing is read again. The end of each text says why it ended:

    carl  | Once upon a time, and then, and that was a new and a good time [cancelled: 13 tokens; session as it was]

An app does the same with its own tasks, a request handler's above all: `foveal serve` is made of this.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from common import model_at, parser_of, run

import foveal

WIDTH = 72


class Lines:
    """Prints a user's text in whole lines."""

    def __init__(self, name: str) -> None:
        self.name, self._rest = name, ""

    def add(self, text: str) -> None:
        """Print what became a line: up to a line's end, or to the last space that fits."""
        self._rest += text
        while "\n" in self._rest or len(self._rest) > WIDTH:
            line, found, rest = self._rest.partition("\n")
            if not found or len(line) > WIDTH:
                cut = self._rest.rfind(" ", 1, WIDTH)
                cut = WIDTH if cut < 0 else cut
                line, rest = self._rest[:cut], self._rest[cut:].removeprefix(" ")
            self._rest = rest
            if line:
                self._print(line)

    def end(self, why: str) -> None:
        """Print the rest, and why nothing follows."""
        self._print(f"{self._rest} [{why}]")

    def _print(self, line: str) -> None:
        print(f"{self.name:6}| {line}", flush=True)


async def ask(
    service: foveal.Service, name: str, prompt: str, *, leaves_after: int | None = None, **settings: Any
) -> int | None:
    """Have a session go on, and print its text; returns the tokens that it holds then.

    Args:
        service: of all users.
        name: of the user, and of the session.
        prompt: appended to the session.
        leaves_after: tokens after which the user wants no more; None: all.
        settings: as of `Service.submit`.
    """
    submit = partial(service.submit_to, asyncio.get_running_loop(), prompt, session=name, **settings)
    stream = await asyncio.to_thread(submit)  # it makes tokens of text, and reads the store: the loop need not wait
    lines, count, reason = Lines(name), 0, ""
    lines.add(prompt.lstrip())
    async for event in stream:
        lines.add(event.text)
        count += event.token is not None
        reason = event.finish_reason or reason
        if count == leaves_after:
            stream.cancel()  # its slot is free before the next step
    stands = "as it was" if stream.session_position is None else f"at {stream.session_position}"
    restored = f", {stream.restored_tokens} before them not read again" if stream.restored_tokens else ""
    lines.end(f"{reason}: {count} tokens{restored}; session {stands}")
    return stream.session_position


async def come_back(service: foveal.Service, name: str, first: str, then: str, **settings: Any) -> None:
    """Ask twice. The position says what the session is expected to hold: another one is refused, not mixed up."""
    position = await ask(service, name, first, position=0, **settings)
    await ask(service, name, then, position=position, **settings)


async def serve(service: foveal.Service, tokens: int, seconds: float) -> None:
    """All users at once."""
    common: dict[str, Any] = {"max_new_tokens": tokens, "temperature": 0.6}
    await asyncio.gather(
        come_back(service, "anna", "It was late, and", "\nIn the morning", seed=1, **common),
        come_back(service, "bert", "The captain said", "\nBut she", seed=2, **common),
        ask(service, "carl", "Once upon a time", seed=3, leaves_after=min(12, tokens), **common),
        ask(service, "dora", "There is no", seed=4, **{**common, "max_new_tokens": service.capacity, "max_seconds": seconds}),
    )


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser: argparse.ArgumentParser = parser_of("03_asyncio.py", __doc__ or "")
    parser.add_argument("--tokens", type=int, default=40, help="of each text (40)")
    parser.add_argument("--seconds", type=float, default=0.1, help="that the last user waits (0.1)")
    parser.add_argument("--slots", type=int, default=3, help="texts that are made at once (3)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Serve four users."""
    wanted = arguments(given)
    model: foveal.Model = model_at(wanted.bundle, wanted.threads)
    with contextlib.ExitStack() as opened:
        store = opened.enter_context(foveal.SessionStore(model, memory_bytes=256 << 20))
        service = opened.enter_context(foveal.Service(model, slots=wanted.slots, queue=8, store=store))
        asyncio.run(serve(service, wanted.tokens, wanted.seconds))
        found = service.statistics
        print(f"{found.requests} requests, {found.tokens} tokens in {found.steps} steps, firings: {dict(found.fires)}")


if __name__ == "__main__":
    run(main)
