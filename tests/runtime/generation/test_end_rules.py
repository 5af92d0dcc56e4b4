"""Ends that a family's own ids mark: of a patch, of a piece, of a file; asked for by name, wherever the sequence stands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal import BundleError, ConfigError, InputError, SamplingParams, Service, SessionStore
from foveal.bundle import MANIFEST, ModelInfo, open_bundle
from foveal.contract import EndRule, patch_rule
from foveal.runtime.generation.end_watch import EndWatch
from foveal.runtime.model import Model

Written = Callable[..., dict[str, Any]]

few_ids = st.lists(st.integers(0, 2), max_size=24)
marks = st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple)


@st.composite
def rules(draw: st.DrawFn) -> EndRule:
    """Of complete patches, or of marks of one to three ids, at a place or anywhere."""
    if draw(st.booleans()):
        return patch_rule(draw(st.integers(1, 5)))
    ids, period = draw(marks), draw(st.integers(3, 5))
    place = draw(st.none() | st.integers(0, period - len(ids)))
    return EndRule(name="x", period=period, ids=ids, place=place, gives_out=draw(st.booleans()))


def is_marked(rule: EndRule, ids: list[int]) -> bool:
    """Whether a sequence ends with the mark, by the words of `EndRule`."""
    if not rule.ids:
        return len(ids) % rule.period == 0
    first = len(ids) - len(rule.ids)
    if first < 0 or tuple(ids[first:]) != rule.ids:
        return False
    place = first % rule.period
    is_within = (len(ids) - 1) // rule.period == first // rule.period
    return is_within and rule.place in (None, place)


@given(st.lists(rules(), max_size=3), few_ids, st.integers(0, 24))
def test_marks_are_found_wherever_the_sequence_was_cut(some: list[EndRule], ids: list[int], cut: int) -> None:
    """What was there before counts for places, and as the beginning of marks; the longest mark is named."""
    watch = EndWatch(some, np.array(ids[:cut], np.int64))
    for count in range(cut + 1, len(ids) + 1):
        found = watch.take(ids[count - 1])
        expected = [rule for rule in some if is_marked(rule, ids[:count])]
        assert (found is not None) is bool(expected)
        assert found is None or found.length == max(len(rule.ids) for rule in expected)
        may_begin = [
            length
            for rule in some
            if not rule.gives_out
            for length in range(1, len(rule.ids))
            if is_marked(rule, [*ids[: count - length], *rule.ids]) and tuple(ids[count - length : count]) == rule.ids[:length]
        ]
        assert watch.pending == max([length for length in may_begin if length <= count], default=0)


CASES: dict[str, tuple[int, list[int], str, list[int], str, str | None]] = {
    "a piece: its mark is not given out": (4, [9, 9, 9, 9, 1, 2, 7], "piece", [9, 9, 9, 9], "end", "piece"),
    "not inside a patch": (4, [9, 1, 2, 9, 7], "piece", [9, 1, 2, 9, 7], "length", None),
    "what only begins like it comes out": (4, [1, 9, 9, 9, 1], "piece", [1, 9, 9, 9, 1], "length", None),
    "begun by the prompt": (5, [2, 9], "piece", [], "end", "piece"),
    "at once": (4, [1, 2], "piece", [], "end", "piece"),
    "a patch is complete": (5, [9, 9, 9, 9], "patch", [9, 9, 9], "end", "patch"),
    "an end of a patch": (5, [9, 2, 9, 9], "patch", [9, 2], "end", "patch"),
    "the longest mark counts": (4, [1, 2, 9], "patch piece", [], "end", "piece"),
    "a file: anywhere in a patch": (4, [9, 9, 256, 9], "file", [9, 9], "end", "file"),
    "a whole number of times": (4, [9, 256, 9], "file file", [9], "end", "file"),
}
"""Length of the prompt, which ends with 1; what is drawn; rules; what comes out, and why."""


@pytest.mark.parametrize("case", CASES)
def test_where_ids_end(case: str, patches: Model, written: Written) -> None:
    """By absolute places; the same for ids, for text, in a batch, and for a service, whose session stands behind what came."""
    after, ids, names, expected, reason, rule = CASES[case]
    prompt, settings = [9] * (after - 1) + [1], written(after, ids)
    found = patches.generate_ids(prompt, SamplingParams(**settings), end_rules=names.split())
    assert (list(found), found.finish_reason, found.end_rule) == (expected, reason, rule)

    text = patches.generate(prompt, end_rules=names.split(), **settings)
    assert "".join(text) == bytes(one for one in expected if one < 256).decode()
    assert (text.ids, text.finish_reason) == (expected, reason)

    many = patches.generate_many([prompt, prompt], slots=2, n=2, end_rules=names.split(), **settings)
    list(many)
    assert list(many.ids.values()) == [expected] * 4
    assert set(many.finish_reasons.values()) == {reason}

    with SessionStore(patches, memory_bytes=1 << 24) as kept, Service(patches, slots=1, store=kept) as service:
        stream = service.submit(prompt, session="s", as_text=False, end_rules=names.split(), **settings)
        events = [event for event in stream if event.token is not None]
        assert [event.token for event in events] == expected
        assert [event.position for event in events] == list(range(after, after + len(expected)))
        assert stream.session_position == after + len(expected)
        assert stream.finish_reasons[0] == reason


def test_a_session_goes_on_in_the_middle_of_a_patch(patches: Model, written: Written) -> None:
    """Places are those of the whole sequence, also of what was restored."""
    with SessionStore(patches, memory_bytes=1 << 24) as kept, Service(patches, slots=1, store=kept) as service:
        first = service.submit([9, 9, 9], session="s", as_text=False, **written(3, [5, 5]))
        assert [event.token for event in first] == [5, 5]
        assert first.session_position == 5
        second = service.submit([7], session="s", as_text=False, end_rules="patch", **written(6, [4, 4, 4]))
        assert [event.token for event in second] == [4, 4]
        third = service.submit([], session="s", as_text=False, end_rules="piece", **written(8, [1, 2, 4]))
        assert [event.token for event in third if event.token is not None] == []
        assert (third.finish_reasons, third.session_position) == ({0: "end"}, 8)


def test_log_probabilities_are_of_what_is_given_out(patches: Model, written: Written) -> None:
    """One for each id, also where several come out together."""
    settings = written(4, [1, 9, 9, 9, 1, 2], logprobs=0)
    text = patches.generate([9] * 4, end_rules="piece", **settings)
    list(text)
    assert [one.token for one in text.logprobs] == text.ids == [1, 9, 9, 9]
    many = patches.generate_many([[9] * 4], end_rules="piece", **settings)
    list(many)
    assert [one.token for one in many.logprobs[0]] == [1, 9, 9, 9]


def test_no_rule_ends_before_there_are_enough_tokens(patches: Model, written: Written) -> None:
    """As no end token and no stop string does."""
    found = patches.generate_ids([9] * 4, SamplingParams(**written(4, [1, 2, 9, 9, 1, 2], min_tokens=3)), end_rules="piece")
    assert (list(found), found.finish_reason) == ([1, 2, 9, 9], "end")


def test_an_end_token_and_a_full_context_let_out_what_was_held_back(patches: Model, written: Written) -> None:
    """It was no mark."""
    ended = patches.generate_ids([9] * 4, SamplingParams(**written(4, [1, 5])), end=5, end_rules="piece")
    assert (list(ended), ended.finish_reason) == ([1], "end")
    full = patches.generate([9] * 160, end_rules="piece", **written(160, [1, 2]))
    assert list(full) == ["\x01"]
    assert full.finish_reason == "capacity"


def test_whoever_leaves_finds_the_session_at_what_came_out(patches: Model, written: Written) -> None:
    """The beginning of a mark is taken back."""
    from foveal.runtime.generation.generate import GeneratedIds, begin

    session = patches.session()
    request = patches.request([9] * 4, {**written(4, [9, 9, 9, 9, 1, 2]), "end_rules": "piece"}, as_text=False)
    assert list(GeneratedIds(*begin(session, request))) == [9] * 4
    assert session.tokens[0].tolist() == [9] * 8


def test_names_that_there_are_not(patches: Model, model: Model) -> None:
    """Those that there are, and what they mean; at the call, for many prompts too."""
    listed = (
        r"the model has no end rule 'song'; it has patch: a patch of 4 is complete or a patch contains 2; "
        r"piece: a patch begins with 1, 2; file: a patch contains 256"
    )
    with pytest.raises(InputError, match=listed):
        patches.generate([9], end_rules="song")
    with pytest.raises(InputError, match="no end rule 'song'"):
        patches.generate_many([[9]], end_rules=["song"])
    with pytest.raises(InputError, match="the model has no end rule 'piece'; it has none: name end tokens"):
        model.generate_ids([9], end_rules=["piece"])
    for wrong in (5, None, [5]):
        with pytest.raises(InputError, match="the model has no end rule"):
            patches.generate([9], end_rules=wrong)  # type: ignore[arg-type]


def test_each_prompt_may_have_rules_of_its_own(patches: Model, written: Written) -> None:
    """A list of lists."""
    many = patches.generate_many([[9] * 4] * 2, end_rules=[["patch"], []], **written(4, [9] * 6))
    list(many)
    assert [len(many.ids[index]) for index in range(2)] == [4, 6]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": " "}, "an end rule has the name ' ', expected a word"),
        ({"period": 0}, "has period 0 and ids"),
        ({"ids": (-1,)}, r"has period 4 and ids \[-1\], expected 1 and 0 or more"),
        ({"ids": (1, 2), "place": 3}, "has 2 ids at place 3, expected within a patch of 4"),
        ({"place": -1, "ids": (1,)}, "has 1 ids at place -1"),
        ({"gives_out": False}, "of complete patches: they have no place, and are given out"),
    ],
)
def test_rules_that_mean_nothing(changes: dict[str, Any], reason: str) -> None:
    """Refused when they are declared."""
    with pytest.raises(ConfigError, match=reason):
        EndRule(**{"name": "x", "period": 4, "gives_out": True, **changes})


def test_a_manifest_holds_them(patches: Model, tmp_path: Path) -> None:
    """One of before there were any has none; one whose rules mean nothing, or are of other ids, is no bundle."""
    info = msgspec.json.decode(msgspec.json.encode(patches.manifest.model))
    del info["end_rules"]
    assert msgspec.convert(info, ModelInfo).end_rules == ()
    for change, reason in (
        ({"ids": [999]}, r"end rule x of .* has ids \[999\], expected ids below 257"),
        ({"ids": [], "period": 0}, "is not a foveal manifest"),
    ):
        copy = shutil.copytree(patches.bundle.path, tmp_path / "b", dirs_exist_ok=True)
        manifest = msgspec.json.decode((patches.bundle.path / MANIFEST).read_bytes())
        manifest["model"]["end_rules"] = [{"name": "x", "period": 4, "gives_out": True, **change}]
        (copy / MANIFEST).write_bytes(msgspec.json.encode(manifest))
        with pytest.raises(BundleError, match=reason):
            open_bundle(copy)
