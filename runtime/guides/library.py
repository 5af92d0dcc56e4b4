"""llguidance, loaded when a constraint is first made, and its failures as errors of one line.

It reads constraints in a thread with much stack: it descends with each rule or `$ref` that leads to another, and where the
stack ends the whole process does. It also panics here and there, which Python gets as an exception that is no
Exception.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from ...errors import InputError, unavailable

MOST_NAMES = 5_000
"""Rules or references of one constraint: what the stack holds even if each leads to the next."""
_STACK_BYTES = 256 << 20  # of address space; 10,000 rules in a row took less
_starting = threading.Lock()

Result = TypeVar("Result")


def load_library() -> ModuleType:
    """llguidance.

    Raises:
        BackendUnavailable: it is not installed.
    """
    try:
        import llguidance
    except ImportError as error:
        raise unavailable(error, "constrained decoding") or error from error
    return llguidance


def limits() -> Any:
    """Its own limits; its messages without the grammar and the text so far, which may be private."""
    return load_library().LLParserLimits(verbose_errors=False)


def with_stack(work: Callable[[], Result]) -> Result:
    """Do something in a thread with much stack; what it raises is raised here, a panic as InputError."""
    done: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(without_panic(work))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="foveal-constraint", daemon=True)
    with _starting:  # the size is one for all threads that start meanwhile
        before = threading.stack_size(_STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def without_panic(work: Callable[[], Result]) -> Result:
    """Do something; a panic of the library becomes InputError."""
    try:
        return work()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(f"llguidance failed at this constraint: {brief(str(error))}; write it in another way") from error


def brief(message: str) -> str:
    """The part of its message that says what is wrong, in one line."""
    for mark in ("<non-verbose/>", "<backtrace", "<state>", "\n   1 | "):
        message = message.split(mark)[0]
    message = " ".join(message.split())
    return message if len(message) <= 400 else f"{message[:400]} [...]"
