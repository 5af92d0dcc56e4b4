"""A loop like a chat's: your lines and the model's go into one session, and any exchange can be taken back.

    python examples/02_chat.py
    printf 'It was late.\\n/again\\n/undo\\n' | python examples/02_chat.py

Each line that you give is appended to the session, and what the model goes on with is printed as it is drawn. The models that
come with foveal have read books: they go on with a story, they do not answer. Commands:

    /undo        take the last exchange back; exact at any phase of the strides, and nothing is read again
    /again       draw the last reply anew, with another seed; your line is not read again
    /save NAME   keep a copy of the session; with --store FOLDER it is there when the program is started again
    /load NAME   go on from a copy
    /text        all that the session holds
    /quit        end (as the end of the input does)

After each reply it says, in brackets, where the session stands; after each command, what that cost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from common import model_at, parser_of, run

import foveal
from foveal.runtime.sampling import Sampler
from foveal.runtime.text import TextStream


@dataclass
class Exchange:
    """A line and its reply in the session.

    Attributes:
        start: tokens that the session held before the line.
        middle: and after it.
        logits: after the line, `[V]`: what a reply begins from.
        seed: of the reply.
    """

    start: int
    middle: int
    logits: npt.NDArray[np.float32]
    seed: int


@dataclass
class Chat:
    """One session, and where its exchanges begin.

    Attributes:
        saved: exchanges of what was saved by this process, by name; of other copies only the tokens are known.
    """

    model: foveal.Model
    store: foveal.SessionStore
    tokens: int
    temperature: float
    seed: int
    exchanges: list[Exchange] = field(default_factory=list)
    saved: dict[str, list[Exchange]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.session = self.model.session()
        self.tokenizer = self.model.required_tokenizer()

    def say(self, line: str) -> Iterator[str]:
        """Append a line; gives the reply, piece by piece.

        Raises:
            CapacityError: the session has no room for the line; it is as it was.
        """
        start = self.session.position
        ids = self.model.prompt_ids(f"\n{line}" if start else line)
        logits = self.session.advance([ids], last_only=True)[0, -1]
        self.exchanges.append(Exchange(start, self.session.position, logits, self.seed))
        return self._reply()

    def again(self) -> Iterator[str]:
        """Draw the last reply anew."""
        exchange = self._last()
        self.session.rewind(self.session.position - exchange.middle)
        exchange.seed += 1
        return self._reply()

    def undo(self) -> int:
        """Take the last exchange back; returns how many tokens that were."""
        exchange = self._last()
        count = self.session.position - exchange.start
        self.session.rewind(count)
        self.exchanges.pop()
        return count

    def save(self, name: str) -> None:
        """Keep a copy of the session."""
        self.store.put(name, self.session)
        self.saved[name] = list(self.exchanges)

    def load(self, name: str) -> None:
        """Go on from a copy."""
        if not self.store.restore(name, self.session):
            raise foveal.InputError(f'nothing is saved as "{name}"; there is: {", ".join(self.store.keys()) or "nothing"}')
        self.exchanges = list(self.saved.get(name, []))

    def text(self) -> str:
        """All that the session holds."""
        return self.tokenizer.decode(self.session.tokens[0].tolist())

    def _last(self) -> Exchange:
        if not self.exchanges:
            raise foveal.InputError("there is no exchange to take back; those before a /load in another process are not known")
        return self.exchanges[-1]

    def _reply(self) -> Iterator[str]:
        """Every token that is drawn is appended, so that the session always holds what was shown."""
        exchange, text = self.exchanges[-1], TextStream(self.tokenizer)
        sampler, logits = Sampler(foveal.SamplingParams(temperature=self.temperature, seed=exchange.seed)), exchange.logits
        for _ in range(min(self.tokens, self.session.capacity - self.session.position)):
            token = sampler.sample(logits, self.session.tokens[0])
            logits = self.session.advance([[token]], last_only=True)[0, -1]
            yield text.push(token)
        yield text.finish()


def answer(chat: Chat, line: str) -> None:
    """Do what a line asks for, and print what comes of it."""
    command, _, name = line.partition(" ")
    if not line.startswith("/"):
        show(chat, chat.say(line))
    elif command == "/again":
        show(chat, chat.again())
    elif command == "/undo":
        count = chat.undo()
        print(f"[took {count} tokens back, read none again{standing(chat)}]")
    elif command in ("/save", "/load"):
        if not name:
            raise foveal.InputError(f"{command} needs a name, as in {command} one")
        (chat.save if command == "/save" else chat.load)(name)
        print(f'[{command[1:]} "{name}", {chat.store.statistics.memory_bytes:,} bytes in memory{standing(chat)}]')
    elif command == "/text":
        print(chat.text())
    else:
        raise foveal.InputError(f'there is no command "{command}"; there are /undo, /again, /save, /load, /text and /quit')


def show(chat: Chat, pieces: Iterator[str]) -> None:
    """Print a reply as it comes."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print(f"\n[{standing(chat).removeprefix('; ')}]")


def standing(chat: Chat) -> str:
    """Where the session stands, in its context and in each stride."""
    position, strides = chat.session.position, sorted({spec.stride for spec in chat.session.specs} - {1})
    phases = ", ".join(f"{position % stride} of {stride}" for stride in strides)
    return f"; at {position} of {chat.session.capacity} tokens" + (f", phase {phases}" if phases else "")


def lines() -> Iterator[str]:
    """Of the input: a terminal is asked, of anything else each line is shown."""
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if not sys.stdin.isatty():
            print(line)
        if line == "/quit":
            return
        if line:
            yield line


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser: argparse.ArgumentParser = parser_of("02_chat.py", __doc__ or "")
    parser.add_argument("--tokens", type=int, default=32, help="of a reply (32)")
    parser.add_argument("--temperature", type=float, default=0.6, help="0: always the likeliest token (0.6)")
    parser.add_argument("--seed", type=int, default=1, help="of replies; /again takes the next (1)")
    parser.add_argument("--store", metavar="FOLDER", help="where saved sessions are kept (in memory)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Chat until the input ends."""
    wanted = arguments(given)
    foveal.SamplingParams(temperature=wanted.temperature, seed=wanted.seed, max_new_tokens=wanted.tokens)  # checks them
    model: foveal.Model = model_at(wanted.bundle, wanted.threads)
    with foveal.SessionStore(model, memory_bytes=1 << 30, directory=wanted.store) as store:
        chat = Chat(model, store, wanted.tokens, wanted.temperature, wanted.seed)
        for line in lines():
            try:
                answer(chat, line)
            except foveal.FovealError as error:
                print(f"[{error}]")


if __name__ == "__main__":
    run(main)
