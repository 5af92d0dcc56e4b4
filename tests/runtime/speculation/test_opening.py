"""What a draft may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from specimens import Goldens, Zoo, random_ids

from foveal import BundleError, ConfigError, InputError, SamplingParams, load
from foveal.runtime.model import Model

PROMPT = random_ids(1, 9)[0].tolist()


@pytest.fixture(scope="module")
def model(zoo: Zoo) -> Model:
    return load(zoo["nested"].bundle, threads=1)


def ids_of(model: Model, **choices: Any) -> list[int]:
    """Drawn after the prompt."""
    return list(model.generate_ids(PROMPT, SamplingParams(seed=2, max_new_tokens=60), **choices))


def test_another_model_drafts(model: Model, zoo: Zoo) -> None:
    """A loaded one, a bundle, or its path; opened once; the text is the same."""
    expected, bundle = ids_of(model), zoo["vanilla"].bundle
    for draft in (load(bundle, threads=1), bundle, bundle.path, str(bundle.path)):
        assert ids_of(model, draft=draft) == expected
    assert len(model._drafting_models) == 1


def test_a_model_that_drafts_for_itself_is_right(model: Model) -> None:
    """It draws by the same random numbers, so that all that is drafted comes; with a seed and greedily."""
    for params in (SamplingParams(seed=2, max_new_tokens=60), SamplingParams(temperature=0, max_new_tokens=60)):
        going = model.generate_ids(PROMPT, params, draft=model)
        ids = list(going)
        assert ids == list(model.generate_ids(PROMPT, params))
        outcome = going.speculation
        assert outcome is not None
        assert outcome.accepted == outcome.drafted
        assert outcome.calls + outcome.accepted == len(ids) - 1


def test_drafts_of_a_context_that_is_full_end(model: Model, zoo: Zoo) -> None:
    """The text goes on without them."""
    short = load(zoo["vanilla"].bundle, threads=1)
    open_session = short.session
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(short, "session", lambda: open_session(capacity=20))
        assert ids_of(model, draft=short) == ids_of(model)


def test_ngrams_count_what_they_came_to(model: Model) -> None:
    """Of a text that repeats itself, most come."""
    prompt = [*PROMPT * 3]
    going = model.generate_ids(prompt, SamplingParams(temperature=0, max_new_tokens=40), draft="ngrams", draft_tokens=4)
    list(going)
    assert going.speculation is not None
    assert going.speculation.drafted <= 4 * going.speculation.calls
    plain = model.generate_ids(prompt, SamplingParams(temperature=0, max_new_tokens=40))
    assert plain.speculation is None
    assert list(plain) == going.ids


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"draft": "ngram"}, "draft is 'ngram', where there is no bundle; expected .ngrams., a bundle"),
        ({"draft": 5}, "draft is 5, expected"),
        ({"draft": True}, "draft is True, expected"),
        ({"draft": "ngrams", "draft_tokens": 0}, "draft_tokens is 0, expected 1 to 1,024"),
        ({"draft": "ngrams", "draft_tokens": 5000}, "draft_tokens is 5000, expected 1 to 1,024"),
        ({"draft": "ngrams", "draft_tokens": 2.5}, "draft_tokens must be an integer, got 2.5"),
        ({"draft_tokens": 3}, "draft_tokens is given, and no draft"),
    ],
)
def test_what_is_no_draft_is_refused(choices: dict[str, Any], message: str, model: Model, goldens: Goldens) -> None:
    """At the call, of ids and of text."""
    with pytest.raises(InputError, match=message):
        model.generate_ids(PROMPT, **choices)
    with pytest.raises(InputError, match=message):
        load(goldens["s4_naive_attn"], threads=1).generate("a", **choices)


def test_models_of_other_tokens_are_refused(model: Model, goldens: Goldens, tmp_path: Path) -> None:
    """By their vocabularies, or by their tokenizers; and a folder that is no bundle."""
    with pytest.raises(ConfigError, match=r"256 ids, .* has 41; a model that drafts needs the same tokenizer"):
        ids_of(model, draft=goldens["s4_naive_attn"])
    with pytest.raises(BundleError):
        ids_of(model, draft=tmp_path)
    mute = load(goldens["s4_naive_attn"], threads=1)
    other = load(goldens["s4_naive_attn"], threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveal.runtime.speculation.opening._tokenizer", lambda one: None if one is mute else "bytes")
        with pytest.raises(ConfigError, match="has another tokenizer"):
            mute.generate_ids([1], draft=other)
