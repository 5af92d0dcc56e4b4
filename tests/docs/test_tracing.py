"""What docs/tracing.md tells one to type, typed."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from jobs import bytes_bundle
from store import Store
from trace_processor import trace_processor

from foveal import cli

PAGE = (Path(__file__).parent.parent.parent / "docs" / "tracing.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Of the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_page_does_what_it_says(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command, its program, which trace the same kinds of events, and its questions."""
    (tmp_path / "build" / "demo").mkdir(parents=True)
    (tmp_path / "build" / "demo" / "hourglass.bundle").symlink_to(bytes_bundle(store).path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "own_process", lambda: None)
    (command,), (program,), (questions,) = blocks("sh"), blocks("python"), blocks("sql")
    monkeypatch.setattr(sys, "argv", shlex.split(command.replace("\\\n", "")))
    cli.main.__globals__["app"](standalone_mode=False)
    kinds = kinds_of_events()
    with trace_processor(Path("trace.json")) as query:
        for question in questions.split(";")[:-1]:
            assert query(question)
    Path("trace.json").unlink()
    exec(compile(program, "docs/tracing.md", "exec"), {"__name__": "example"})
    assert kinds_of_events() == kinds


def kinds_of_events() -> set[tuple[str, str]]:
    """Of the file; arrows have their tokens' names."""
    events = json.loads(Path("trace.json").read_bytes())["traceEvents"]
    return {(event["ph"], "" if event["ph"] in "stf" else event["name"]) for event in events}


def test_its_methods_are_those_of_an_observer() -> None:
    """And their arguments."""
    from inspect import signature

    from foveal.runtime.generation.observer import GenerationObserver

    told = re.findall(r"^\| `(\w+)\((.*?)\)` \|", PAGE, flags=re.MULTILINE)
    there = {name: method for name, method in vars(GenerationObserver).items() if callable(method)}
    assert {name: given.split(", ") for name, given in told} == {
        name: [argument for argument in signature(method).parameters if argument != "self"] for name, method in there.items()
    }
