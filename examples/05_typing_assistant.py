"""A typing assistant in the terminal: as you write, what may come next stands in grey behind the cursor.

    pip install -e '.[cpu,export,examples]'
    python examples/05_typing_assistant.py [--file letter.txt]

    Tab      take a word of it          Right    take all
    Escape   drop it                    Ctrl+Q   end (Ctrl+S saves, with --file)

An editor's text changes in its middle and at its end, and a model has to be where the text is. Here one session is kept in
step: it is rewound to the tokens that it has in common with the text, at any phase of the strides and for free, and reads only
what is new. The line at the bottom shows what that saves: tokens of the text, how many of them were read for this suggestion,
and how long it took. Suggestions are computed in a thread; a key that is pressed meanwhile cancels them after the token that is
being computed.

A text ends in the middle of a word most of the time, where its last tokens are not those that the model knows the word by:
"morn" may be one token, and "morning" another. So those of the last word are left out, and chosen anew, among the tokens that
begin as what is written does (token healing).
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from common import model_at, parser_of, run

import foveal

try:
    from textual.app import App, ComposeResult
    from textual.binding import Binding, BindingType
    from textual.message import Message
    from textual.timer import Timer
    from textual.widgets import Footer, Static, TextArea
    from textual.worker import get_current_worker
except ModuleNotFoundError as error:
    sys.exit(f"05_typing_assistant.py: {error.name} is not installed; pip install -e '.[examples]' in foveal's folder")


BROKEN = "\ufffd"
"""What a token of a part of a character looks like by itself."""
ENDS = re.compile(r"[.!?\n]")


@dataclass(frozen=True)
class Suggestion:
    """What may come after a text, and what it took.

    Attributes:
        text: to be appended; may be empty.
        tokens: of the text before the word that it completes, as far as the model sees them.
        read: how many of these were read for it; the session knew the others.
        drawn: tokens of that word and of what comes after it.
        seconds: that it took.
    """

    text: str
    tokens: int
    read: int
    drawn: int
    seconds: float


class Assistant:
    """Suggests what comes after a text, in one session. One thread at a time is in it; another waits.

    Args:
        model: of text.
        tokens: of a suggestion, and then as many as end the word.

    Raises:
        InputError: no tokens, or more than the model has room for beside a text.
        ConfigError: the model has no tokenizer.
    """

    def __init__(self, model: foveal.Model, tokens: int = 8) -> None:
        most = model.manifest.model.context // 8
        if not 1 <= tokens <= most:
            raise foveal.InputError(f"suggestions of {tokens} tokens, expected 1 to {most} with this model")
        self.tokens, self.tokenizer, self.session = tokens, model.required_tokenizer(), model.session()
        self._pieces = [self.tokenizer.decode([token]) for token in range(model.manifest.model.vocab_size)]
        self._turn = threading.Lock()

    def suggest(self, text: str, is_cancelled: Callable[[], bool] = lambda: False) -> Suggestion | None:
        """What may come next; None: it was cancelled, which leaves the session where it is.

        Raises:
            FovealError: the engines refuse a call.
        """
        with self._turn:
            began, (known, begun) = time.perf_counter(), self._split(self._window(self.tokenizer.encode(text)))
            if not known or is_cancelled():
                return None if known else Suggestion("", 0, 0, 0, time.perf_counter() - began)
            logits, read = self._follow(known)
            drawn: list[int] = []
            while len(drawn) < 3 * self.tokens:
                written = self._text(drawn)
                token = int(np.where(self._continuing(begun[len(written) :]), logits, -np.inf).argmax())
                piece = self._pieces[token]
                if BROKEN in piece or (len(drawn) >= self.tokens and not piece[:1].isalnum()):
                    break  # part of a character, or the word before it is whole
                drawn.append(token)
                if is_cancelled():
                    return None
                if self.session.position == self.session.capacity or ENDS.search((written + piece)[len(begun) :]):
                    break
                logits = self.session.advance([[token]], last_only=True)[0, -1]
            suggested = self._text(drawn)[len(begun) :].partition("\n")[0].rstrip(" ")
            return Suggestion(suggested, len(known), read, len(drawn), time.perf_counter() - began)

    def _split(self, ids: list[int]) -> tuple[list[int], str]:
        """The ids that stay, and the text of those of the last word, which are chosen anew together with what comes."""
        place = len(ids) - 1
        while place > 0 and not self._pieces[ids[place]][:1].isspace():
            place -= 1
        begun = self._text(ids[place:])
        return (ids, "") if place < 1 or BROKEN in begun else (ids[:place], begun)

    def _text(self, ids: Sequence[int]) -> str:
        return "".join(self._pieces[token] for token in ids)

    def _continuing(self, begun: str) -> npt.NDArray[np.bool_]:
        """Tokens that may come where this is written already, `[V]`: all that go on as it does."""
        if not begun:
            return np.ones(len(self._pieces), np.bool_)
        fits = [bool(piece) and (piece.startswith(begun) or begun.startswith(piece)) for piece in self._pieces]
        return np.array(fits, np.bool_)

    def _window(self, ids: list[int]) -> list[int]:
        """The end of a text that is longer than the context; it moves in large steps, as all after it is read anew then."""
        room, step = self.session.capacity - 3 * self.tokens, self.session.capacity // 4
        return ids[max(0, -(-(len(ids) - room) // step) * step) :]

    def _follow(self, ids: list[int]) -> tuple[npt.NDArray[np.float32], int]:
        """Bring the session to these ids; the logits after them `[V]`, and how many were read for that."""
        seen = self.session.tokens[0][: len(ids)]
        differs = np.flatnonzero(seen != ids[: len(seen)])
        common = min(int(differs[0]) if differs.size else len(seen), len(ids) - 1)  # the last one gives the logits
        try:
            self.session.rewind(self.session.position - common)
        except foveal.InputError:  # a retina model, which has compacted what it would need
            self.session.reset()
            common = 0
        return self.session.advance([ids[common:]], last_only=True)[0, -1], len(ids) - common


class Editor(TextArea):
    """A text, and what may come next behind its cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "take_word", "take a word"),
        Binding("right", "cursor_right", "take all", show=True),
        Binding("escape", "drop", "drop"),
    ]

    class Moved(Message):
        """The text, or the place in it, is another one than before."""

    def on_mount(self) -> None:
        """Begin at the end of the text."""
        self._expected = ""
        self.move_cursor(self.document.end)

    @property
    def before(self) -> str:
        """The text up to the cursor, if a suggestion can stand there: at the end of a line, and nothing is selected."""
        row, column = self.cursor_location
        if not self.selection.is_empty or column < len(self.document.get_line(row)):
            return ""
        return self.get_text_range((0, 0), (row, column))

    def suggest(self, before: str, text: str) -> None:
        """Show what may come after a text, unless it has changed."""
        if before == self.before:
            self.suggestion, self._expected = text, before + text

    def update_suggestion(self) -> None:
        """Keep what is left of a suggestion that is being typed, and nothing of another; `TextArea` calls it after edits."""
        before = self.before
        if self.suggestion and not (before and self._expected == before + self.suggestion):
            self.suggestion = ""
        self.post_message(self.Moved())

    def on_text_area_selection_changed(self) -> None:
        """Wherever the cursor goes."""
        self.update_suggestion()

    def action_take_word(self) -> None:
        """Insert the suggestion up to the end of its first word."""
        word = re.match(r"\s*\S+", self.suggestion)
        if word:
            self.insert(word.group())

    def action_drop(self) -> None:
        """Until the text changes."""
        self.suggestion = ""
        self.app.query_one(Status).update("dropped; type on")


class Status(Static):
    """The line at the bottom."""


class Suggested(Message):
    """A thread has something to show."""

    def __init__(self, before: str, found: Suggestion | foveal.FovealError) -> None:
        super().__init__()
        self.before, self.found = before, found


class TypingAssistant(App[str]):
    """The app; it ends with the text.

    Args:
        assistant: makes the suggestions.
        text: to begin with.
        file: where Ctrl+S saves; None: nowhere.
        pause: seconds without a key after which a suggestion is made.
    """

    TITLE = "foveal: typing assistant"
    CSS = """
    Editor { border: none; padding: 1 2; }
    Editor .text-area--suggestion { color: $foreground 45%; }
    Status { height: 1; padding: 0 2; color: $text-muted; background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s", "save", "save", show=False), Binding("ctrl+q", "leave", "end")]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, assistant: Assistant, text: str = "", file: Path | None = None, pause: float = 0.05) -> None:
        super().__init__()
        self.assistant, self.file, self.pause = assistant, file, pause
        self.made = 0
        self._first_text = text
        self._waiting: Timer | None = None

    def compose(self) -> ComposeResult:
        """Text above, what it took below."""
        yield Editor(
            self._first_text, highlight_cursor_line=False, placeholder="Write; what may come next stands behind the cursor."
        )
        yield Status("")
        yield Footer()

    def on_editor_moved(self) -> None:
        """Wait for a pause, then ask; what was asked for before is not wanted any more."""
        self.workers.cancel_group(self, "suggestions")
        if self._waiting is not None:
            self._waiting.stop()
        self._waiting = self.set_timer(self.pause, self._ask)

    def _ask(self) -> None:
        before = self.query_one(Editor).before
        if before:
            self.run_worker(partial(self._suggest, before), group="suggestions", exclusive=True, thread=True)

    def _suggest(self, before: str) -> None:
        """In a thread."""
        worker = get_current_worker()
        try:
            found: Suggestion | foveal.FovealError | None = self.assistant.suggest(before, lambda: worker.is_cancelled)
        except foveal.FovealError as error:
            found = error
        if found is not None and not worker.is_cancelled:
            self.post_message(Suggested(before, found))

    def on_suggested(self, message: Suggested) -> None:
        """Show it."""
        found, status = message.found, self.query_one(Status)
        if isinstance(found, foveal.FovealError):
            status.update(str(found))
            return
        self.made += 1
        self.query_one(Editor).suggest(message.before, found.text)
        status.update(f"{found.read} of {found.tokens} tokens read, {found.drawn} drawn: {found.seconds * 1000:.1f} ms")

    def action_save(self) -> None:
        """Write the text to its file."""
        if self.file is None:
            self.query_one(Status).update("there is no file; start with --file")
            return
        try:
            self.file.write_text(self.query_one(Editor).text, encoding="utf-8")
            self.query_one(Status).update(f"saved {self.file}")
        except OSError as error:
            self.query_one(Status).update(f"not saved: {error}")

    def action_leave(self) -> None:
        """End."""
        self.exit(self.query_one(Editor).text)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser: argparse.ArgumentParser = parser_of("05_typing_assistant.py", __doc__ or "")
    parser.add_argument("--file", type=Path, help="a text to go on with, and to save")
    parser.add_argument("--tokens", type=int, default=8, help="of a suggestion, then up to the end of its word (8)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Open the editor; the text is printed at the end."""
    wanted = arguments(given)
    text = ""
    try:
        if wanted.file is not None and wanted.file.exists():
            text = wanted.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise foveal.InputError(f"{wanted.file} can't be read: {error}") from error
    model: foveal.Model = model_at(wanted.bundle, wanted.threads)
    print(TypingAssistant(Assistant(model, wanted.tokens), text, wanted.file).run() or "")


if __name__ == "__main__":
    run(main)
