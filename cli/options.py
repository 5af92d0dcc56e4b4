"""Options that several verbs have: the same words, defaults and conditions everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from ..bundle import check_target, may_be_there
from ..errors import ConfigError
from ..hub.names import hub_name
from ..precision import Plan
from .console import err

MaxTokens = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Calibrate on at most so many tokens, spread over the text; on all if not given."),
]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Threads of CPU engines; measured if not given."),
]
Verified = Annotated[
    str,
    typer.Option(
        "--verify",
        help='Which files are hashed before anything runs: "used", those that are read; "all"; or "once", as used, but large '
        "ones only if they were written to since this machine hashed them.",
    ),
]
Native = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--native/--no-native",
        help="Whether all stages run native steps, or none; if not given, those that can. CPU engines only.",
    ),
]
Programs = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--native/--no-native", help="Whether CPU engines get programs of native steps beside them; if not given, they do."
    ),
]
Calibration = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option(help="Text to calibrate on: files, or directories of *.txt. int8 and fp16 need it, int8 caches too."),
]


def checked_draft(draft: str | None) -> str | None:
    """What `--draft` names: `ngrams`, a bundle on a hub, or the absolute path of one, as other processes may open it.

    Raises:
        ConfigError: there is nothing at the path.
    """
    if draft is None or draft == "ngrams":
        return draft
    if not may_be_there(draft):
        raise ConfigError(
            f'--draft is "{draft}", where there is no bundle; expected ngrams, or a bundle with the same tokenizer'
        )
    return draft if hub_name(draft) is not None else str(Path(draft).resolve())


def text_counts(wanted: Plan, target: str, path: Path | None = None, text: Sequence[Path] | None = ()) -> tuple[bool, str]:
    """When `--calibration` does something for what is to be built for a target.

    A plan of a file may need text or not, and who builds it need not know: then it is only said that the text is not read.
    """
    counts = wanted.learns_from_text(target)
    if not counts and path is not None and text:
        err.print(f"{path} takes nothing from text for target {target}: --calibration is not read")
    return counts or path is not None, "a precision that text changes: fp16, int8, w4, or int8 caches on --target cpu"


def native_counts(target: str) -> tuple[bool, str]:
    """When `--native` and `--no-native` do something."""
    return target == "cpu", "--target cpu, as other engines have no native steps"


def threads_count(target: str) -> tuple[bool, str]:
    """When `--threads` does something.

    Raises:
        ConfigError: an unknown target.
    """
    check_target(target)
    return target == "cpu", "--target cpu, as other engines have no threads"
