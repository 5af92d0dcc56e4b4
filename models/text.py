"""Text files to token ids, for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..errors import ConfigError


def read_texts(paths: Sequence[Path]) -> list[str]:
    """Read text files; a directory stands for every `*.txt` in it.

    Raises:
        ConfigError: a path is missing or holds no text.
    """
    texts: list[str] = []
    for path in paths:
        files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ConfigError(f"no text at {path}: expected a text file, or a directory with *.txt files")
        texts.extend(file.read_text(encoding="utf-8") for file in files)
    return texts


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE, which can encode any text and never needs an unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """All texts as one int64 array of ids, paragraph by paragraph so that long books stay cheap to tokenise."""
    pieces = [piece for text in texts for piece in text.splitlines(keepends=True)]
    return np.concatenate([np.asarray(e.ids, np.int64) for e in tokenizer.encode_batch(pieces, add_special_tokens=False)])
