"""Numbers out of their range, wherever a user gives one, are one line that says what was got and what is expected."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from specimens import Zoo

from foveal import ConfigError, FovealError, InputError, SamplingParams, load
from foveal.runtime.model import Model

IDS = [3, 1, 4]
NO_ID = r"(id|ids hold|tokens hold) (-1|41|1099511627776).* outside the vocabulary; expected 0 <= id < 41$"
WRONG_IDS = (-1, 41, 2**40)
"""For a vocabulary of 41."""


@pytest.fixture(scope="module")
def model(zoo: Zoo) -> Model:
    """Of 41 ids and 96 positions."""
    return load(zoo["nested"].bundle, threads=1, overlap=False)


@pytest.mark.parametrize("wrong", WRONG_IDS)
@pytest.mark.parametrize(
    "give",
    [
        lambda model, wrong: model.session().advance([[3, wrong]]),
        lambda model, wrong: model.session().draw([[wrong]], 1, SamplingParams(temperature=0), np.zeros((1, 1))),
        lambda model, wrong: model.generate_ids([3, wrong]),
        lambda model, wrong: model.generate_ids(IDS, end=wrong),
        lambda model, wrong: model.generate_ids(IDS, end=[3, wrong]),
    ],
    ids=["advance", "draw", "prompt", "end", "ends"],
)
def test_ids(give: Callable[[Model, int], object], wrong: int, model: Model) -> None:
    """Below the vocabulary, at its end, and far beyond."""
    with pytest.raises(InputError, match=NO_ID):
        give(model, wrong)


@pytest.mark.parametrize(
    ("give", "error", "message"),
    [
        (lambda model: model.session(-1), ConfigError, "batch must be at least 1, got -1"),
        (lambda model: model.session(capacity=-1), FovealError, "capacity must be at least 1 token, got -1"),
        (lambda model: model.session(capacity=97), FovealError, "the model has 96 positions, got a capacity of 97"),
        (lambda model: model.session().rewind(-1), InputError, "can't rewind -1 tokens: the session holds 0"),
        (lambda model: model.session().rewind(1), InputError, "can't rewind 1 tokens: the session holds 0"),
        (lambda model: load(model.bundle, threads=-1), ConfigError, "threads must be at least 1, got -1"),
    ],
)
def test_sizes(give: Callable[[Model], object], error: type[FovealError], message: str, model: Model) -> None:
    """Of sessions, steps and threads."""
    with pytest.raises(error, match=message):
        give(model)


@pytest.mark.parametrize(
    ("name", "wrong", "expected"),
    [
        ("temperature", -1, "at least 0 and finite"),
        ("top_k", -1, "at least 0"),
        ("top_p", -1, "more than 0 and at most 1"),
        ("top_p", 1.5, "more than 0 and at most 1"),
        ("min_p", -1, "between 0 and 1"),
        ("repetition_penalty", -1, "more than 0"),
        ("seed", -1, "at least 0"),
        ("max_new_tokens", -1, "at least 1"),
        ("max_new_tokens", 0, "at least 1"),
    ],
)
def test_settings_of_sampling(name: str, wrong: float, expected: str, model: Model) -> None:
    """By themselves, and where text is asked for."""
    for give in (SamplingParams, lambda **settings: model.generate("a", **settings)):
        with pytest.raises(InputError, match=rf"^{name} is {wrong}(\.0)?, expected {expected}"):
            give(**{name: wrong})
