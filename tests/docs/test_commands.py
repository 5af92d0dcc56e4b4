"""What pages tell people to type runs: every shell command and block of Python, in a folder of small models."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from page_commands import NOT_RUN, PAGES, RUN_ELSEWHERE, reason, typed
from page_runner import PageRunner, command_line
from page_workshop import lay_out, workshop
from store import Store

from foveal import cli

COMMANDS = {page.name: [command for command in typed(page) if reason(command) is None] for page in PAGES}
TESTED = [name for name, commands in COMMANDS.items() if commands and name not in RUN_ELSEWHERE]


@pytest.fixture(scope="session")
def made(store: Store) -> Path:
    """Small models under the names that pages use."""
    return workshop(store)


@pytest.mark.parametrize("name", TESTED)
def test_what_a_page_says_runs(name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in one folder; only what needs another machine, a GPU or minutes is left out, by name and reason."""
    lay_out(made, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "own_process", lambda: None)
    with contextlib.ExitStack() as servers:
        runner = PageRunner(command_line(cli.main), tmp_path, servers)
        for command in COMMANDS[name]:
            runner.run(command)


def test_every_reason_is_needed() -> None:
    """What is not run is on some page."""
    typed_anywhere = [command for page in PAGES for command in typed(page)]
    for entry in NOT_RUN:
        assert any(re.search(entry.pattern, command.text) for command in typed_anywhere), entry
