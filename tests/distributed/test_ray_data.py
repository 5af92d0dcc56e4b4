"""`foveal generate --ray FILES`: whatever is killed, every line of the input has one line in the output."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from jobs import prompts, records
from ray_commands import RayCommand, descendants, is_there

from foveal import load
from foveal.bundle import Bundle

LINES, TOKENS = 160, 90


def test_a_job_whose_driver_and_an_actor_are_killed(turn: Path, bundle: Bundle, tmp_path: Path) -> None:
    """The driver half-way, then an actor of the command that goes on: the outputs are those of `generate`, in order."""
    files = [prompts(tmp_path / f"{name}.txt", LINES // 2) for name in ("a", "b")]
    out, settings = tmp_path / "out", ("--max-new-tokens", TOKENS, "--temperature", 0, "--threads", 1)
    spread = ("--part-lines", 10, "--slots", 4, "--actors", 2, "--cpus-per-actor", 0.5)
    command = ("generate", bundle.path, "--ray", *files, "--out", out, *settings, *spread)

    killed = RayCommand(turn, tmp_path / "first", *command)
    try:
        killed.wait_until(lambda: written(out) >= 4)
        started = descendants(killed.process.pid)
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
        kept = parts(out)
        assert 4 <= len(kept) < LINES // 10
    finally:
        killed.end(started)

    resumed = RayCommand(turn, tmp_path / "second", *command)
    try:
        resumed.wait_until(lambda: written(out) > len(kept))
        actor = resumed.processes("ray::MapWorker")[0]
        os.kill(actor, signal.SIGKILL)
        assert resumed.finished() == 0, resumed.said
    finally:
        resumed.end()
    assert not is_there(actor)

    model = load(bundle, threads=1)
    for file in files:
        found = records(out / f"{file.name}.jsonl")
        assert [one["line"] for one in found] == list(range(1, LINES // 2 + 1))
        assert not any("error" in one for one in found)
        for one in found[::20]:
            assert one["text"] == "".join(model.generate(f"{file.stem} {one['line']}", max_new_tokens=TOKENS, temperature=0))
    total = json.loads((out / "summary.json").read_bytes())["total"]
    assert (total["lines"], total["errors"], total["texts"]) == (LINES, 0, LINES)


def parts(out: Path) -> list[Path]:
    """What is written of files that are not done."""
    return sorted((out / ".foveal-job").glob("[0-9]*/*.jsonl"))


def written(out: Path) -> int:
    """Parts that are done, those of whole files among them."""
    return len(parts(out)) + sum(len(records(one)) // 10 for one in out.glob("*.jsonl"))
