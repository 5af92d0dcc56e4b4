"""Many prompts through a few slots: the text of each is what it is alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from specimens import GOLDEN, Zoo

from foveal import CapacityError, ConfigError, FovealError, InputError, load
from foveal.export import convert
from foveal.runtime.batches.generate_many import GeneratedMany
from foveal.runtime.model import Model

PROMPTS = ["It was", "Call me", "the best of times, it was the", "x", "Happy families are all alike", "In a hole", "A", "Once"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A golden checkpoint of 256 ids, read as bytes; 128 positions."""
    return load(convert(GOLDEN / "s4_naive_attn", tmp_path_factory.mktemp("bytes") / "b", tokenizer="bytes"), threads=1)


def texts(pieces: Iterator[tuple[int, str]], count: int) -> list[str]:
    """By prompt."""
    found = [""] * count
    for index, piece in pieces:
        found[index] += piece
    return found


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "one seed": {"seed": 3},
    "a seed for each": {
        "seed": list(range(8)),
        "temperature": [0.5, 1, 0, 2, 1, 1, 0.7, 1],
        "top_k": [0, 5, 0, 1, 40, 3, 0, 9],
    },
    "penalty": {"seed": 1, "repetition_penalty": 1.3},
    "stop for all": {"seed": 2, "stop": ["e", "th"]},
    "stop for each": {"seed": 2, "stop": [["e"], [], ["a", "b"], ["i"], [], ["t"], ["o"], [" "]]},
    "end": {"seed": 4, "end": [101, 32]},
    "lengths": {"seed": 5, "max_new_tokens": [1, 30, 2, 200, 5, 7, 9, 1]},
}


@pytest.mark.parametrize("policy", ["staggered", "aligned"])
@pytest.mark.parametrize("kind", SETTINGS)
def test_each_text_is_that_of_the_prompt_alone(model: Model, kind: str, policy: Any) -> None:
    """By settings of all and of each; with its ids, and why it ended."""
    settings = {"max_new_tokens": 40, **SETTINGS[kind]}
    many = model.generate_many(PROMPTS, slots=3, policy=policy, **settings)
    found = texts(many, len(PROMPTS))
    for index, prompt in enumerate(PROMPTS):
        own = {name: value[index] if is_list(name, value) else value for name, value in settings.items()}
        alone = model.generate(prompt, **own)
        assert found[index] == "".join(alone), prompt
        assert many.ids[index] == alone.ids
        assert many.finish_reasons[index] == alone.finish_reason


def is_list(name: str, value: object) -> bool:
    return isinstance(value, list) and (name not in ("stop", "end") or isinstance(value[0], list))


def test_prompts_are_taken_as_slots_become_free(model: Model) -> None:
    """There may be any number of them; ids are as good as text."""
    taken = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(len(taken))
            yield np.array([65 + len(taken)])

    many = model.generate_many(endless(), slots=2, max_new_tokens=4, seed=0)
    next(many)
    assert len(taken) == 2
    seen = {index for index, _piece in (next(many) for _ in range(20))}
    assert len(taken) - 2 <= len(seen) <= len(taken)
    many.close()
    assert list(many) == []


def test_a_prompt_that_cannot_be_taken_is_named_and_the_others_go_on(model: Model) -> None:
    """When its turn comes."""
    many = model.generate_many(["It was", "", "y" * 500, [1, 999], "Call me"], slots=2, max_new_tokens=5, temperature=0)
    found, errors = [""] * 5, []
    while True:
        try:
            index, piece = next(many)
            found[index] += piece
        except StopIteration:
            break
        except (InputError, CapacityError) as error:
            errors.append(str(error))
    assert [error.split(":")[0] for error in errors] == ["prompt 1", "prompt 2", "prompt 3"]
    assert [bool(text) for text in found] == [True, False, False, False, True]
    assert found[0] == "".join(model.generate("It was", max_new_tokens=5, temperature=0))


def pieces_and_errors(many: GeneratedMany, most: int = 10) -> tuple[dict[int, str], list[str]]:
    """All that comes, whatever is raised between, by prompt; and what was raised."""
    found: dict[int, str] = {}
    errors: list[str] = []
    while len(errors) < most:
        try:
            for index, piece in many:
                found[index] = found.get(index, "") + piece
            break
        except (FovealError, ZeroDivisionError) as error:
            errors.append(str(error))
    return found, errors


class TestWhatFailsInBetween:
    """One prompt is lost, or none; the texts of the others are what they are alone."""

    def alone(self, model: Model, but: int = -1) -> dict[int, str]:
        texts = {i: "".join(model.generate(p, max_new_tokens=6, temperature=0)) for i, p in enumerate(PROMPTS)}
        return {index: text for index, text in texts.items() if index != but}

    @pytest.mark.parametrize("index", [1, 4])
    def test_no_memory_for_a_prompt(self, model: Model, monkeypatch: pytest.MonkeyPatch, index: int) -> None:
        """It is given up, with an error that names it."""
        many = model.generate_many(PROMPTS, slots=3, max_new_tokens=6, temperature=0)
        prefill = many._batch.decoder.prefill
        failing = failing_at(index + 1, prefill)
        monkeypatch.setattr(
            many._batch.decoder,
            "prefill",
            lambda slot, position, *given: (prefill if position else failing)(slot, position, *given),
        )
        found, errors = pieces_and_errors(many)
        assert [error.split(":")[0] for error in errors] == [f"prompt {index}"]
        assert found == self.alone(model, but=index)
        assert len(many.finish_reasons) == len(PROMPTS) - 1

    def test_no_memory_for_a_step(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is made again when the next piece is asked for."""
        many = model.generate_many(PROMPTS, slots=3, max_new_tokens=6, temperature=0)
        monkeypatch.setattr(many._batch.decoder, "step", failing_at(3, many._batch.decoder.step))
        found, errors = pieces_and_errors(many)
        assert [error.split(" (")[0] for error in errors] == ["a step of 3 sequences finds no room in memory"]
        assert found == self.alone(model)

    @pytest.mark.parametrize("call", range(2, 8))
    def test_an_interrupt(self, model: Model, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
        """Between the tokens of a step and a prompt, say: whoever goes on after it gets all texts."""
        many = model.generate_many(PROMPTS, slots=3, max_new_tokens=6, temperature=0)
        monkeypatch.setattr(many._batch.decoder, "prefill", failing_at(call, many._batch.decoder.prefill, KeyboardInterrupt))
        found: dict[int, str] = {}
        interrupts = 0
        while True:
            try:
                for index, piece in many:
                    found[index] = found.get(index, "") + piece
                break
            except KeyboardInterrupt:
                interrupts += 1
        assert interrupts == 1
        assert found == self.alone(model)

    def test_logits_that_are_not_finite(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of one sequence in a step of three."""
        many = model.generate_many(PROMPTS, slots=3, max_new_tokens=6, temperature=0)
        step = many._batch.step

        def step_with_nan(tokens: dict[Any, int]) -> dict[Any, np.ndarray]:
            found = step(tokens)
            for sequence, logits in found.items():
                if sequence.number == 1 and len(found) == 3:
                    logits[:] = np.nan
            return found

        monkeypatch.setattr(many._batch, "step", step_with_nan)
        found, errors = pieces_and_errors(many)
        assert [error.split(":")[0] for error in errors] == ["prompt 1"]
        found.pop(1, None)
        assert found == self.alone(model, but=1)

    def test_an_iterable_of_prompts(self, model: Model) -> None:
        """Its error is its own, and no prompt: those that come after it have the next index, and its settings."""

        class Prompts(Iterator[str]):
            turns = 0

            def __next__(self) -> str:
                self.turns += 1
                if self.turns == 2:
                    raise ZeroDivisionError("mine")
                if self.turns > 4:
                    raise StopIteration
                return "x"

        many = model.generate_many(Prompts(), slots=2, max_new_tokens=[1, 2, 3], temperature=0)
        _found, errors = pieces_and_errors(many)
        assert errors == ["mine"]
        assert [len(many.ids[index]) for index in range(3)] == [1, 2, 3]


def failing_at(call: int, function: Any, error: type[BaseException] = MemoryError) -> Any:
    """The same function, which finds no memory in one of its calls."""
    calls = []

    def once(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == call:
            raise error("no more")
        return function(*given)

    return once


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temprature": 1}, 'no setting "temprature"'),
        ({"temperature": -1}, "temperature is -1"),
        ({"seed": [1, 2]}, "seed has 2 values for 8 prompts"),
        ({"top_p": [1] * 7 + [5]}, "top_p is 5"),
        ({"stop": ""}, "stop is"),
        ({"end": "<none>"}, "the tokenizer has no token '<none>'"),
        ({"end": [[1]] * 7 + [[999]]}, "the end tokens hold 999"),
    ],
)
def test_settings_are_refused_at_the_call(model: Model, changes: dict[str, Any], words: str) -> None:
    """Before anything is generated."""
    with pytest.raises(InputError, match=words):
        model.generate_many(PROMPTS, **changes)


@pytest.mark.parametrize("prompts", [[], iter(PROMPTS)], ids=["none", "unknown"])
@pytest.mark.parametrize("changes", [{"temprature": 1}, {"temprature": [1]}, {"temperature": -1}, {"end": 999}])
def test_settings_of_all_are_refused_whatever_the_prompts(model: Model, prompts: Any, changes: dict[str, Any]) -> None:
    """None, or any number of them: an error for each would never end."""
    with pytest.raises(InputError, match="temprature|temperature is -1|the end tokens hold 999"):
        model.generate_many(prompts, **changes)


def test_what_is_no_list_of_prompts(model: Model, zoo: Zoo) -> None:
    """One text, a policy or a number of slots that there is not, a model without a tokenizer."""
    with pytest.raises(InputError, match="put it in a list"):
        model.generate_many("It was")
    for one in (5, b"It was", np.array(5)):
        with pytest.raises(InputError, match="put it in a list"):
            model.generate_many(one)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected one of: staggered, aligned"):
        model.generate_many(PROMPTS, policy="random")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="slots must be at least 1"):
        model.generate_many(PROMPTS, slots=0)
    with pytest.raises(ConfigError, match="no tokenizer"):
        load(zoo["vanilla"].bundle, threads=1).generate_many(PROMPTS)


def test_no_prompts_no_pieces(model: Model) -> None:
    """And a list of settings for a list of prompts that ends early."""
    assert list(model.generate_many([])) == []
    with pytest.raises(InputError, match="seed has 1 values for more than 1 prompts"):
        list(model.generate_many(iter(PROMPTS), seed=[1], max_new_tokens=2))


def test_is_an_iterator_of_pieces(model: Model) -> None:
    """Its type is public to those who annotate."""
    assert isinstance(model.generate_many(["a"], max_new_tokens=1), GeneratedMany)
