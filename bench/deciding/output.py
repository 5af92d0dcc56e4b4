"""Where the scripts of this folder leave a result: in a file, as JSON, or as tables for people."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from rich.console import Console

from ...files import write_atomically

Result = TypeVar("Result", bound=msgspec.Struct)


def add_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    """Those that all of them have."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path, help="write the result to this file, as JSON")
    parser.add_argument("--json", action="store_true")


def command_of(script: str) -> str:
    """The command line that this process was started with."""
    return shlex.join(["python", "-m", f"foveal.bench.deciding.{script}", *sys.argv[1:]])


def give(result: Result, given: argparse.Namespace, show: Callable[[Result, Console], None], width: int) -> None:
    """Save it, if that was asked for, and print it."""
    if given.save is not None:
        write_atomically(given.save, msgspec.json.encode(result))
    if given.json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    else:
        show(result, Console(width=width))
