"""The parent's end of the lines: a system that is loaded in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ...errors import BuildError
from .environments import reason_of


class Timed(msgspec.Struct, frozen=True):
    """Seconds of one round: of the prefill, and of each step behind it."""

    prefill_s: float
    step_s: list[float]


class _Logits(msgspec.Struct):
    logits: list[list[float]]


class Process:
    """A program that serves a system; the memory and threads of it end with the process."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # an interrupt from the keyboard is the parent's alone
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()  # closes its input, which ends it

    def wait_until_ready(self) -> None:
        """Until it is loaded.

        Raises:
            BuildError: it ended before; with its last words.
        """
        self._reply()

    def logits(self, ids: npt.NDArray[np.int64], prompt: int) -> npt.NDArray[np.float32]:
        """`[1 + n, V]`: of the last row of a prompt of so many tokens, and of the n tokens behind it, one by one.

        Raises:
            BuildError: as `wait_until_ready`.
        """
        self._ask({"logits": {"ids": ids.tolist(), "prompt": prompt}})
        return np.array(msgspec.json.decode(self._reply(), type=_Logits).logits, np.float32)

    def round(self, prompts: npt.NDArray[np.int64], new_tokens: int) -> Timed:
        """Decode greedily behind prompts `[B, L]`, so many tokens each.

        Raises:
            BuildError: as `wait_until_ready`.
        """
        self._ask({"round": {"prompts": prompts.tolist(), "new_tokens": new_tokens}})
        return msgspec.json.decode(self._reply(), type=Timed)

    def _ask(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(what).decode() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _reply(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return line

    def _ended(self) -> BuildError:
        code = self._process.wait()
        return BuildError(f"the process of {self.name} ended: {reason_of(self.log.read_text(), code)}; all it said: {self.log}")
