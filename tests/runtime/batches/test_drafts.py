"""Texts that decode together with drafts are those that come without, of every setting; and it is told what drafts came to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from drafts import FreeCalls, LenientDrafter
from specimens import Goldens, Zoo

from foveal import Constraint, InputError, Service, SessionStore, load
from foveal.runtime.model import Model
from foveal.runtime.speculation.drafting import Drafting

PROMPTS = ["It was", "Call me", "the best of times, it was the", "x", "In a hole"]
SEEDS = [11, 22, 33, 44, 55]


@pytest.fixture(scope="module")
def model(goldens: Goldens) -> Model:
    """Of bytes; 128 positions."""
    return load(goldens["s4_naive_attn"], threads=1)


class Knowing:
    """Drafts of what is known to come, by the seed that each text has; so many tokens of a draft come that most are checked."""

    def __init__(self, model: Model) -> None:
        self.size, self.whole = model.manifest.model.vocab_size, dict[int | None, list[int]]()
        self.opened: list[LenientDrafter] = []

    def open(self, sampler: Any) -> LenientDrafter:
        """For a text."""
        seed = sampler.params.seed
        self.opened.append(LenientDrafter(self.whole[seed], Random(seed), self.size))
        return self.opened[-1]

    def know(self, seed: int, prompt: str, ids: list[int]) -> None:
        """What comes of a seed."""
        self.whole[seed] = [*prompt.encode(), *ids]


@pytest.fixture
def knowing(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Knowing]:
    """In the place of n-grams; all that are opened are closed."""
    found, drafting = Knowing(model), model._drafting

    def drafting_of(draft: object, most: object, observer: object = None) -> Drafting | None:
        return Drafting(found.open, FreeCalls()) if draft == "ngrams" else drafting(draft, most)

    monkeypatch.setattr(model, "_drafting", drafting_of)
    yield found
    assert all(one.is_closed for one in found.opened)


def even_hook(_ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Lets even ids come alone."""
    return np.where(np.arange(len(logits)) % 2 == 0, logits, -np.inf)


SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0.6, "top_k": 5},
    {"top_p": 0.7, "min_p": 0.1},
    {"repetition_penalty": 1.5, "frequency_penalty": 0.8, "presence_penalty": -0.3},
    {"logit_bias": {3: 4.0, 7: -float("inf")}, "logits_hook": even_hook},
    {"logprobs": 2, "prompt_logprobs": 1},
    {"stop": ["e", "th"]},
    {"end": [101, 32], "min_tokens": 9},
    {"constraint": Constraint("regex", "( [a-z]{2,5}){3}\\.")},
    {"max_new_tokens": 200},
    {"max_new_tokens": 1},
]


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda choice: ", ".join(choice) if isinstance(choice, dict) else str(choice)
)
def test_texts_are_those_without(model: Model, knowing: Knowing, settings: dict[str, Any], slots: int) -> None:
    """With their ids, log probabilities and ends; by several tokens of a step."""
    settings, alone = {"max_new_tokens": 40, **settings}, []
    for prompt, seed in zip(PROMPTS, SEEDS, strict=True):
        one = model.generate(prompt, seed=seed, **settings)
        alone.append(("".join(one), one.ids, one.finish_reason))
        knowing.know(seed, prompt, one.ids)
    many = model.generate_many(PROMPTS, slots=slots, seed=SEEDS, draft="ngrams", **settings)
    texts = [""] * len(PROMPTS)
    for index, piece in many:
        texts[index] += piece
    assert [(texts[index], many.ids[index], many.finish_reasons[index]) for index in range(len(PROMPTS))] == alone
    if settings["max_new_tokens"] > 1 and "constraint" not in settings:
        assert sum(one.accepted for one in many.speculation.values()) > 0
    if "logprobs" in settings:
        for index, seed in enumerate(SEEDS):
            one = model.generate(PROMPTS[index], seed=seed, **settings)
            list(one)
            found = [(score.token, pytest.approx(score.logprob, abs=1e-4)) for score in many.logprobs[index]]
            assert [(score.token, score.logprob) for score in one.logprobs] == found


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_several_texts_of_a_prompt_have_drafts_of_their_own(model: Model, knowing: Knowing, slots: int) -> None:
    """Also those that begin when others are done."""
    alone = []
    for seed in range(5, 9):
        one = model.generate(PROMPTS[0], seed=seed, max_new_tokens=30)
        alone.append("".join(one))
        knowing.know(seed, PROMPTS[0], one.ids)
    texts = [""] * 4
    many = model.generate_many(PROMPTS[:1], slots=slots, n=4, seed=5, max_new_tokens=30, draft="ngrams")
    for index, piece in many:
        texts[index] += piece
    assert texts == alone
    assert len(many.speculation) == len(knowing.opened) == 4


class TestWhatMayBeADraft:
    """In a batch and in a service, as in `generate`."""

    def test_ngrams_and_models(self, model: Model) -> None:
        """The texts are the same; without a draft nothing is said of one."""
        plain = "".join(piece for _, piece in model.generate_many(["abcabcabc"], seed=1, temperature=0, max_new_tokens=50))
        for draft in ("ngrams", model, model.bundle, str(model.bundle.path)):
            many = model.generate_many(["abcabcabc"], seed=1, temperature=0, max_new_tokens=50, draft=draft, draft_tokens=5)
            assert "".join(piece for _, piece in many) == plain
            assert many.speculation[0].calls + many.speculation[0].accepted in (49, 50)
        assert model.generate_many(["abc"], max_new_tokens=3).speculation == {}

    def test_each_prompt_may_have_its_own(self, model: Model) -> None:
        """By a list, as of all settings."""
        many = model.generate_many(["abcabc", "bcbcbc"], max_new_tokens=5, draft=[None, "ngrams"])
        list(many)
        assert set(many.speculation) == {1}

    def test_bad_ones_are_refused_at_the_call(self, model: Model, zoo: Zoo) -> None:
        """Of all prompts, and of services before they begin."""
        other = load(zoo["nested"].bundle, threads=1)
        for settings, words in (
            ({"draft": "nowhere"}, "where there is no bundle"),
            ({"draft": 3}, "draft is 3, expected"),
            ({"draft_tokens": 4}, "draft_tokens is given, and no draft"),
            ({"draft": "ngrams", "draft_tokens": 0}, "expected 1 to 1,024"),
            ({"draft": other}, "needs the same tokenizer|has another tokenizer"),
        ):
            for call in (
                lambda: model.generate_many(["a", "b"], **settings),  # noqa: B023
                lambda: model.generate_many(iter(["a"]), **settings),  # noqa: B023
                lambda: Service(model, **settings),  # noqa: B023
            ):
                with pytest.raises(Exception, match=words):
                    call()


class TestServices:
    """Requests of a service with drafts."""

    def test_its_draft_is_that_of_requests_which_say_nothing(self, model: Model, knowing: Knowing) -> None:
        """None is none; what came of drafts is told with each text, and counted."""
        alone = model.generate(PROMPTS[0], seed=3, max_new_tokens=30)
        text = "".join(alone)
        knowing.know(3, PROMPTS[0], alone.ids)
        with Service(model, slots=2, draft="ngrams", draft_tokens=9) as service:
            drafted = service.submit(PROMPTS[0], seed=3, max_new_tokens=30)
            events = list(drafted)
            assert "".join(event.text for event in events) == text
            assert [event.token for event in events if event.token is not None] == alone.ids
            assert [event.position for event in events if event.token is not None] == list(range(6, 36))
            plain = service.submit(PROMPTS[0], seed=3, max_new_tokens=30, draft=None)
            assert "".join(event.text for event in plain) == text
            assert plain.speculation == {}
            outcome, said = drafted.speculation[0], service.statistics
            assert outcome.accepted > 10
            assert (said.draft_calls, said.drafted, said.accepted) == (outcome.calls, outcome.drafted, outcome.accepted)
            assert outcome.calls + outcome.accepted in (29, 30)  # the last token need not be appended

    def test_firings_are_told_as_without(self, model: Model, knowing: Knowing) -> None:
        """Of every token, by the stages that fired for the one before it."""
        alone = model.generate(PROMPTS[0], seed=3, max_new_tokens=30)
        list(alone)
        knowing.know(3, PROMPTS[0], alone.ids)
        with Service(model, slots=2) as service:
            fired = [
                [event.fired for event in service.submit(PROMPTS[0], seed=3, max_new_tokens=30, draft=draft)]
                for draft in (None, "ngrams")
            ]
        assert fired[0] == fired[1]
        assert len(set(fired[0])) > 1

    def test_cancelled_texts_free_their_slots_and_others_go_on(self, model: Model, knowing: Knowing) -> None:
        """In the midst of drafts."""
        alone = model.generate(PROMPTS[0], seed=3, max_new_tokens=60)
        text = "".join(alone)
        knowing.know(3, PROMPTS[0], alone.ids)
        with Service(model, slots=2, draft="ngrams") as service:
            for _ in range(3):
                first = service.submit(PROMPTS[0], seed=3, max_new_tokens=60)
                other = service.submit(PROMPTS[0], seed=3, max_new_tokens=60)
                began = [next(first) for _ in range(4)]
                first.cancel()
                assert "".join(event.text for event in other) == text
                assert text.startswith("".join(event.text for event in (*began, *first)))

    def test_a_session_goes_on_where_it_stood(self, model: Model, knowing: Knowing, tmp_path: Path) -> None:
        """What is kept is the text, and no draft of what would have come."""
        whole = model.generate(PROMPTS[0], temperature=0, seed=3, max_new_tokens=40)
        list(whole)
        knowing.know(3, PROMPTS[0], whole.ids)
        store = SessionStore(model, 1 << 24, tmp_path / "store")
        with store, Service(model, slots=2, store=store, draft="ngrams") as service:
            found = list[int]()
            for prompt in (PROMPTS[0], "", "", ""):
                stream = service.submit(prompt, session="s", temperature=0, seed=3, max_new_tokens=10)
                found += [event.token for event in stream if event.token is not None]
                assert stream.session_position == 6 + len(found)
            assert found == whole.ids

    def test_a_deadline_ends_a_text_between_two_tokens_of_a_draft(self, model: Model, knowing: Knowing) -> None:
        """It has the beginning of what would have come."""
        whole = model.generate(PROMPTS[0], seed=3, max_new_tokens=100)
        list(whole)
        knowing.know(3, PROMPTS[0], whole.ids)

        def slow(_ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
            time.sleep(0.002)
            return logits

        with Service(model, slots=2, draft="ngrams") as service:
            stream = service.submit(PROMPTS[0], seed=3, max_new_tokens=100, max_seconds=0.05, logits_hook=slow)
            ids = [event.token for event in stream if event.token is not None]
        assert stream.finish_reasons == {0: "deadline"}
        assert ids == whole.ids[: len(ids)]

    def test_a_drafter_that_fails_costs_its_own_text_alone(self, model: Model, knowing: Knowing) -> None:
        """The others go on, with drafts."""
        alone = model.generate(PROMPTS[0], seed=3, max_new_tokens=60)
        text = "".join(alone)
        knowing.know(3, PROMPTS[0], alone.ids)
        with Service(model, slots=2, draft="ngrams") as service:
            good = service.submit(PROMPTS[0], seed=3, max_new_tokens=60)
            bad = service.submit(PROMPTS[1], seed=99, max_new_tokens=60)  # nothing is known of it
            with pytest.raises(Exception, match="choosing a token failed: KeyError"):
                list(bad)
            assert "".join(event.text for event in good) == text
            assert service.is_alive
        with pytest.raises(InputError):
            Service(model, draft_tokens=3)
