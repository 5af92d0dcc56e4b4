"""The picture of where a model fires."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from specimens import Zoo, random_model
from store import Store

from foveal import ConfigError
from foveal.bench.boundaries import Piece, draw, ends_of_spans, pieces_of
from foveal.export import convert_model
from foveal.models.dynamic.model import Dynamic


@pytest.fixture
def bundle(store: Store) -> tuple[Dynamic, Path]:
    """A model of bytes, and its bundle."""
    model = random_model("1@1 1@~3 1@1", architecture="dynamic", positions="rotary", vocab_size=256)
    assert isinstance(model, Dynamic)
    made = store.once("boundaries", lambda directory: convert_model(model, directory / "b", tokenizer="bytes"))
    return model, made / "b"


def test_spans_end_where_the_model_fires(bundle: tuple[Dynamic, Path]) -> None:
    """Counted in characters of the text but those before; a character of two bytes may end a span with either."""
    model, path = bundle
    text = "so it fires, naïvely—or so it seems. " * 3
    fires = model.boundaries(torch.tensor([list(text.encode())]))[0].numpy()
    of_bytes = np.array([place for place, character in enumerate(text, 1) for _ in character.encode()])
    expected = sorted(set(of_bytes[fires].tolist()))
    assert ends_of_spans(path, text, 0) == expected
    assert ends_of_spans(path, text, 20) == [end - 20 for end in expected if end > 20]


def test_pieces_are_parts_of_spans_on_one_line() -> None:
    """Every character is in one; a span goes on in the next line with the same ground."""
    text = "a" * 80 + " " + "bcdef"
    assert list(pieces_of(text, [2, 81, 84])) == [
        Piece(0, 0, "aa", 0, True),
        Piece(0, 2, "a" * 78 + " ", 1, True),
        Piece(1, 0, "bcd", 2, True),
        Piece(1, 3, "ef", 3, False),
    ]
    assert [piece.span for piece in pieces_of(text, [2])] == [0, 1, 1]


def test_a_picture_is_the_same_for_the_same_spans(tmp_path: Path) -> None:
    """With the text as text, and line ends to be seen."""
    for name in ("a.svg", "b.svg"):
        draw(tmp_path / name, "To be,\nor not", [3, 6])
    picture = (tmp_path / "a.svg").read_text()
    assert picture == (tmp_path / "b.svg").read_text()
    for shown in (">To <", ">be,<", ">¶or not<"):
        assert shown in picture


def test_what_fires_by_a_stride_is_not_drawn(zoo: Zoo) -> None:
    """Nothing of it is in the text."""
    with pytest.raises(ConfigError, match="nested fires by strides alone"):
        ends_of_spans(zoo["nested"].bundle.path, "text", 0)
