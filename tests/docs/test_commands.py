"""What pages tell people to type runs: every shell command and block of Python, in a folder of small models."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hub_server import WRITER, at_hand
from page_commands import NOT_RUN, PAGES, RUN_ELSEWHERE, Typed, coverage, reason, typed
from page_runner import PageRunner
from page_workshop import CHECKPOINT, MADE, lay_out, workshop
from store import Store

from foveal import cli

DEEP = ("datacenter.md", "precision.md", "precision-tensorrt.md", "training.md")
"""Pages whose commands take longest; the tutorial has the most common of them."""


def pages_to_run() -> Iterator[object]:
    """Pages with something to run that no other test runs."""
    for page in PAGES:
        if page.name not in RUN_ELSEWHERE and any(to_run(page)):
            yield pytest.param(page, id=page.name, marks=[pytest.mark.deep] if page.name in DEEP else [])


def to_run(page: Path) -> list[Typed]:
    """All of it but what is left out with a reason, and what made the folder."""
    commands = [command for command in typed(page) if reason(command) is None]
    return [command for command in commands if re.sub(r"\s+#.*", "", command.text) not in MADE]


@pytest.fixture(scope="session")
def made(store: Store) -> Path:
    """Small models under the names that pages use."""
    return workshop(store)


@pytest.mark.parametrize("page", list(pages_to_run()))
def test_what_a_page_says_runs(page: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in one folder; only what needs another machine, a GPU or minutes is left out, by name and reason."""
    lay_out(made, tmp_path)
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as servers:
        if page.name == "hub.md":
            hub = servers.enter_context(at_hand(tmp_path / "hub", monkeypatch))
            hub.add("owner/model", {path.name: path.read_bytes() for path in (tmp_path / CHECKPOINT).iterdir()})
            monkeypatch.setenv("HF_TOKEN", WRITER)
        runner = PageRunner(tmp_path, servers)
        for command in to_run(page):
            runner.run(command)


def test_every_reason_is_needed() -> None:
    """What is not run is on some page."""
    typed_anywhere = [command for page in PAGES for command in typed(page)]
    for entry in NOT_RUN:
        assert any(re.search(entry.pattern, command.text) for command in typed_anywhere), entry


def test_the_list_is_short() -> None:
    """More than half of what is typed runs here; what does not is of few kinds."""
    run, everything = (sum(column) for column in zip(*coverage().values(), strict=True))
    assert len(NOT_RUN) < 15
    assert run > everything / 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_prose_are_there(page: Path) -> None:
    """`foveal VERB --option` in a sentence names a verb and options of the command."""
    command: Any = typer.main.get_command(cli.app)
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for words in (shown.split() for shown in re.findall(r"`foveal ([a-z][^`]*)`", prose)):
        verb = command.commands[words.pop(0)]
        if getattr(verb, "commands", None):
            named = bool(words) and words[0] in verb.commands
            verb = verb.commands[words.pop(0) if named else next(iter(verb.commands))]
        there = {name for parameter in verb.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
        for option in (word.partition("=")[0].rstrip(",") for word in words if word.startswith("--")):
            assert option in there, f"{page.name}: foveal {verb.name} {option}"
