"""Texts of many requests in the slots of one batch: each is what it is alone, and is told its end once, whatever happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from drafts import FreeCalls, LenientDrafter
from hypothesis import given
from hypothesis import strategies as st
from programs import CAPACITY, VOCABULARY, Program, ahead, borrowing, forgetful, hourglass, top_down
from served import Alone, Letters, ServedProgram, alone

from foveal import CapacityError, FovealError, InputError, SamplingParams, Snapshot
from foveal.contract import EndRule
from foveal.errors import DeviceError
from foveal.runtime.batches.choice import Choice, Drawn
from foveal.runtime.batches.continuations import Continuations
from foveal.runtime.batches.sequence import Sequence as Joined
from foveal.runtime.batches.waiting import Prompt
from foveal.runtime.generation import request as request_module
from foveal.runtime.generation.request import Request
from foveal.runtime.guides.constraint import Constraint
from foveal.runtime.sampling import Sampler
from foveal.runtime.speculation.drafting import Drafting

programs = st.one_of(
    st.builds(hourglass, st.integers(2, 3), st.integers(2, 3)),
    st.builds(top_down, st.integers(2, 5)),
    st.builds(ahead, st.integers(2, 3), st.just(2)),
    st.builds(forgetful, st.integers(2, 3), st.just(2), st.just(1)),
    st.builds(borrowing, st.integers(2, 4)),
)
ANY = Constraint("regex", "x")
"""What it says is no matter: the guides below go their own way."""


class EvenGuide:
    """Lets even ids come, and nothing after so many; counts those that are open. Raises an error where it is told to."""

    open = 0

    def __init__(self, most: int, fails_at: int = -1, error: Exception | None = None) -> None:
        EvenGuide.open += 1
        self.left, self.fails_at, self.error, self.is_open = most, fails_at, error, True

    def allowed(self) -> np.ndarray:
        assert self.is_open
        if self.left == self.fails_at:
            raise self.error or InputError("the constraint can't be followed on")
        return (np.arange(VOCABULARY) % 2 == 0) & (self.left > 0)

    def take(self, token: int) -> None:
        assert token % 2 == 0
        self.left -= 1

    def fork(self) -> EvenGuide:
        return EvenGuide(self.left, self.fails_at, self.error)

    def close(self) -> None:
        EvenGuide.open -= self.is_open
        self.is_open = False


class Clock:
    """In the place of `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class NotedPrompt(Prompt):
    """Says when it gets a slot."""

    order: list[NotedPrompt]
    past: list[int]

    def begin(self, batch: Any) -> Joined:
        sequence = super().begin(batch)
        self.order.append(self)
        return sequence


class BreakingDrafter(LenientDrafter):
    """Counts those that are open; fails in a place, which costs its own text and no other."""

    open = 0

    def __init__(self, walk: Walk, whole: list[int], fails_at: int | None) -> None:
        super().__init__(whole, walk.choose, VOCABULARY)
        self.walk, self.fails_at = walk, fails_at
        BreakingDrafter.open += 1

    def propose(self) -> Iterator[Any]:
        """Or not."""
        if self.fails_at is not None and self._seen > self.fails_at:
            self.walk.may_fail = True
            raise RuntimeError("a drafter that broke")
        return super().propose()

    def close(self) -> None:
        """Once."""
        super().close()
        BreakingDrafter.open -= 1


class Walk:
    """Continuations with requests, engines that fail, and what each text has to be.

    Half of the requests have drafts, most tokens of which come. `may_fail` once an error was raised that a text can end with,
    `may_lose` once memory was short for a copy.
    """

    def __init__(self, program: Program, slots: int, policy: Any, choose: Random, faults: float) -> None:
        self.served, self.choose, self.clock = ServedProgram(program), choose, Clock()
        self.going = Continuations(self.served.batch(slots, policy=policy, prefill_seconds=choose.choice([0, 1e9])))
        self.prompts: list[NotedPrompt] = []
        self.begun: list[NotedPrompt] = []
        self.texts: dict[Choice, list[Drawn]] = {}
        self.expected: dict[Choice, Alone | FovealError] = {}
        self.ended: set[Choice] = set()
        self.kept: set[Choice] = set()
        self.states: list[Snapshot] = []
        self.may_fail = False
        self.slots, self.chance = slots, faults
        self.served.faults.wanted = self._wanted

    def _wanted(self, _name: str) -> BaseException | None:
        if self.choose.random() >= self.chance:
            return None
        self.may_fail = True
        self.served.faults.are_late = self.choose.random() < 0.5
        error: type[BaseException] = self.choose.choice(
            [MemoryError, CapacityError, DeviceError, KeyboardInterrupt, ZeroDivisionError]
        )
        return error("no more")

    def add(self) -> None:
        choose = self.choose
        snapshot = choose.choice([None, *self.states[-2:]])
        ids = [choose.randrange(VOCABULARY) for _ in range(choose.randint(0 if snapshot else 1, 20))]
        if snapshot is not None and snapshot.position + len(ids) > CAPACITY and choose.random() < 0.9:
            snapshot, ids = None, ids or [1]
        settings: dict[str, Any] = {
            "max_new_tokens": choose.choice([1, 2, 5, 12, 100]),
            "temperature": choose.choice([0, 1, 1]),
            "seed": choose.randrange(1000),
            "max_seconds": choose.choice([None, None, None, 20]),
            "logprobs": choose.choice([None, 0, 2]),
            "prompt_logprobs": choose.choice([None, None, 0, 2]),
            "stop": choose.choice([(), (), "Z", ("AB", "C")]),
        }
        guide = None
        if choose.random() < 0.3:
            most = choose.randint(0, 9)
            fails_at = choose.randint(0, 9) if choose.random() < 0.3 else -1
            error = choose.choice([None, RuntimeError("a bug")])
            settings["constraint"] = ANY

            def guide() -> Any:
                return EvenGuide(most, fails_at, error)

        ends = frozenset(choose.choices(range(VOCABULARY), k=choose.choice([0, 0, 3])))
        rules = ()
        if choose.random() < 0.3:
            settings["logit_bias"] = {0: 1e4, 1: 1e4}  # so that marks come
            rules = (self.rule(),)
        tokenizer: Any = Letters()
        request = Request(ids, SamplingParams(**settings), ends, tokenizer, guide, rules, begun=self.clock.now)
        past = [] if snapshot is None else snapshot.tokens[0].tolist()
        count, of_seed = choose.randint(1, 5), dict[int | None, Alone | FovealError]()
        of_seed = {one.params.seed: self.alone(one, past) for one in map(request.choice, range(count))}
        if choose.random() < 0.5:
            request = dataclasses.replace(request, drafting=self.drafting([*past, *ids], of_seed))
        prompt = NotedPrompt(request, len(self.prompts), count, snapshot, choose.random() < 0.5)
        prompt.order, prompt.past = self.begun, past
        self.prompts.append(prompt)
        self.texts.update({choice: [] for choice in prompt.choices})
        self.expected.update({one: of_seed[one.continuation.request.params.seed] for one in prompt.choices})
        self.going.add(prompt)

    def drafting(self, seen: list[int], of_seed: dict[int | None, Alone | FovealError]) -> Drafting:
        """By what is known to come; sometimes the drafter fails."""
        fails_at = self.choose.choice([None, None, None, self.choose.randrange(100)])

        def open_drafter(sampler: Sampler) -> LenientDrafter:
            found = of_seed[sampler.params.seed]
            whole = [*seen, *([] if isinstance(found, FovealError) else found.ids)]
            return BreakingDrafter(self, whole, fails_at)

        return Drafting(open_drafter, FreeCalls())

    def rule(self) -> EndRule:
        """Of a mark that is given out, or not; it may have begun in the prompt."""
        period = self.choose.randint(1, 4)
        ids = tuple(self.choose.choices([0, 1], k=self.choose.randint(1, period)))
        return EndRule(name="mark", period=period, ids=ids, gives_out=self.choose.random() < 0.3)

    def end(self) -> None:
        choices = [choice for choice, drawn in self.texts.items() if not (drawn and drawn[-1].is_last)]
        chosen = self.choose.sample(choices, min(len(choices), self.choose.randint(1, 3)))
        keep = self.choose.random() < 0.5
        self.ended |= set(chosen)
        self.kept = (self.kept | set(chosen)) if keep else self.kept - set(chosen)
        free = self.going.batch.free_slots
        self.note(self.going.end(chosen, keep=keep))
        assert self.going.batch.free_slots >= free

    def step(self) -> None:
        try:
            self.note(self.going.step())
        except (KeyboardInterrupt, ZeroDivisionError):
            if not self.may_fail:
                raise

    def note(self, found: Iterable[Drawn]) -> None:
        for drawn in found:
            if drawn.choice is None:
                assert self.may_fail
                assert drawn.error is not None
                assert not drawn.is_last
                continue
            told = self.texts[drawn.choice]
            assert not (told and told[-1].is_last), "nothing comes after the last"
            told.append(drawn)

    def finish(self) -> None:
        self.chance = 0.0
        for _ in range(5000):
            if self.going.is_idle:
                break
            self.step()
        assert self.going.is_idle
        going = self.going
        left = (going._waiting, going._reading, going._running, going._logits, going._ahead, going._next, going._found)
        assert not any(left)
        assert going.batch.free_slots == self.slots
        assert not going.batch.sequences
        assert EvenGuide.open == BreakingDrafter.open == 0

    def check(self) -> None:
        for choice, told in self.texts.items():
            assert [one.is_last for one in told] == [False] * (len(told) - 1) + [True]
            prompt = self.prompts[choice.owner]
            request = choice.continuation.request
            self.check_text(choice, told, self.expected[choice])
            self.check_state(choice, told, prompt.past + list(request.ids))
            self.check_drafts(choice)
        assert EvenGuide.open == 0

    def check_drafts(self, choice: Choice) -> None:
        outcome = choice.continuation.speculation
        assert (outcome is None) == (choice.continuation.request.drafting is None)
        if outcome is not None:
            assert 0 <= outcome.accepted <= outcome.drafted
            drawn = len(choice.continuation.ids)
            assert drawn - 1 - 4 <= outcome.calls + outcome.accepted <= drawn + 4 or not drawn  # a mark may be left out

    def alone(self, request: Request, past: list[int]) -> Alone | FovealError:
        """What it gives in a session of its own, in all the time that it wants."""
        params = dataclasses.replace(request.params, max_seconds=None, prompt_logprobs=None)
        are_open = EvenGuide.open
        try:
            return alone(self.served.program, dataclasses.replace(request, ids=past + list(request.ids), params=params))
        except FovealError as error:
            return error
        except RuntimeError as error:
            return FovealError(f"RuntimeError: {error}")
        finally:
            EvenGuide.open = are_open

    def check_text(self, choice: Choice, told: list[Drawn], expected: Alone | FovealError) -> None:
        text, last = "".join(one.text for one in told), told[-1]
        tokens = [one for one in told if one.token is not None]
        ids = [one.token for one in tokens]
        held = None if last.error is None else len(ids)  # what an error found held back is not told
        assert ids == choice.continuation.ids[:held]
        past = len(self.prompts[choice.owner].past) + len(choice.continuation.request.ids)
        if ids:
            assert [one.position for one in tokens] == list(range(past, past + len(ids)))
        if choice.continuation.request.params.logprobs is not None:
            assert [one.logprobs.token for one in tokens if one.logprobs] == ids
        if isinstance(expected, FovealError):
            assert last.error is not None or last.finish_reason in ("cancelled", "deadline")
            return
        common = min(len(ids), len(expected.ids)) if choice.continuation.request.end_rules else len(ids)  # a mark's beginning
        if last.error is not None:
            assert self.may_fail, last.error
            assert expected.ids[:common] == ids[:common]
        elif last.finish_reason in ("cancelled", "deadline"):
            assert choice in self.ended or choice.continuation.request.params.max_seconds is not None
            assert expected.ids[:common] == ids[:common]
            assert expected.text[:common].startswith(text[:common]) or expected.finish_reason == "stop"
        else:
            assert (ids, text, last.finish_reason) == (expected.ids, expected.text, expected.finish_reason)
            assert [one.logprobs.token for one in tokens if one.logprobs] == [one.token for one in expected.logprobs]

    def check_state(self, choice: Choice, told: list[Drawn], past: list[int]) -> None:
        state, last = choice.snapshot, told[-1]
        is_dropped = last.error is not None or (choice in self.ended and choice not in self.kept)
        if not choice.keeps_state:
            assert state is None
        if state is not None:
            assert last.error is None
            ids = [*past, *choice.continuation.ids]
            self.served.check_goes_on(state, ids[:CAPACITY])
        elif choice.keeps_state and not is_dropped and choice.continuation.ids:
            assert self.may_fail

    def check_order(self) -> None:
        """Who came first begins first."""
        numbers = [prompt.request.params.seed is not None and self.prompts.index(prompt) for prompt in self.begun]
        assert numbers == sorted(numbers)

    def check_prompt_logprobs(self) -> None:
        for choice, told in self.texts.items():
            count = choice.continuation.request.params.prompt_logprobs
            if count is None or not any(one.token is not None for one in told):
                continue
            ids = list(choice.continuation.request.ids)
            assert choice.scorer is not None
            assert [one.token for one in choice.scorer.found] == ids[1:]


@pytest.fixture(autouse=True)
def _guides_are_counted() -> Iterator[None]:
    EvenGuide.open = 0
    yield
    assert EvenGuide.open == 0, "a guide was left open"


@given(
    programs,
    st.integers(1, 5),
    st.sampled_from(["staggered", "aligned"]),
    st.sampled_from([0, 0, 0.02, 0.1]),
    st.integers(0, 1 << 32),
)
def test_any_program_of_requests(program: Program, slots: int, policy: Any, faults: float, seed: int) -> None:
    """Texts and ids are those of a session, each text is told its end once, states are exact, and nothing is left behind."""
    with pytest.MonkeyPatch.context() as patch:
        EvenGuide.open, BreakingDrafter.open, choose = 0, 0, Random(seed)
        walk = Walk(program, slots, policy, choose, faults)
        patch.setattr(request_module, "time", walk.clock)
        for _ in range(40):
            what = choose.choice(["add", "end", "step", "step", "step", "step", "step", "step"])
            if what == "add" and len(walk.prompts) < 8:
                walk.add()
            elif what == "end" and choose.random() < 0.5:
                walk.end()
            else:
                walk.step()
            walk.clock.now += choose.choice([0, 0, 1, 5])
            walk.states = [one.snapshot for one in walk.texts if one.snapshot is not None]
        walk.finish()
        walk.check()
        walk.check_order()
        walk.check_prompt_logprobs()


@pytest.fixture
def served() -> ServedProgram:
    """Of three scales: 1, 2 and 4."""
    return ServedProgram()


def prompt_of(served: ServedProgram, ids: Any, count: int = 1, **settings: Any) -> Prompt:
    """Of a request with these settings."""
    return Prompt(served.request(ids, {"seed": 7, **settings}), None, count)


def until_idle(going: Continuations, most: int = 500) -> list[Drawn]:
    """All that comes."""
    found = []
    for _ in range(most):
        if going.is_idle:
            return found
        found += going.step()
    raise AssertionError(f"it is not idle after {most} steps")


def texts_of(found: Iterable[Drawn]) -> dict[Choice | None, str]:
    """By choice."""
    texts: dict[Choice | None, str] = {}
    for drawn in found:
        texts[drawn.choice] = texts.get(drawn.choice, "") + drawn.text
    return texts


class TestTextsOfOnePrompt:
    """Several texts after one prompt."""

    @pytest.mark.parametrize("slots", [1, 2, 3, 8])
    def test_the_prompt_is_read_once(self, served: ServedProgram, slots: int) -> None:
        """However many slots there are; every other firing is of a token that was appended."""
        going = Continuations(served.batch(slots))
        prompt = prompt_of(served, [1] * 20, 5, max_new_tokens=6)
        choices = list(prompt.choices)
        going.add(prompt)
        until_idle(going)
        assert going.batch.fires["1.pre"] == 20 + 5 * 5
        assert [choice.continuation.ids for choice in choices] == [
            served.alone([1] * 20, seed=7 + k, max_new_tokens=6).ids for k in range(5)
        ]

    def test_each_has_a_seed_of_its_own(self, served: ServedProgram) -> None:
        """And without a seed, different random numbers; at temperature 0 all are the same."""
        going = Continuations(served.batch(4))
        prompts = [prompt_of(served, [1, 2], 4, max_new_tokens=20, **one) for one in ({}, {"seed": None}, {"temperature": 0})]
        all_choices = [list(prompt.choices) for prompt in prompts]
        for prompt in prompts:
            going.add(prompt)
        until_idle(going)
        distinct = [len({tuple(choice.continuation.ids) for choice in choices}) for choices in all_choices]
        assert distinct == [4, 4, 1]

    def test_they_come_before_a_request_that_came_later(self, served: ServedProgram) -> None:
        """Also those for which there was no slot at first; and in order."""
        going = Continuations(served.batch(1))
        first, later = prompt_of(served, [1, 2], 5, max_new_tokens=3), prompt_of(served, [3], max_new_tokens=3)
        order = [*first.choices, *later.choices]
        going.add(first)
        going.add(later)
        begun = list(dict.fromkeys(drawn.choice for drawn in until_idle(going)))
        assert begun == order

    def test_one_that_waited_decodes_in_the_step_in_which_it_gets_a_slot(self, served: ServedProgram) -> None:
        """Its logits are there: its first token is drawn before that step and appended in it, so that it stays in phase."""
        going = Continuations(served.batch(1))
        prompt = prompt_of(served, [1, 2], 2, max_new_tokens=3)
        _, second = list(prompt.choices)
        going.add(prompt)
        found = going.step()
        while second not in [drawn.choice for drawn in found]:
            found = going.step()
        assert [drawn.choice for drawn in found] == [second, second]

    def test_the_first_may_be_ended_while_the_prompt_is_read(self, served: ServedProgram) -> None:
        """The others go on."""
        going = Continuations(served.batch(2, prefill_seconds=0))
        running, prompt = prompt_of(served, [5], max_new_tokens=40), prompt_of(served, [1] * 20, 3, max_new_tokens=4)
        choices = list(prompt.choices)
        going.add(running)
        while not going.running:
            going.step()
        going.add(prompt)
        going.step()
        assert going.reading == 1
        (drawn,) = going.end([choices[0]])
        assert (drawn.choice, drawn.finish_reason, drawn.text) == (choices[0], "cancelled", "")
        until_idle(going)
        expected = [served.alone([1] * 20, seed=7 + k, max_new_tokens=4).ids for k in (1, 2)]
        assert [choice.continuation.ids for choice in choices] == [[], *expected]


class TestEnding:
    """Before a text is done."""

    @pytest.mark.parametrize("keep", [False, True])
    def test_frees_the_slot_before_the_next_step(self, served: ServedProgram, keep: bool) -> None:
        """Of one whose state is kept: with the next step, which appends its last token."""
        going = Continuations(served.batch(2))
        prompt = Prompt(served.request([1, 2, 3], {"seed": 1, "max_new_tokens": 50}), None, keeps_state=True)
        (choice,) = prompt.choices
        going.add(prompt)
        for _ in range(10):
            going.step()
        told = going.end([choice], keep=keep)
        assert going.batch.free_slots == (1 if keep else 2)
        told += until_idle(going)
        assert [one.finish_reason for one in told] == ["cancelled"]
        assert going.end([choice]) == []
        if keep:
            served.check_goes_on(choice.snapshot, [1, 2, 3, *choice.continuation.ids])
        assert (choice.snapshot is None) == (not keep)

    def test_what_keeps_no_state_frees_its_slot_at_once(self, served: ServedProgram) -> None:
        """Also when what others keep is kept."""
        going = Continuations(served.batch(1))
        prompt = prompt_of(served, [1], max_new_tokens=50)
        (choice,) = prompt.choices
        going.add(prompt)
        while not choice.continuation.ids:
            going.step()
        assert [drawn.finish_reason for drawn in going.end([choice], keep=True)] == ["cancelled"]
        assert (going.batch.free_slots, going.is_idle) == (1, True)

    def test_a_prompt_that_nobody_waits_for_is_not_read_on(self, served: ServedProgram) -> None:
        """Its slot is free at once, or its place in the queue."""
        going = Continuations(served.batch(1, prefill_seconds=0))
        prompts = [prompt_of(served, [1] * 30, 2), prompt_of(served, [2] * 30)]
        choices = [list(prompt.choices) for prompt in prompts]
        for prompt in prompts:
            going.add(prompt)
        served.faults.next(MemoryError(), name="nothing")
        going.end(choices[1])
        assert going.waiting == 1
        going.end(choices[0])
        assert going.is_idle
        assert going.batch.free_slots == 1

    def test_a_text_that_is_whole_keeps_its_own_reason(self, served: ServedProgram) -> None:
        """It was ended while its last token was being appended; an error does not take its text either."""
        for end in (lambda going, choice: going.end([choice]), lambda going, choice: going.fail([choice], InputError("x"))):
            going = Continuations(served.batch(1))
            prompt = Prompt(served.request([1], {"seed": 1, "max_new_tokens": 2}), None, keeps_state=True)
            (choice,) = prompt.choices
            going.add(prompt)
            while not choice.is_over:
                found = going.step()
            assert not any(drawn.is_last for drawn in found)
            (last,) = end(going, choice)
            assert (last.finish_reason, last.error, last.token) == ("length", None, choice.continuation.ids[-1])
            assert going.is_idle

    def test_closing_lets_go_of_all(self, served: ServedProgram) -> None:
        """Guides above all, which compute beside."""
        going = Continuations(served.batch(1))
        for _ in range(2):
            request = served.request([1], {"constraint": ANY})
            going.add(Prompt(dataclasses.replace(request, guide=lambda: EvenGuide(50)), None, 2))
        going.step()
        assert EvenGuide.open == 4
        going.close()
        assert EvenGuide.open == 0
        assert going.is_idle


class TestWhatFails:
    """Costs the text that it hits, and no other."""

    @pytest.mark.parametrize("forks", [0, 1, 2])
    def test_a_guide_that_does_not_open(self, served: ServedProgram, forks: int) -> None:
        """Or not another time, for a further text: raises where the prompt is made, and those that opened are closed."""
        left = iter(range(forks))

        class Guide(EvenGuide):
            def fork(self) -> EvenGuide:
                return open_guide()

        def open_guide() -> Guide:
            if next(left, None) is None:
                raise InputError("the constraint can't be followed")
            return Guide(5)

        request = dataclasses.replace(served.request([1], {"constraint": ANY}), guide=open_guide)
        with pytest.raises(InputError, match="can't be followed"):
            Prompt(request, None, 3)
        assert EvenGuide.open == 0

    @pytest.mark.parametrize("error", [InputError("no way on"), RuntimeError("a bug")])
    def test_choosing_a_token(self, served: ServedProgram, error: Exception) -> None:
        """Of one text, by its own guide: the others go on."""
        going = Continuations(served.batch(2))
        request = served.request([1], {"constraint": ANY})
        bad = Prompt(dataclasses.replace(request, guide=lambda: EvenGuide(9, 4, error)))
        good = prompt_of(served, [1, 2], max_new_tokens=10)
        (failed,), (choice,) = bad.choices, good.choices
        going.add(bad)
        going.add(good)
        found = until_idle(going)
        assert [str(drawn.error) for drawn in found if drawn.error] == [
            str(error) if isinstance(error, FovealError) else "choosing a token failed: RuntimeError: a bug"
        ]
        assert len(failed.continuation.ids) == 5
        assert texts_of(found)[choice] == served.alone([1, 2], seed=7, max_new_tokens=10).text

    def test_a_prompt_for_which_there_is_no_room_after_its_snapshot(self, served: ServedProgram) -> None:
        """It ends with the error, and takes no slot."""
        session = served.session()
        session.advance([[1] * 90])
        going = Continuations(served.batch(1))
        going.add(Prompt(served.request([2] * 7, {}), snapshot=session.snapshot()))
        good = prompt_of(served, [1, 2], max_new_tokens=3)
        (choice,) = good.choices
        going.add(good)
        found = until_idle(going)
        assert [type(drawn.error) for drawn in found if drawn.error] == [CapacityError]
        assert texts_of(found)[choice] == served.alone([1, 2], seed=7, max_new_tokens=3).text

    def test_no_memory_for_a_prompt(self, served: ServedProgram) -> None:
        """All its texts end with the error; those that decode and those that wait do not notice."""
        going = Continuations(served.batch(2))
        prompts = [prompt_of(served, [n] * 9, 2, max_new_tokens=4) for n in (1, 2, 3)]
        choices = [list(prompt.choices) for prompt in prompts]
        for prompt in prompts:
            going.add(prompt)
        served.faults.next(None, MemoryError("no more"), name="prefill")
        found = until_idle(going)
        failed = [drawn.choice for drawn in found if isinstance(drawn.error, CapacityError)]
        assert failed == choices[1]
        for n in (1, 3):
            expected = [served.alone([n] * 9, seed=7 + k, max_new_tokens=4).text for k in range(2)]
            assert [texts_of(found)[choice] for choice in choices[n - 1]] == expected

    def test_no_memory_for_a_step_is_told_and_the_step_made_again(self, served: ServedProgram) -> None:
        """No text is lost."""
        going = Continuations(served.batch(2))
        prompt = prompt_of(served, [1] * 5, 2, max_new_tokens=6)
        choices = list(prompt.choices)
        going.add(prompt)
        served.faults.next(None, MemoryError("no more"), name="step")
        found = until_idle(going)
        assert [type(drawn.error) for drawn in found if drawn.choice is None] == [CapacityError]
        expected = [served.alone([1] * 5, seed=7 + k, max_new_tokens=6).text for k in range(2)]
        assert [texts_of(found)[choice] for choice in choices] == expected

    def test_no_memory_for_the_state_that_is_kept(self, served: ServedProgram) -> None:
        """The text is whole all the same."""
        going = Continuations(served.batch(1))
        prompt = Prompt(served.request([1], {"seed": 7, "max_new_tokens": 5}), None, keeps_state=True)
        (choice,) = prompt.choices
        going.add(prompt)
        served.faults.next(MemoryError("no more"), name="read")
        found = until_idle(going)
        assert texts_of(found)[choice] == served.alone([1], seed=7, max_new_tokens=5).text
        assert choice.snapshot is None

    @pytest.mark.parametrize("name", ["step", "prefill", "read", "write", "fork"])
    @pytest.mark.parametrize("late", [False, True])
    def test_an_interrupt_loses_nothing(self, served: ServedProgram, name: str, late: bool) -> None:
        """Whichever call it comes in, whoever goes on after it gets all texts, and every end once."""
        for after in range(6):
            going = Continuations(served.batch(3))
            prompts = [Prompt(served.request([n] * 9, {"seed": n, "max_new_tokens": 5}), n, 3, None, True) for n in (1, 2)]
            choices = [choice for prompt in prompts for choice in prompt.choices]
            for prompt in prompts:
                going.add(prompt)
            served.faults.are_late = late
            served.faults.next(*[None] * after, KeyboardInterrupt(), name=name)
            found: list[Drawn] = []
            for _ in range(300):
                try:
                    found += going.step()
                except KeyboardInterrupt:
                    continue
            assert going.is_idle
            assert going.batch.free_slots == 3
            assert [sum(one.is_last for one in found if one.choice is choice) for choice in choices] == [1] * 6
            expected = [served.alone([n] * 9, seed=n + k, max_new_tokens=5).text for n in (1, 2) for k in range(3)]
            assert [texts_of(found)[choice] for choice in choices] == expected

    def test_an_interrupt_in_a_hook(self, served: ServedProgram) -> None:
        """As Ctrl-C in a function of the user's: the token is drawn when the next step is made."""
        calls = []

        def hook(_ids: Any, logits: np.ndarray) -> np.ndarray:
            calls.append(0)
            if len(calls) in (2, 5):
                raise KeyboardInterrupt
            return logits

        going = Continuations(served.batch(3))
        prompt = prompt_of(served, [4, 2], 3, max_new_tokens=4, logits_hook=hook)
        choices = list(prompt.choices)
        going.add(prompt)
        found: list[Drawn] = []
        interrupts = 0
        while not going.is_idle:
            try:
                found += going.step()
            except KeyboardInterrupt:
                interrupts += 1
        expected = [served.alone([4, 2], seed=7 + k, max_new_tokens=4).text for k in range(3)]
        assert interrupts == 2
        assert [texts_of(found)[choice] for choice in choices] == expected


class TestDeadlines:
    """Count from when a request came, wherever it is."""

    def test_while_it_waits_and_while_it_is_read(self, served: ServedProgram, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ends without a token, and the slot is not taken, or free for the next."""
        clock = Clock()
        monkeypatch.setattr(request_module, "time", clock)
        going = Continuations(served.batch(1, prefill_seconds=0))
        late = {"max_seconds": 5, "max_new_tokens": 3}
        prompts = [prompt_of(served, [n] * 30, 2, **late) for n in (1, 2)] + [prompt_of(served, [3] * 4, max_new_tokens=3)]
        prompts = [prompt for prompt in prompts if object.__setattr__(prompt.request, "begun", 0.0) is None]
        for prompt in prompts:
            for choice in prompt.choices:
                object.__setattr__(choice.continuation.request, "begun", 0.0)
        choices = [list(prompt.choices) for prompt in prompts]
        for prompt in prompts:
            going.add(prompt)
        clock.now = 6.0
        found = going.step()
        assert [(one.choice, one.finish_reason) for one in found] == [(one, "deadline") for one in choices[0] + choices[1]]
        found = until_idle(going)
        assert texts_of(found) == {choices[2][0]: served.alone([3] * 4, seed=7, max_new_tokens=3).text}

    def test_while_it_decodes(self, served: ServedProgram, monkeypatch: pytest.MonkeyPatch) -> None:
        """After the token with which it was too late; its state is kept."""
        clock = Clock()
        monkeypatch.setattr(request_module, "time", clock)
        going = Continuations(served.batch(1))
        request = Request([1, 2], SamplingParams(max_seconds=5, seed=1), begun=0.0)
        prompt = Prompt(request, None, keeps_state=True)
        (choice,) = prompt.choices
        going.add(prompt)
        while len(choice.continuation.ids) < 4:
            going.step()
        clock.now = 5.0
        until_idle(going)
        assert (len(choice.continuation.ids), choice.continuation.finish_reason) == (5, "deadline")
        served.check_goes_on(choice.snapshot, [1, 2, *choice.continuation.ids])


def test_a_sequence_that_is_full_keeps_what_it_holds(served: ServedProgram) -> None:
    """Its last token was drawn, and there is no room to append it."""
    going = Continuations(served.batch(1, capacity=12))
    prompt = Prompt(served.request([1] * 8, {"seed": 7, "max_new_tokens": 50}), None, keeps_state=True)
    (choice,) = prompt.choices
    going.add(prompt)
    found = until_idle(going)
    assert (found[-1].finish_reason, len(choice.continuation.ids)) == ("capacity", 5)
    served.check_goes_on(choice.snapshot, [1] * 8 + choice.continuation.ids[:4])


@pytest.mark.parametrize("fails", [False, True])
def test_a_mark_that_is_not_given_out_is_not_kept_either(served: ServedProgram, fails: bool) -> None:
    """Though most of it was appended before it was known to be one; an interrupt while it is taken back changes nothing."""
    ids = served.alone([1], seed=7, max_new_tokens=9).ids
    rule = EndRule(name="mark", period=100, ids=tuple(ids[3:6]))
    request = dataclasses.replace(served.request([1], {"seed": 7, "max_new_tokens": 30}), end_rules=(rule,))
    going = Continuations(served.batch(1))
    prompt = Prompt(request, None, keeps_state=True)
    (choice,) = prompt.choices
    going.add(prompt)
    if fails:
        served.faults.next(KeyboardInterrupt(), name="read")
    found: list[Drawn] = []
    while not going.is_idle:
        try:
            found += going.step()
        except KeyboardInterrupt:
            continue
    assert (choice.continuation.ids, found[-1].finish_reason) == (ids[:3], "end")
    served.check_goes_on(choice.snapshot, [1, *ids[:3]])


@pytest.mark.parametrize("reason", ["stop", "end", "complete"])
def test_what_a_state_holds_by_how_a_text_ended(served: ServedProgram, reason: str) -> None:
    """All ids that were given out: those of a stop string among them, an end token not."""
    ids = served.alone([1], seed=7, max_new_tokens=9).ids
    settings: dict[str, Any] = {"seed": 7, "max_new_tokens": 30}
    settings |= {"stop": {"stop": Letters().decode(ids[2:4])}, "end": {"end": [ids[4]]}}.get(reason, {"constraint": ANY})
    request = served.request([1], settings)
    if reason == "complete":
        request = dataclasses.replace(request, guide=lambda: EvenGuide(3))
    going = Continuations(served.batch(1))
    prompt = Prompt(request, None, keeps_state=True)
    (choice,) = prompt.choices
    going.add(prompt)
    found = until_idle(going)
    assert found[-1].finish_reason == reason
    if reason != "complete":
        assert choice.continuation.ids == ids[: len(choice.continuation.ids)]
    served.check_goes_on(choice.snapshot, [1, *choice.continuation.ids])
