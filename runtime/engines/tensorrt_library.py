"""The TensorRT libraries: imported when they are first asked for, and made to speak through Python's logging."""

from __future__ import annotations

import functools
import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import BackendUnavailable, install
from ...sidecar import TensorRTLibrary

OLDEST = (10, 3)
"""Of `tensorrt`: what JetPack 6 has."""

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_REMEDIES = {
    "tensorrt": (
        f"{install('tensorrt')}; on a Jetson it comes with JetPack, for environments that were made with "
        "`python3 -m venv --system-site-packages`"
    ),
    "tensorrt-rtx": install("rtx"),
}
_NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}

EXPLAINED = {
    r"Make sure (input|output) .* has Int64 binding": "all tensors that are int64 are bound as int64",
    r"A node named .* already exists": "the body of a function that is used twice; nobody asks for its tensors by name",
    r"table_uint8 is being converted to INT32": "TensorRT looks nothing up in bytes: docs/precision-tensorrt.md",
    r"The logger passed into .* differs from one already (provided|registered)": "both lead here",
    r"BuildCanceled": "foveal cancelled it",
}
"""Complaints that say nothing against an engine, and why. They are logged at DEBUG."""

_log = logging.getLogger("foveal.tensorrt")
_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,  # hundreds of lines per engine
    "VERBOSE": logging.DEBUG,
}


class Message(NamedTuple):
    """What the library said, and how severe it is: `INTERNAL_ERROR`, `ERROR`, `WARNING`, `INFO` or `VERBOSE`."""

    severity: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether something failed."""
        return self.severity in ("INTERNAL_ERROR", "ERROR")

    @property
    def is_complaint(self) -> bool:
        """Whether it is an error or a warning that `EXPLAINED` does not explain."""
        return (self.is_error or self.severity == "WARNING") and reason_of(self.text) is None


@dataclass(frozen=True)
class Library:
    """One of TensorRT's libraries.

    Attributes:
        target: what engines it builds and runs.
        module: as it was imported.
        version: its own, as `"1.7.1.116"`.
        logger: the one to give to everything it makes; it keeps the first that it is given for the whole process.
    """

    target: TensorRTLibrary
    module: Any
    version: str
    logger: Any

    @property
    def release(self) -> tuple[int, ...]:
        """The version's numbers."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version))

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, whose versions count otherwise."""
        return self.target == "tensorrt-rtx"

    def __str__(self) -> str:
        return f"{_NAMES[self.target]} {self.version}"

    @contextmanager
    def listening(self) -> Iterator[list[Message]]:
        """Keep what the library says inside the block, of all threads."""
        messages: list[Message] = []
        self.logger.listeners.append(messages)
        try:
            yield messages
        finally:
            self.logger.listeners = [kept for kept in self.logger.listeners if kept is not messages]


@functools.cache
def library_of(target: TensorRTLibrary) -> Library:
    """The library that a target's engines need.

    Raises:
        BackendUnavailable: it can't be imported, or is too old; with what to do about it.
    """
    name = _MODULES[target]
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: a shared library that it loads itself
        raise BackendUnavailable(
            f"{name} can't be imported ({error}); {target} engines need it: {_REMEDIES[target]}"
        ) from error
    library = Library(target, module, module.__version__, _logger(module))
    if not library.is_rtx and library.release < OLDEST:
        raise BackendUnavailable(f"{library} is too old, expected {'.'.join(map(str, OLDEST))} or later; {_REMEDIES[target]}")
    return library


def reason_of(complaint: str) -> str | None:
    """Why a complaint says nothing against an engine; None if it may."""
    return next((reason for pattern, reason in EXPLAINED.items() if re.search(pattern, complaint)), None)


def _logger(module: Any) -> Any:
    class Logger(module.ILogger):  # type: ignore[misc]
        """Passes everything on to Python's logging and to whoever listens."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)  # the binding's own; it warns of super()
            self.listeners: list[list[Message]] = []

        def log(self, severity: Any, text: str) -> None:
            message = Message(severity.name, text)
            for messages in self.listeners:
                messages.append(message)
            _pass_on(message)

    return Logger()


def _pass_on(message: Message) -> None:
    level = _LEVELS[message.severity]
    if level > logging.DEBUG and (reason := reason_of(message.text)) is not None:
        _log.debug("%s (harmless: %s)", message.text, reason)
    else:
        _log.log(level, "%s", message.text)
