"""examples/05_typing_assistant.py: what is suggested, and the keys that take it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import foveal

TEXT = "It was a dark night, and the"


@pytest.fixture
def module(example: Callable[[str], ModuleType]) -> ModuleType:
    """The example."""
    return example("05_typing_assistant")


@pytest.fixture
def assistant(module: ModuleType, model: foveal.Model) -> Any:
    """One that has read nothing."""
    return module.Assistant(model)


def test_a_suggestion_is_the_same_whatever_the_session_has_read(
    assistant: Any, module: ModuleType, model: foveal.Model
) -> None:
    """Typed letter by letter, with a word taken back: as of one that sees the text for the first time."""
    for length in (*range(4, len(TEXT)), 12, 9, *range(9, len(TEXT) + 1)):
        found = assistant.suggest(TEXT[:length])
    fresh = module.Assistant(model).suggest(TEXT)
    assert found.text == fresh.text != ""
    assert fresh.read == fresh.tokens
    assert found.read == 1


def test_only_what_is_new_is_read(assistant: Any, model: foveal.Model) -> None:
    """A word, while the text grows at its end; from the change on, if it changes in its middle."""
    first = assistant.suggest(TEXT)
    assert first.read == first.tokens == len(model.prompt_ids(TEXT)) - 1
    grown = assistant.suggest(f"{TEXT} man was")
    assert grown.read <= 3 < grown.tokens
    changed = assistant.suggest(f"{TEXT.replace('dark', 'cold')} man was")
    assert changed.read == changed.tokens - len(model.prompt_ids("It was a"))


def test_the_text_that_is_written_is_gone_on_with(assistant: Any, model: foveal.Model) -> None:
    """In the middle of a word its end is suggested, and never another word: with what is written, tokens the model knows."""
    for text in ("It was a dark nig", "It was a d", "It was a dark ", "He was goi", "It wa"):
        found = assistant.suggest(text)
        assert found.text
        assert not found.text.startswith(" ") or not text.endswith(" ")
    assert assistant.suggest("She shook her hea").text.startswith("d")


def test_long_texts_are_followed_in_large_steps(assistant: Any, model: foveal.Model) -> None:
    """Their beginning is left out, and only now and then another part of it, after which all the rest is read anew."""
    words = ("the sea and the ship were old " * 200).split(" ")
    reads = []
    for count in range(600, 900, 10):
        found = assistant.suggest(" ".join(words[:count]))
        assert found.tokens <= model.manifest.model.context
        reads.append(found.read)
    assert sum(read > 100 for read in reads) <= 4
    assert int(np.median(reads)) <= 12


def test_one_that_is_cancelled_leaves_the_session_fit_for_the_next(
    assistant: Any, module: ModuleType, model: foveal.Model
) -> None:
    """After the token that is being computed."""
    calls = iter([False, False, True])
    assert assistant.suggest(TEXT, lambda: next(calls)) is None
    assert assistant.suggest(TEXT).text == module.Assistant(model).suggest(TEXT).text


def test_nothing_is_suggested_after_nothing(assistant: Any) -> None:
    """A model needs a token to begin with; a first word is gone on with as it is."""
    assert assistant.suggest("").text == ""
    assert assistant.suggest("He").text.startswith(" ")


def piloted(module: ModuleType, assistant: Any, steps: Callable[[Any, Any], Awaitable[None]], **arguments: Any) -> Any:
    """Run the app without a terminal, and these steps in it."""

    async def run() -> Any:
        app = module.TypingAssistant(assistant, pause=0.01, **arguments)
        async with app.run_test(size=(90, 12)) as pilot:
            await steps(app, pilot)
        return app

    return asyncio.run(run())


async def typed(app: Any, pilot: Any, text: str) -> Any:
    """Type, and wait until a suggestion for the text is there; returns the editor."""
    editor, before = app.query_one("Editor"), app.made
    await pilot.press(*("space" if letter == " " else letter for letter in text))
    await suggested(app, pilot, before)
    return editor


async def suggested(app: Any, pilot: Any, before: int) -> None:
    """Wait until one more suggestion is made."""
    until = time.monotonic() + 20
    while app.made == before:
        assert time.monotonic() < until, "no suggestion came"
        await pilot.pause(0.02)
    await app.workers.wait_for_complete()
    await pilot.pause(0.03)


def test_keys_take_a_word_or_all_or_nothing(module: ModuleType, assistant: Any, model: foveal.Model) -> None:
    """Tab, Right and Escape."""

    async def steps(app: Any, pilot: Any) -> None:
        editor = await typed(app, pilot, " man")
        text = editor.text
        assert text == f"{TEXT} man"
        found = module.Assistant(model).suggest(text).text
        assert editor.suggestion == found
        word = found[: len(found) - len(found.lstrip())] + found.split()[0]

        before = app.made
        await pilot.press("tab")
        assert editor.text == text + word
        assert editor.suggestion == found[len(word) :]  # at once, before another is made
        await suggested(app, pilot, before)
        whole, before = editor.text + editor.suggestion, app.made
        await pilot.press("right")
        assert editor.text == whole
        await suggested(app, pilot, before)
        await typed(app, pilot, " and")
        kept = editor.text
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert (editor.suggestion, editor.text) == ("", kept)
        assert "dropped" in str(app.query_one("Status").render())

    piloted(module, assistant, steps, text=TEXT)


def test_the_line_at_the_bottom_says_what_was_read(module: ModuleType, assistant: Any) -> None:
    """And how long it took."""

    async def steps(app: Any, pilot: Any) -> None:
        await typed(app, pilot, " man")
        await typed(app, pilot, " was")
        said = str(app.query_one("Status").render())
        read, tokens = (int(word) for word in said.split(" tokens read")[0].split(" of "))
        assert read <= 3 < tokens
        assert said.endswith(" ms")

    piloted(module, assistant, steps, text=TEXT)


def test_nothing_is_suggested_in_the_middle_of_a_line(module: ModuleType, assistant: Any) -> None:
    """There would be no place for it."""

    async def steps(app: Any, pilot: Any) -> None:
        editor = await typed(app, pilot, " man")
        assert editor.suggestion
        await pilot.press("left", "left")
        assert editor.suggestion == ""
        await pilot.press("x")
        await pilot.pause(0.2)
        assert editor.suggestion == ""
        before = app.made
        await pilot.press("end")
        await suggested(app, pilot, before)
        assert editor.suggestion
        assert editor.text == f"{TEXT} mxan"

    piloted(module, assistant, steps, text=TEXT)


def test_the_text_is_saved_and_given_back(module: ModuleType, assistant: Any, tmp_path: Path) -> None:
    """Ctrl+S to its file, Ctrl+Q at the end."""

    async def steps(app: Any, pilot: Any) -> None:
        await pilot.press("x", "ctrl+s", "y", "ctrl+q")

    app = piloted(module, assistant, steps, text=TEXT, file=tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == f"{TEXT}x"
    assert app.return_value == f"{TEXT}xy"


def test_what_can_t_be_is_refused(module: ModuleType, model: foveal.Model, tmp_path: Path) -> None:
    """In a line."""
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(foveal.InputError, match="image.png can't be read"):
        module.main(["--file", str(tmp_path / "image.png")])
    for tokens in (0, 65):
        with pytest.raises(foveal.InputError, match=f"suggestions of {tokens} tokens, expected 1 to 64"):
            module.Assistant(model, tokens)
