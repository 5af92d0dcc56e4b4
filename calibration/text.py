"""What a model is to read, text or ids, as token ids; what is lost on the way is said."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, FovealWarning, InputError
from ..models.text import read_texts
from ..runtime.ids import ID_FILES, checked_ids, read_id_file
from ..runtime.ids import Ids as Ids
from ..runtime.model import Model
from ..runtime.tokenizer import ByteTokenizer, TextTokenizer

Text = str | Path | npt.NDArray[np.integer]
"""A text file, a directory of `*.txt`, a file of ids (`runtime.ids`), or ids `[T]` themselves."""
Texts = Text | Sequence[Text] | Sequence[int]
"""One of them, or any number."""


class EncodedText(NamedTuple):
    """Token ids `[T]`, and the UTF-8 bytes they stand for; None: unknown, as ids came without a tokenizer.

    `lost` shows the first line that the tokenizer does not give back, "" if it gives back all.
    """

    ids: Ids
    bytes: int | None
    lost: str = ""


def as_texts(given: Texts) -> tuple[Text, ...]:
    """A text alone is a list of one, and so is a list of numbers.

    Raises:
        ConfigError: something that is neither text nor ids.
    """
    if isinstance(given, (str, os.PathLike, np.ndarray)):
        return (given,)
    texts = tuple(given)
    if texts and all(isinstance(one, (int, np.integer)) for one in texts):
        return (np.asarray(texts),)
    for one in texts:
        if not isinstance(one, (str, os.PathLike, np.ndarray)):
            raise ConfigError(f"got {type(one).__name__} as a text, expected the path of a file, or an array of ids")
    return texts  # type: ignore[return-value]  # checked


def read_ids(texts: Texts, model: Model) -> EncodedText:
    """Ids of texts: files (a directory: every `*.txt` in it), encoded line by line, and arrays and files of ids.

    Text is UTF-8 and the same wherever it was saved: each line end is one `\\n`, a byte order mark is nothing. Only a model of
    bytes reads a file as it is.

    Raises:
        ConfigError: no text, a file that is empty or not UTF-8, or text for a bundle without tokenizer.
        InputError: ids that the model does not know, the tokenizer's among them.
    Warns:
        FovealWarning: the tokenizer does not give back every line; bytes are those of the text as it is given.
    """
    given = as_texts(texts)
    if not given:
        raise ConfigError("no text was given; name files that are like what the model will read")
    parts = [_read_one(one, model) for one in given]
    ids = np.concatenate([part.ids for part in parts])
    if not len(ids):
        raise _is_empty(given)
    counts = [part.bytes for part in parts if part.bytes is not None]
    lost = next((part.lost for part in parts if part.lost), "")
    if lost:
        warnings.warn(f"the tokenizer does not give back all of the text: {lost}; {PER_BYTE}", FovealWarning, stacklevel=2)
    return EncodedText(ids, sum(counts) if len(counts) == len(parts) else None, lost)


def require_texts(texts: Texts, has_tokenizer: bool, name: str) -> None:
    """See before long work, and before there is a model, that its texts can be read.

    Args:
        texts: as `read_ids` takes them.
        has_tokenizer: whether the model will read text.
        name: of the model, for messages.

    Raises:
        ConfigError, InputError: as `read_ids`, but for ids that the model does not know.
    """
    given = as_texts(texts)
    paths = [Path(one) for one in given if not isinstance(one, np.ndarray)]
    files, ids = [path for path in paths if path.suffix not in ID_FILES], [path for path in paths if path.suffix in ID_FILES]
    if files and not has_tokenizer:
        raise _without_tokenizer(name)
    for path in ids:
        read_id_file(path)
    if not any(text.strip() for text in read_texts(files)) and files and len(files) == len(given):
        raise _is_empty(given)


def _without_tokenizer(name: str) -> ConfigError:
    return ConfigError(
        f"{name} has no tokenizer, so it can't read text; convert the checkpoint with one, "
        f"or give ids: an array, or a file that ends in {', '.join(ID_FILES)}"
    )


def _is_empty(texts: Sequence[Text]) -> ConfigError:
    return ConfigError(f"the text is empty: {', '.join(str(one) for one in texts)}; give files with words in them")


PER_BYTE = "figures are per byte of the text as it is given"
"""What they are where a tokenizer changes the text."""


def _read_one(given: Text, model: Model) -> EncodedText:
    vocab_size = model.manifest.model.vocab_size
    if isinstance(given, np.ndarray):
        return _counted(checked_ids(given, vocab_size), model.tokenizer)
    path = Path(given)
    if path.suffix in ID_FILES:
        return _counted(checked_ids(read_id_file(path), vocab_size, str(path)), model.tokenizer)
    if model.tokenizer is None:
        raise _without_tokenizer(str(model.bundle.path))
    lines = _lines([path], model.tokenizer)
    if not any(line.strip() for line in lines):
        return EncodedText(np.empty(0, np.int64), 0)
    ids = np.concatenate([np.asarray(model.tokenizer.encode(line), np.int64) for line in lines])
    if not len(ids):
        raise InputError(f"the tokenizer gives no ids for {path}; is it the model's?")
    _check_vocabulary(ids, vocab_size)
    return EncodedText(ids, sum(len(line.encode()) for line in lines), _lost(model.tokenizer, lines))


def _lines(paths: Sequence[Path], tokenizer: TextTokenizer) -> list[str]:
    texts = read_texts(paths, as_it_is=isinstance(tokenizer, ByteTokenizer))
    return [line for text in texts for line in text.splitlines(keepends=True)]


def _counted(ids: Ids, tokenizer: TextTokenizer | None) -> EncodedText:
    """Ids, and the bytes of the text they are, if that is known."""
    return EncodedText(ids, None if tokenizer is None else len(tokenizer.decode(ids.tolist()).encode()))


def _lost(tokenizer: TextTokenizer, lines: Sequence[str]) -> str:
    for line in lines:
        if (back := tokenizer.decode(tokenizer.encode(line))) != line:
            return f"{line[:60]!r} comes back as {back[:60]!r}"
    return ""


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


def _check_vocabulary(ids: Ids, vocab_size: int) -> None:
    highest = int(ids.max())
    if highest >= vocab_size:
        raise InputError(
            f"the tokenizer gives id {highest}, the model knows {vocab_size} tokens; this is not the model's tokenizer"
        )
