"""`foveal generate --files`: the words of the command; what it does is tested where it is done (tests/offline)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs import bytes_bundle, prompts, records
from store import Store


@pytest.fixture
def given(store: Store, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A bundle, a file of prompts, and a folder for what comes."""
    return bytes_bundle(store).path, prompts(tmp_path / "a.txt", 5), tmp_path / "out"


SHORT = ("--max-new-tokens", "4", "--temperature", "0", "--threads", "1")


def test_files_are_continued(foveal, given: tuple[Path, Path, Path]) -> None:
    """A line says what came of it; the same command again has nothing to do."""
    bundle, file, out = given
    for _ in range(2):
        code, said, err = foveal("generate", bundle, "--files", file, "--out", out, *SHORT)
        assert (code, said) == (0, f"{out}: 5 lines, 20 new tokens (5 length)\n")
        assert "generate: lines, 5 of 5" in err
    assert len(records(out / "a.txt.jsonl")) == 5


def test_files_are_scored(foveal, given: tuple[Path, Path, Path]) -> None:
    """In bits per byte, of each line and of all."""
    bundle, file, out = given
    code, said, _ = foveal("generate", bundle, file, "--files", "--eval", "--out", out, "--threads", "1")
    total = json.loads((out / "summary.json").read_bytes())["total"]
    assert code == 0
    assert said == (
        f"{out}: 5 lines, 15 tokens, {total['bits_per_byte']:.4f} bits per byte, {total['nats_per_token']:.4f} nats per token\n"
    )


def test_lines_that_fail_are_counted(foveal, given: tuple[Path, Path, Path]) -> None:
    """The others are done."""
    bundle, file, out = given
    file.write_text("It was\n\nShe said\n")
    code, said, err = foveal("generate", bundle, "--files", file, "--out", out, *SHORT)
    assert (code, said) == (0, f"{out}: 3 lines, 8 new tokens (2 length)\n")
    assert "1 line failed; their outputs say why" in err


def test_advice_is_in_the_words_of_the_command(foveal, given: tuple[Path, Path, Path]) -> None:
    """No option is ignored."""
    bundle, file, out = given
    for arguments, reason in (
        ((file, file), "got 2 prompts, expected one: put it in quotes; for files of prompts add --files, or --ray"),
        (("--files", file), "files of prompts take --out"),
        (("--files", "--out", out), "no files of prompts"),
        ((file, "--out", out), "--out does nothing here: it takes --files, or --ray"),
        (("--files", file, "--out", out, "--actors", "2"), "--actors does nothing here: it takes --ray"),
        (("--files", "--ids", "1", "--out", out), "--ids does nothing here"),
        (("--files", file, "--eval", "--seed", "1", "--out", out), "--seed does nothing here: it takes no --eval"),
        (("--files", file, "--out", out, "--end", "999"), "expected 0 <= id < 256"),
        (("--ray", file, "--out", out, "--actors", "2", "--cpus-per-actor", "-1"), "an actor can't reserve -1 CPUs"),
    ):
        code, said, err = foveal("generate", bundle, *arguments, "--threads", "1")
        assert (code, said) == (1, "")
        assert reason in err.splitlines()[-1]
