"""Text files to token ids, checked: nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, InputError
from ..models.text import read_texts
from ..runtime.model import Model
from ..runtime.tokenizer import TextTokenizer

Ids = npt.NDArray[np.int64]


class EncodedText(NamedTuple):
    """Token ids `[T]`, and the UTF-8 bytes they stand for."""

    ids: Ids
    bytes: int


def read_ids(paths: Sequence[str | Path], model: Model) -> EncodedText:
    """Encode text files (a directory: every `*.txt` in it) with a bundle's tokenizer, line by line.

    Raises:
        ConfigError: no text, a file that is empty or not UTF-8, or a bundle without tokenizer.
        InputError: the tokenizer loses characters, or gives ids the model does not know.
    """
    if not paths:
        raise ConfigError("no text was given; name files that are like what the model will read")
    if model.tokenizer is None:
        raise ConfigError(f"{model.bundle.path} has no tokenizer, so it can't read text; convert the checkpoint with one")
    lines = [line for path in paths for text in _read(path) for line in text.splitlines(keepends=True)]
    if not any(line.strip() for line in lines):
        raise ConfigError(f"the text is empty: {', '.join(str(path) for path in paths)}; give files with words in them")
    _check_lossless(model.tokenizer, lines)
    ids = np.concatenate([np.asarray(model.tokenizer.encode(line), np.int64) for line in lines])
    _check_vocabulary(ids, model.manifest.model.vocab_size)
    return EncodedText(ids, sum(len(line.encode()) for line in lines))


def windows(ids: Ids, length: int) -> Iterator[Ids]:
    """Consecutive windows of `length` tokens; the last may be shorter, but never a single token, which predicts nothing."""
    for start in range(0, len(ids), length):
        window = ids[start : start + length]
        if len(window) > 1:
            yield window


def spread(ids: Ids, length: int, limit: int | None) -> list[Ids]:
    """The windows of a text, or `limit` of them at even distances.

    Raises:
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit is {limit} windows, expected at least 1, or None for all")
    found = list(windows(ids, length))
    return found if limit is None else evenly(found, limit)


def evenly(found: Sequence[Ids], most: int) -> list[Ids]:
    """At most so many of these windows, at even distances."""
    return [found[index] for index in np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)]


def _read(path: str | Path) -> list[str]:
    try:
        return read_texts([Path(path)])
    except UnicodeDecodeError as error:
        raise ConfigError(f"the text at {path} is not UTF-8 ({error}); convert it, for instance with iconv") from error


def _check_lossless(tokenizer: TextTokenizer, lines: Sequence[str]) -> None:
    for line in lines:
        if (back := tokenizer.decode(tokenizer.encode(line))) != line:
            raise InputError(
                f"the tokenizer can't encode the text: {line[:60]!r} comes back as {back[:60]!r}; "
                "use the tokenizer the model was trained with, or other text"
            )


def _check_vocabulary(ids: Ids, vocab_size: int) -> None:
    highest = int(ids.max())
    if highest >= vocab_size:
        raise InputError(
            f"the tokenizer gives id {highest}, the model knows {vocab_size} tokens; this is not the model's tokenizer"
        )
