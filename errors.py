"""Every error foveal raises on purpose.

    FovealError
    ├── ConfigError            a hierarchy, option, target or precision that means nothing
    ├── CheckpointError        a checkpoint whose files or tensors are not what its config says
    ├── ExportError            a model that can't become stage graphs
    ├── BundleError            a bundle that is not whole, not ours, or altered
    ├── InputError             ids or sampling settings the model can't take
    │   └── CapacityError      a sequence longer than its caches or position table
    ├── SessionBusyError       a session that two threads, or two requests, use at once
    ├── SessionLostError       a session that is not where a request expects it
    ├── QueueFullError         more requests than a service holds
    ├── ServiceClosedError     a service that is shutting down, or whose engines failed
    ├── CalibrationError       text that covers too little, or activations that are not finite
    ├── EquivalenceError       two computations that should agree do not        (exit code 2)
    ├── EngineMismatchError    an engine made for something else                (exit code 3)
    ├── BuildError             an engine that could not be compiled             (exit code 4)
    ├── StorageError           a disk or folder that refused a read or a write
    ├── DeviceError            a device or its driver that refused a call
    ├── HubError               a model hub that refused, can't be reached, or sent something else than it says
    └── BackendUnavailable     an engine library that is not installed

Messages follow one pattern: what happened; got X, expected Y; what to do.
"""

from __future__ import annotations

import re


class FovealError(Exception):
    """Base of all errors; `exit_code` is what the command line returns for it. Messages are one line, whatever they pass on."""

    exit_code = 1

    def __str__(self) -> str:
        return " ".join(super().__str__().split("\n"))


class FovealWarning(UserWarning):
    """Something works, but not as one may think; the command line prints it in one line."""


class ConfigError(FovealError, ValueError):
    """A setting is malformed, unknown or contradicts another."""


class CheckpointError(FovealError, ValueError):
    """A checkpoint's files or tensors do not match its configuration."""


class ExportError(FovealError):
    """A model could not be turned into stage graphs."""


class BundleError(FovealError, ValueError):
    """A bundle is incomplete, altered, unsafe or of another schema version."""


class InputError(FovealError, ValueError):
    """The caller's token ids or sampling settings can't be used."""


class DamagedStateError(InputError):
    """What was stored of a session was cut short, altered or removed; it is kept no longer."""


class CapacityError(InputError):
    """The sequence would outgrow the session's caches or the model's position table."""


class SessionBusyError(FovealError, RuntimeError):
    """A session was used while another call or request was at it, which is not disturbed."""


class SessionLostError(FovealError, LookupError):
    """A stored session is not where a request expects it.

    Attributes:
        position: the tokens that it holds; None: there is no such session, or no longer.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class QueueFullError(FovealError, RuntimeError):
    """A service has as many requests as it holds.

    Attributes:
        retry_after: seconds after which there is likely to be room.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServiceClosedError(FovealError, RuntimeError):
    """A service takes no requests: it is shutting down, or its engines failed."""


class CalibrationError(FovealError, ValueError):
    """Text covers too little of the model, or makes activations that are not finite."""


class EquivalenceError(FovealError):
    """Two computations that must agree differ."""

    exit_code = 2


class EngineMismatchError(FovealError):
    """An engine was built for another machine, library version or graph."""

    exit_code = 3


class BuildError(FovealError):
    """A target's compiler refused a stage graph."""

    exit_code = 4


class StorageError(FovealError, OSError):
    """A disk or a folder refused a read or a write; `errno` and `filename` are those of the refusal."""

    def __str__(self) -> str:
        return " ".join(str(self.args[0]).split("\n"))


class DeviceError(FovealError, RuntimeError):
    """A device, or the library that drives it, refused a call."""


class HubError(FovealError, RuntimeError):
    """A model hub refused, can't be reached, or sent something else than it says."""


class BackendUnavailable(FovealError, ImportError):
    """The library that runs this target's engines is not installed."""


_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Lines with which libraries lead up to their reason, or go on after it; none of them is one.
_NO_REASON = re.compile(
    r"^(#|=+$|-+$|\*|>|Traceback |During handling|The above exception|Next steps|Suggested fix|Failed to export the model"
    r"|This is step|\(Refer to|While executing|Original traceback|File \")"
)


def plain(text: str) -> str:
    """Without the codes that colour a terminal."""
    return _ANSI.sub("", text)


def reason_of(error: BaseException) -> str:
    """Why another library failed, in one line: the first that says something, of the innermost cause, without ANSI codes.

    Errors whose message is a bare value, as a KeyError's is, come with the name of their type.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    name = type(error).__name__
    lines = [line.strip() for line in plain(str(error)).splitlines()]
    said = [line for line in lines if line and not _NO_REASON.match(line)]
    reason = " ".join(said[: 2 if said and said[0].endswith((":", "indices")) else 1])  # what it announces is on the next
    return f"{name}: {reason}".removesuffix(": ") if isinstance(error, LookupError | AssertionError) or not reason else reason


def install(extra: str) -> str:
    """How to install an extra of foveal, which is on no index."""
    return f"pip install '.[{extra}]' in foveal's folder, or with its wheel in the place of the dot"


_EXTRA_OF = {
    "huggingface_hub": "hub",
    "llguidance": "guided",
    "matplotlib": "report",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "scipy": "export",
    "torch": "export",
}


def unavailable(error: ImportError, doing: str) -> BackendUnavailable | None:
    """What to raise for a package that an extra brings and that is not there; None for any other failure."""
    package = (error.name or "").split(".")[0]
    if package not in _EXTRA_OF:
        return None
    return BackendUnavailable(f"{package} can't be imported; {doing} needs it: {install(_EXTRA_OF[package])}")
