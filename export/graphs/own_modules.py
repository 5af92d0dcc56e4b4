"""Errors in a module of the user's own: one line, with the stage and the line of code that it comes from."""

from __future__ import annotations

import io
import linecache
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.fx.experimental import sym_node

from ...errors import ExportError, FovealError, reason_of

_FOVEAL = Path(__file__).resolve().parent.parent.parent
_ROOMS = ("contract", "export", "models", "runtime")  # of foveal; what else lies beside them may be the user's
_LIBRARIES = (Path(torch.__file__).resolve().parent, *(_FOVEAL / room for room in _ROOMS))
_STANDARD = Path(traceback.__file__).resolve().parent


class Line(NamedTuple):
    """Of code."""

    file: str
    number: int

    def __str__(self) -> str:
        text = linecache.getline(self.file, self.number).strip()
        return f"{self.file}:{self.number}" + (f" (`{text}`)" if text else "")


def line_of(error: BaseException) -> Line | None:
    """The innermost line of code that is neither torch's nor foveal's, on the way to an error or to one of its causes."""
    found = None
    while error is not None:
        lines = [Line(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
        found = next((line for line in reversed(lines) if _is_the_users(line.file)), found)
        if error.__cause__ is None:
            break
        error = error.__cause__
    return found


def export_error(stage: str, error: BaseException) -> ExportError:
    """What to raise when a stage's module, or what traces it, fails."""
    reason, place = reason_of(error), line_of(error)
    if type(error).__name__ == "GuardOnDataDependentSymNode" or type(error.__cause__).__name__ == "GuardOnDataDependentSymNode":
        reason = "Python code decides by the values of a tensor, which a graph can't do"
    if " not in VR[" in reason:  # so torch says that a size must be any and one
        reason = "Python code goes through rows one by one, so that a graph would fix their number"
    return ExportError(f'stage "{stage}" could not be exported: {reason}' + (f", at {place}" if place else ""))


def asked(model: Any, method: str) -> Any:
    """What a model of the user's says of itself by a method without arguments.

    Raises:
        ExportError: it raises, or has no such method.
    """
    try:
        return getattr(model, method)()
    except FovealError:
        raise
    except Exception as error:  # the model's own code may raise any
        place = line_of(error)
        start = f"{type(model).__name__}.{method}() failed: {reason_of(error)}"
        raise ExportError(start + (f", at {place}" if place else "") + "; see docs/your-own-model.md") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Let libraries log and print nothing while a module is traced: what matters of it is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):  # torch prints the graph so far when it fails
            yield
    finally:
        logging.disable(before)


def decision_on_sizes(trace: Callable[[], Any]) -> Line | None:
    """The first line of the user's that makes a number or a truth of a size while `trace` runs, where torch fixes the size.

    That is what a loop over `range(x.shape[1])`, an `int(...)` or an `if` does. torch reports some of them, without the line.
    """
    found: list[Line] = []
    with _watched(found), suppress(Exception):  # why it fails is known; where is the question
        trace()
    return found[0] if found else None


@contextmanager
def _watched(found: list[Line]) -> Iterator[None]:
    """Note the user's lines at which torch asks what a symbolic size is; other versions of torch may have no such methods."""
    methods = [name for name in ("guard_int", "guard_bool", "guard_float") if hasattr(sym_node.SymNode, name)]
    kept = {name: getattr(sym_node.SymNode, name) for name in methods}

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def ask(node: Any, *rest: Any) -> Any:
            if (line := _asked_by()) is not None and not node.is_constant():
                found.append(line)
            return method(node, *rest)

        return ask

    for name, method in kept.items():
        setattr(sym_node.SymNode, name, noting(method))
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(sym_node.SymNode, name, method)


_SYMBOLIC = ("sym_node.py", "__init__.py", "recording.py")


def _asked_by() -> Line | None:
    """The user's line, if it asks itself: what torch's operations ask on its behalf may well be harmless."""
    frame = sys._getframe(2)
    while frame is not None and Path(frame.f_code.co_filename).name in _SYMBOLIC:
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None or not _is_the_users(frame.f_code.co_filename):
        return None
    return Line(frame.f_code.co_filename, frame.f_lineno)


def _is_the_users(file: str) -> bool:
    if file.startswith("<"):
        return False
    path = Path(file).resolve()
    if any(path.is_relative_to(folder) for folder in _LIBRARIES):
        return False
    return not path.is_relative_to(_STANDARD) or "site-packages" in path.parts
