"""docs/hub.md: what it tells people to type runs, against a hub on this machine; and it speaks of every option and layout."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import typer
from hub_server import WRITER, at_hand
from page_commands import ROOT, typed
from page_runner import PageRunner
from page_workshop import workshop
from store import Store

from foveal import cli
from foveal.hub.names import hub_name
from foveal.models.readers.from_hub import BESIDE

PAGE = ROOT / "docs" / "hub.md"
COMMANDS = list(typed(PAGE))


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")  # huggingface_hub's
def test_its_commands_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one folder; the repository holds a small checkpoint of text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    checkpoint = workshop(store) / "my-checkpoint"
    with contextlib.ExitStack() as servers:
        hub = servers.enter_context(at_hand(tmp_path / "hub", monkeypatch))
        hub.add("owner/model", {path.name: path.read_bytes() for path in checkpoint.iterdir()})
        runner = PageRunner(tmp_path, servers)
        for command in sorted(COMMANDS, key=lambda one: one.language == "python"):
            runner.run(command)
        published = hub.repositories["owner/model-bundle"]
        assert published.messages[-1] == "With figures"
        assert "## Measured" in published.files("v2")["README.md"].decode()


def test_all_of_it_runs() -> None:
    """More than one command, and a program."""
    assert len(COMMANDS) > 5
    assert {command.language for command in COMMANDS} == {"sh", "python"}


def test_every_option_of_push_is_explained() -> None:
    """In the table."""
    command = typer.main.get_command(cli.app).commands["push"]  # type: ignore[attr-defined]
    options = {param.opts[0] for param in command.params if param.opts[0].startswith("--")} - {"--help"}
    assert set(re.findall(r"^\| `(--[\w-]+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)) == options


def test_names_and_files() -> None:
    """The names are names, and the files beside weights are all told."""
    text = PAGE.read_text(encoding="utf-8")
    names = re.findall(r"^\| `(hf:[^`]+)` \|", text, flags=re.MULTILINE)
    assert len(names) == 5
    assert all(str(hub_name(name)) == name for name in names)
    assert [name for name in BESIDE if f"`{name}`" not in text] == []
