"""How a generation ends, and what it continues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from specimens import GOLDEN, Zoo

from foveal import ConfigError, InputError, SamplingParams, load
from foveal.export import convert
from foveal.runtime.model import Model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A golden checkpoint of 256 ids, read as bytes; 128 positions."""
    return load(convert(GOLDEN / "s4_naive_attn", tmp_path_factory.mktemp("bytes") / "b", tokenizer="bytes"), threads=1)


@pytest.fixture(scope="module")
def silent(zoo: Zoo) -> Model:
    """A model of 41 ids without a tokenizer."""
    return load(zoo["vanilla"].bundle, threads=1)


def test_every_end_has_its_reason(model: Model) -> None:
    """None until there is nothing more."""
    text = model.generate("It was", max_new_tokens=20, seed=1)
    first = next(text)
    assert text.finish_reason is None
    rest = "".join(text)
    assert (text.finish_reason, len(text.ids)) == ("length", 20)
    assert next(text, None) is None

    stop = model.tokenizer.decode(text.ids[5:7]) if model.tokenizer else ""
    stopped = model.generate("It was", max_new_tokens=20, seed=1, stop=stop)
    assert "".join(stopped) == (first + rest).split(stop)[0]
    assert stopped.finish_reason == "stop"

    ended = model.generate("It was", max_new_tokens=20, seed=1, end=text.ids[4])
    list(ended)
    assert (ended.finish_reason, ended.ids) == ("end", text.ids[: text.ids.index(text.ids[4])])

    full = model.generate("x" * 120, seed=1)
    list(full)
    assert (full.finish_reason, len(full.ids)) == ("capacity", 9)


def test_a_generation_that_is_left(model: Model) -> None:
    """It has no more to give, and no reason."""
    for begun in (model.generate("It was", seed=1), model.generate_ids("It was", SamplingParams(seed=1))):
        next(begun)
        begun.close()
        assert (list(begun), begun.finish_reason) == ([], None)


def test_one_stop_string_is_not_its_letters(model: Model) -> None:
    """A text alone is a list of one."""
    whole = "".join(model.generate("It was", max_new_tokens=40, seed=4))
    stop = whole[20:23]
    assert "".join(model.generate("It was", max_new_tokens=40, seed=4, stop=stop)) == whole[: whole.find(stop)]


def test_ids_are_continued_by_ids(silent: Model) -> None:
    """Of a list or an array, without a tokenizer; the same as a session gives."""
    greedy = SamplingParams(temperature=0, max_new_tokens=6)
    found = [list(silent.generate_ids(prompt, greedy)) for prompt in ([1, 2, 3], np.asarray([1, 2, 3], np.uint16))]
    session, expected = silent.session(), []
    logits = session.advance([[1, 2, 3]], last_only=True)
    for _ in range(6):
        expected.append(int(logits[0, 0].argmax()))
        logits = session.advance([[expected[-1]]], last_only=True)
    assert found == [expected, expected]
    ids = silent.generate_ids([1, 2, 3], greedy, end=expected[3])
    assert (list(ids), ids.finish_reason) == (expected[: expected.index(expected[3])], "end")


def test_a_prompt_of_ids_is_continued_by_text_where_there_is_a_tokenizer(model: Model) -> None:
    """As if it had been text."""
    assert list(model.generate(list(b"It was"), seed=1)) == list(model.generate("It was", seed=1))


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("caf\udce9", r"the prompt is no text: character 3 is U\+DCE9, half of a pair"),
        (["one", "two"], "got 2 prompts, expected one; call generate for each"),
        ([[1, 2], [3]], "the prompt's ids are no array|the prompt's ids have"),
        ([[1, 2]], r"the prompt's ids have shape \[1, 2\], expected one sequence"),
        ([0.5], "the prompt's ids have dtype float64, expected integers"),
        ([256], "the prompt's ids hold 256, which is outside the vocabulary; expected 0 <= id < 256"),
        ([], "the prompt is empty"),
    ],
)
def test_what_is_no_prompt(model: Model, prompt: object, reason: str) -> None:
    """Refused at the call, in one line."""
    with pytest.raises(InputError, match=reason):
        model.generate(prompt)  # type: ignore[arg-type]


def test_ends_and_stops_that_can_not_be(model: Model, silent: Model) -> None:
    """Tokens that nobody has, and text for a model of ids."""
    with pytest.raises(InputError, match="the tokenizer has no token '</s>'"):
        model.generate("x", end="</s>")
    with pytest.raises(InputError, match="the end tokens hold 41, which is outside the vocabulary"):
        silent.generate_ids([1], end=41)
    for end in (5.0, None, True):
        with pytest.raises(InputError, match="the end tokens have dtype .*, expected integers"):
            silent.generate_ids([1], end=end)  # type: ignore[arg-type]
    for bytes_ in (b"x", bytearray(b"x")):
        with pytest.raises(InputError, match="the end tokens .*, expected"):
            silent.generate_ids([1], end=bytes_)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the end token is no text: character 0 is U\+D800"):
        model.generate("x", end="\ud800")
    with pytest.raises(InputError, match="the end tokens hold 1000.*, which is outside the vocabulary"):
        silent.generate_ids([1], end=10**30)
    with pytest.raises(InputError, match=r"the model has no end rule array\(3\)"):
        silent.generate_ids([1], end_rules=np.array(3))  # type: ignore[arg-type]
    assert silent.end_ids(np.array(5)) == (5,)  # type: ignore[arg-type]
    assert silent.end_ids(np.int64(5)) == (5,)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="stop strings are of text"):
        silent.generate_ids([1], SamplingParams(stop=("x",)))
    with pytest.raises(ConfigError, match="has no tokenizer, so it takes ids only; use generate_ids"):
        silent.generate([1])


def test_the_command_and_python_have_the_same_defaults() -> None:
    """They are those of SamplingParams."""
    import inspect

    from foveal.cli.generate import generate

    command, params = inspect.signature(generate), SamplingParams()
    for name in ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed"):
        assert command.parameters[name].default == getattr(params, name)


def test_another_layout_has_the_tokens_of_its_tokenizer(tmp_path: Path) -> None:
    """A tokenizer of another vocabulary, or a file that is none, is refused before anything is exported."""
    from foveal.models.text import train_tokenizer

    train_tokenizer(["the sea the ship "] * 9, 300).save(str(tmp_path / "large.json"))
    with pytest.raises(ConfigError, match=r"large\.json has ids up to \d+, the model only 256 tokens"):
        convert(GOLDEN / "s4_naive_attn", tmp_path / "b", tokenizer=tmp_path / "large.json")
    (tmp_path / "none.json").write_text('{"vocab": 3}')
    with pytest.raises(ConfigError, match=r"none\.json is not a tokenizer\.json of Hugging Face tokenizers"):
        convert(GOLDEN / "s4_naive_attn", tmp_path / "b", tokenizer=tmp_path / "none.json")
    assert not (tmp_path / "b").exists()
