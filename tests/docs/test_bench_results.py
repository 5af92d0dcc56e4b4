"""What docs/bench-results.md tells one to type, typed with small models; and what it says of files."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from jobs import bytes_bundle
from store import Store

from foveal import cli
from foveal.bench import bandwidth
from foveal.bench.result import BENCH_SCHEMA_VERSION, BenchResult, ModelResult
from foveal.bench.samples import Sample, Token

PAGE = (Path(__file__).parent.parent.parent / "docs" / "bench-results.md").read_text(encoding="utf-8")
SMALL = "--prompt-tokens 8 --new-tokens 8 --threads 1"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """A command, in this process; its exit code."""
    monkeypatch.setattr(cli, "own_process", lambda: None)
    monkeypatch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
    monkeypatch.setattr("foveal.bench.run._peak_bytes", lambda _model, _work: 1)

    def command(line: str) -> int:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    return command


def test_the_commands_and_the_program_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """With less to do; the third one says what changed, with one of its exit codes."""
    monkeypatch.chdir(tmp_path)
    for name in ("big.bundle", "small.bundle"):
        Path(name).symlink_to(bytes_bundle(store).path)
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    bench, sweep, diff = commands.splitlines()
    assert run(f"{bench} {SMALL}") == run(f"{bench.replace('monday', 'tuesday')} {SMALL}") == 5  # too few steps for p99
    assert run(sweep.replace("128,1024", "4,8") + " --new-tokens 4") == 0
    capsys.readouterr()
    assert run(diff) in (0, 6)
    assert "figures changed beyond noise" in capsys.readouterr().out
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(program, "docs/bench-results.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.count("big.bundle phase") == 4


def test_its_line_is_a_sample() -> None:
    """Of a token."""
    (line,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    assert isinstance(msgspec.json.decode(line, type=Sample), Token)


def test_its_fields_are_there() -> None:
    """And the version is the one that is written."""
    assert f"`schema_version` {BENCH_SCHEMA_VERSION}" in PAGE
    table = PAGE.split("## The file of")[1].split("\n## ")[0]
    first = [
        cell for line in table.splitlines() if line.startswith("| `") for cell in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    names = {name.split(".")[-1].removesuffix("[]") for name in first}
    assert names <= {*BenchResult.__struct_fields__, *ModelResult.__struct_fields__}
