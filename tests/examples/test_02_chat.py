"""examples/02_chat.py: what is said, taken back, said again and kept."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from precisions import PrecisionZoo

import foveal

Example = Callable[[str], ModuleType]
Chatting = Callable[..., list[str]]


@pytest.fixture
def chatting(example: Example, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chatting:
    """Pipe lines into the program; what it printed after each."""

    def chat(*lines: str, options: tuple[str, ...] = ()) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        example("02_chat").main(["--bundle", str(bundle), "--threads", "1", "--tokens", "13", *options])
        return [part.partition("\n")[2].strip("\n") for part in re.split(r"^> ", capsys.readouterr().out, flags=re.M)[1:-1]]

    return chat


def reply(printed: str) -> str:
    """Without the line in brackets, which says where the session stands."""
    return printed.rpartition("\n[")[0]


def test_replies_are_what_the_model_goes_on_with(chatting: Chatting, model: foveal.Model) -> None:
    """After all that was said before."""
    first, second = chatting("It was late.", "He said")
    text = "".join(model.generate("It was late.", max_new_tokens=13, temperature=0.6, seed=1))
    assert reply(first) == text.strip("\n")
    ids = [
        *model.prompt_ids("It was late."),
        *model.generate_ids("It was late.", params(model)),
        *model.prompt_ids("\nHe said"),
    ]
    assert reply(second) == "".join(model.generate(ids, max_new_tokens=13, temperature=0.6, seed=1)).strip("\n")
    assert second.endswith(f"[at {len(ids) + 13} of 512 tokens]")


def params(model: foveal.Model) -> foveal.SamplingParams:
    """Those of the tests."""
    return foveal.SamplingParams(max_new_tokens=13, temperature=0.6, seed=1)


def test_an_exchange_that_was_taken_back_never_was(chatting: Chatting) -> None:
    """The same line gets the same reply then, wherever in the text."""
    first, second, undone, again = chatting("It was late.", "He said", "/undo", "He said")
    assert again == second != first
    assert re.fullmatch(r"\[took \d+ tokens back, read none again; at \d+ of 512 tokens\]", undone)


def test_it_is_so_in_the_middle_of_every_stride(chatting: Chatting, precise: PrecisionZoo) -> None:
    """Of a model of several scales: exchanges begin and end at odd places."""
    options = ("--bundle", str(precise["nested"].full.path), "--tokens", "5")
    first, second, undone, again = chatting("It was", "He", "/undo", "He", options=options)
    assert again == second != first
    assert re.search(r"phase 1 of 2, [1-5] of 6\]$", undone)


def test_another_reply_has_another_seed(chatting: Chatting) -> None:
    """And is what the model goes on with, with that seed, after the same line."""
    first, again, other = chatting("It was late.", "/again", "/again")
    assert len({first, again, other}) == 3
    (second,) = chatting("It was late.", options=("--seed", "2"))
    assert again == second


def test_what_was_saved_is_gone_on_from(chatting: Chatting, tmp_path: Path) -> None:
    """In this process, exchanges and all; in another one, the text."""
    folder = ("--store", str(tmp_path / "chats"))
    lines = ("It was late.", "/save one", "He said", "/load one", "He said", "/undo", "/text")
    first, _, second, _, again, _, text = chatting(*lines, options=folder)
    assert again == second
    assert text == f"It was late.{reply(first)}"
    loaded, undone, same = chatting("/load one", "/undo", "He said", options=folder)
    assert loaded.startswith('[load "one"')
    assert "not known" in undone
    assert same == second


def test_what_can_t_be_done_is_said_and_the_chat_goes_on(chatting: Chatting) -> None:
    """Each in a line in brackets."""
    found = chatting("/undo", "/again", "/load two", "/save", "/sing", "word " * 600, "It was late.")
    for printed, said in zip(
        found, ("no exchange", "no exchange", "nothing is saved", "a name", "no command", "512"), strict=False
    ):
        assert printed.startswith("[")
        assert printed.count("\n") == 0
        assert said in printed
    assert found[-1].endswith("of 512 tokens]")


def test_settings_that_can_t_be_are_refused(example: Example) -> None:
    """Before anything is loaded."""
    with pytest.raises(foveal.InputError, match="temperature is -1.0"):
        example("02_chat").main(["--temperature", "-1"])
