"""examples/03_asyncio.py: every user gets the text that is theirs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import foveal

TOKENS = 24


def texts(printed: str) -> dict[str, str]:
    """What each user was shown, lines joined by spaces."""
    found: dict[str, list[str]] = {}
    for name, line in re.findall(r"^(\w+) *\| (.*)$", printed, flags=re.M):
        found.setdefault(name, []).append(line)
    return {name: " ".join(lines) for name, lines in found.items()}


def words(text: str) -> list[str]:
    """Where lines were broken makes no difference."""
    return text.split()


def test_each_user_is_served_as_alone(
    example: Callable[[str], ModuleType], bundle: Path, model: foveal.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sessions go on where they stand, one leaves, and one has a deadline."""
    wanted = ["--bundle", str(bundle), "--threads", "1", "--tokens", str(TOKENS), "--seconds", "0.05"]
    example("03_asyncio").main(wanted)
    printed = capsys.readouterr().out
    shown = texts(printed)
    assert set(shown) == {"anna", "bert", "carl", "dora"}

    first = "".join(model.generate("It was late, and", max_new_tokens=TOKENS, temperature=0.6, seed=1))
    assert words(shown["anna"])[: len(words(first)) + 3] == words(f"It was late, and{first}")[: len(words(first)) + 3]
    ids = model.prompt_ids("It was late, and")
    held = len(ids) + TOKENS
    assert f"[length: {TOKENS} tokens; session at {held}]" in shown["anna"]
    assert f"[length: {TOKENS} tokens, {held} before them not read again; session at" in shown["anna"]
    sampled = foveal.SamplingParams(max_new_tokens=TOKENS, temperature=0.6, seed=1)
    all_ids = [*ids, *model.generate_ids(ids, sampled), *model.prompt_ids("\nIn the morning")]
    second = "".join(model.generate(all_ids, max_new_tokens=TOKENS, temperature=0.6, seed=1))
    assert words(shown["anna"].partition("]")[2].rpartition("[")[0]) == words(f"In the morning{second}")

    assert re.search(r"\[cancelled: 1\d tokens; session as it was\]$", shown["carl"])
    assert re.search(r"\[deadline: \d+ tokens; session (at \d+|as it was)\]$", shown["dora"])
    assert re.search(r"^6 requests, \d+ tokens in \d+ steps, firings: ", printed, flags=re.M)


def test_long_words_and_line_ends_break_lines(example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    """No text is lost, and no line is longer than it may be."""
    module = example("03_asyncio")
    lines = module.Lines("anna")
    for piece in ("one\n\ntwo ", "x" * 200, " three", "\n"):
        lines.add(piece)
    lines.end("end")
    found = texts(capsys.readouterr().out)["anna"]
    assert found.replace(" ", "") == "onetwo" + "x" * 200 + "three[end]"


def test_settings_that_can_t_be_are_refused(example: Callable[[str], ModuleType], bundle: Path) -> None:
    """By the service."""
    with pytest.raises(foveal.FovealError, match="slots"):
        example("03_asyncio").main(["--bundle", str(bundle), "--threads", "1", "--slots", "0"])
