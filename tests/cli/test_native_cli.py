"""`--native` and `--no-native` reach the engines, from every verb that runs a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import bytes_bundle
from store import Store

from foveal.errors import ConfigError

VERBS = (
    "generate B It --threads 1",
    "generate B F --files --out OUT --threads 1",
    "score B It --threads 1",
    "eval B --text F --threads 1",
    "serve B --port 0 --threads 1",
    "bench B --rounds 1 --threads 1",
    "bench speculation B --threads 1",
    "plan batch B --prompt-tokens 8 --new-tokens 8 --steps 9 --threads 1",
)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("option", "wanted"), [("--native", True), ("--no-native", False), (None, None)])
def test_every_verb_passes_it_on(
    verb: str,
    option: str | None,
    wanted: bool | None,
    foveal: Callable[..., tuple[int, str, str]],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To where engines are opened; there the command is stopped."""
    seen = []

    def open_engines(*_: Any, native: bool | None = None, **__: Any) -> None:
        seen.append(native)
        raise ConfigError("stopped here")

    monkeypatch.setattr("foveal.runtime.model.open_engines", open_engines)
    text = tmp_path / "text.txt"
    text.write_text("It was a bright cold day.\n")
    places = {"B": bytes_bundle(store).path, "F": text, "OUT": tmp_path / "out"}
    code, _, err = foveal(*(places.get(word, word) for word in verb.split()), *([] if option is None else [option]))
    assert seen == [wanted]
    assert code != 0
    assert "stopped here" in err
