"""Text files to token ids, for training and evaluation."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..errors import ConfigError


def read_texts(paths: Sequence[Path], as_it_is: bool = False) -> list[str]:
    """Read text files in UTF-8; a directory stands for every `*.txt` in it.

    Line ends of any platform become `\\n`, and a byte order mark vanishes, so a text is the same wherever it was saved;
    `as_it_is` leaves both.

    Raises:
        ConfigError: a path is missing or can't be read, holds no text, or is in another encoding.
    """
    texts: list[str] = []
    for path in paths:
        files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ConfigError(f"no text at {path}: expected a text file, or a directory with *.txt files")
        texts.extend(_read(file, as_it_is) for file in files)
    return texts


def _read(file: Path, as_it_is: bool) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"the text at {file} can't be read: {error.strerror}") from error
    for mark, encoding in _OTHER_MARKS.items():
        if data.startswith(mark):
            raise ConfigError(f"the text at {file} is {encoding}, expected UTF-8; convert it: iconv -f {encoding} -t UTF-8")
    try:
        text = data.decode("utf-8" if as_it_is else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the text at {file} is not UTF-8 ({error}); convert it, for instance with iconv") from error
    return text if as_it_is else text.replace("\r\n", "\n").replace("\r", "\n")


_OTHER_MARKS = {  # the longer ones first: UTF-16's begins one of them
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE, which can encode any text and never needs an unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_tokenizer() -> Tokenizer:
    """A tokenizer whose tokens are the 256 bytes of UTF-8: each byte is its own id."""
    alphabet = _byte_characters()
    tokenizer = Tokenizer(models.BPE(vocab={character: byte for byte, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _byte_characters() -> list[str]:
    """How a byte-level tokenizer writes each byte: printable Latin-1 as it is, the others, in order, from U+0100 on (GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (chr(code) for code in range(0x100, 0x200))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """All texts as one int64 array of ids, paragraph by paragraph so that long books stay cheap to tokenise."""
    if tokenizer.to_str() == byte_tokenizer().to_str():
        return np.frombuffer("".join(texts).encode(), np.uint8).astype(np.int64)
    pieces = [piece for text in texts for piece in text.splitlines(keepends=True)]
    if not pieces:
        return np.empty(0, np.int64)
    return np.concatenate([np.asarray(e.ids, np.int64) for e in tokenizer.encode_batch(pieces, add_special_tokens=False)])
