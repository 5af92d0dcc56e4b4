"""The model of docs/your-own-model.md, whose stages tests replace by others."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).parent.parent / "docs" / "your-own-model.md"


def _example() -> types.ModuleType:
    module = types.ModuleType("example")
    block = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    exec(compile(block, str(PAGE), "exec"), module.__dict__)
    return module


_EXAMPLE = _example()
GistScale: Any = _EXAMPLE.GistScale


class Gist(_EXAMPLE.Gist):  # type: ignore[name-defined,misc]
    """A small one, in which `coarse` takes the place of its coarse stage's class."""

    def __init__(self, coarse: Any = GistScale, vocab_size: int = 41, dim: int = 16) -> None:
        torch.manual_seed(0)
        super().__init__(vocab_size, dim)
        self.coarse = coarse(vocab_size, dim)
        self.eval()
