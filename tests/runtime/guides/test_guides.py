"""Whatever a model draws, its text follows the constraint."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from guided import SHIPPED, drawn_ids, few_words, llama_tokenizer, whole_text
from hypothesis import assume, given
from hypothesis import strategies as st

from foveal import InputError
from foveal.runtime.guides.constraint import Constraint
from foveal.runtime.guides.guide import Guide
from foveal.runtime.guides.guides import Guides
from foveal.runtime.tokenizer import ByteTokenizer, HuggingFaceTokenizer, TextTokenizer

COMPACT = {"x-guidance": {"whitespace_flexible": False}}
KINDS = ["bytes", "shipped", "llama"]
VOCABULARIES = {"bytes": 300, "shipped": 4200, "llama": 315}
SEEDS = st.integers(0, 2**32 - 1)

Made = dict[str, tuple[TextTokenizer, Guides]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Bytes, the byte-level tokenizer that comes with foveal, and one with byte fallback; models with more ids than tokens."""
    llama = llama_tokenizer(tmp_path_factory.mktemp("llama") / "tokenizer.json")
    tokenizers: dict[str, TextTokenizer] = {"bytes": ByteTokenizer(), "shipped": HuggingFaceTokenizer(SHIPPED), "llama": llama}
    return {kind: (tokenizers[kind], Guides(tokenizers[kind], VOCABULARIES[kind])) for kind in KINDS}


def end_of(tokenizer: TextTokenizer) -> frozenset[int]:
    """A token that ends texts: Llama's, or one that no text here needs."""
    found = tokenizer.token_id("</s>") or tokenizer.token_id("ĠThe") or tokenizer.token_id("\x0b")
    assert found is not None
    return frozenset({found})


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Those whose texts are short, of what llguidance enforces."""
    few = st.integers(0, 3)
    values = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text('aé"\\\n日', max_size=3))
    leaves = st.one_of(
        st.sampled_from([{"type": "null"}, {"type": "boolean"}, {"type": "string", "format": "ipv4"}]),
        st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, st.integers(-99, 99), few),
        st.builds(
            lambda low, more: {"type": "number", "exclusiveMinimum": low / 2, "maximum": round(low / 2 + more / 100, 2)},
            st.integers(-9, 9),
            st.integers(1, 300),
        ),
        st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, few, few),
        st.sampled_from(["^[a-c]{1,4}$", "^(é|日本)?x$", r"^\d{2}-\d{2}$"]).map(lambda it: {"type": "string", "pattern": it}),
        st.lists(values, min_size=1, max_size=3).map(lambda it: {"enum": it}),
        values.map(lambda it: {"const": it}),
    )
    return st.recursive(leaves, lambda inner: st.one_of(arrays(inner), objects(inner), unions(inner)), max_leaves=6)


def arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Of a few items."""
    few = st.integers(0, 2)
    return st.builds(
        lambda it, low, more: {"type": "array", "items": it, "minItems": low, "maxItems": low + more}, inner, few, few
    )


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Closed ones, some of whose properties are required."""
    properties = st.dictionaries(st.sampled_from(["a", "b", "ein Name", "é", '"']), inner, max_size=3)
    return properties.flatmap(
        lambda it: (
            st.lists(st.sampled_from(sorted(it)), unique=True, max_size=len(it)).map(
                lambda required: {"type": "object", "properties": it, "required": required, "additionalProperties": False}
            )
            if it
            else st.just({"type": "object", "additionalProperties": False})
        )
    )


def unions(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """One of two."""
    return st.lists(inner, min_size=1, max_size=2).map(lambda it: {"anyOf": it})


def is_valid(text: str, schema: Any) -> bool:
    """Whether a text is JSON of a schema, by a library that knows nothing of tokens; numbers of both as they are written."""
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    validator = jsonschema.Draft202012Validator(exact, format_checker=jsonschema.FormatChecker(["ipv4"]))
    return bool(validator.is_valid(json.loads(text, parse_float=Decimal)))


@pytest.mark.parametrize("kind", KINDS)
@given(schema=schemas(), seed=SEEDS, ends=st.booleans())
def test_text_follows_any_schema(kind: str, schema: dict[str, Any], seed: int, ends: bool, made: Made) -> None:
    """With end tokens and without; only with compact JSON does a model that draws at random ever get anywhere."""
    tokenizer, guides = made[kind]
    try:
        constraint = Constraint("json_schema", {**schema, **COMPACT})
    except InputError as error:
        assume("Unsatisfiable" not in str(error) and "let the bound itself through" not in str(error))
        raise
    end_ids = end_of(tokenizer) if ends else frozenset()
    text = whole_text(tokenizer, guides.guide(constraint, end_ids), np.random.default_rng(seed), end_ids)
    assert is_valid(text, schema), text


def regexes() -> st.SearchStrategy[str]:
    """Of letters, a space, and characters of more bytes; all of them end."""
    leaves = st.sampled_from(["a", " ", "no", "[a-e]", "é", "[日本]", "yes|no", "[0-9]", r"\.", "[^a-z]", "/"])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=4).map("".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda it: f"({'|'.join(it)})"),
            st.builds(lambda it, low, more: f"({it}){{{low},{low + more}}}", inner, st.integers(0, 3), st.integers(0, 2)),
            inner.map(lambda it: f"({it})?"),
        ),
        max_leaves=8,
    )


@pytest.mark.parametrize("kind", KINDS)
@given(regex=regexes(), seed=SEEDS, ends=st.booleans())
def test_all_of_a_text_matches_any_regex(kind: str, regex: str, seed: int, ends: bool, made: Made) -> None:
    """As Python reads it; also where a space comes first, which some tokenizers take off."""
    tokenizer, guides = made[kind]
    end_ids = end_of(tokenizer) if ends else frozenset()
    text = whole_text(tokenizer, guides.guide(Constraint("regex", regex), end_ids), np.random.default_rng(seed), end_ids)
    assert re.fullmatch(regex, text), text


@pytest.mark.parametrize("kind", KINDS)
def test_text_follows_a_grammar(kind: str, made: Made) -> None:
    """Here sums in brackets, which no regex can tell."""
    grammar = 'start: sum\nsum: "(" (sum | NUMBER) "+" NUMBER ")"\nNUMBER: /[0-9]{1,3}/'
    tokenizer, guides = made[kind]
    for seed in range(3):
        text = whole_text(tokenizer, guides.guide(Constraint("grammar", grammar)), np.random.default_rng(seed))
        while (inner := re.sub(r"\(\d+\+\d+\)", "1", text)) != text:
            text = inner
        assert text == "1"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schema", [{}, True, {"type": "object"}])
def test_any_json_is_json(kind: str, schema: Any, made: Made) -> None:
    """Every way that a random walk goes begins a JSON text; those that come to an end are one."""
    tokenizer, guides = made[kind]
    for seed in range(4):
        guide, rng = guides.guide(Constraint("json_schema", schema)), np.random.default_rng(seed)
        ids: list[int] = []
        while len(ids) < 60 and guide.allowed().any():
            ids.append(int(rng.choice(np.flatnonzero(guide.allowed()))))
            guide.take(ids[-1])
            if guide.is_whole:
                json.loads(tokenizer.decode(ids))


def test_end_tokens_come_where_the_text_may_end_and_nowhere_else(made: Made) -> None:
    """Also if they are tokens of text."""
    guides = made["bytes"][1]
    guide = guides.guide(Constraint("regex", "ab*"), frozenset({ord("b"), 7}))
    assert np.flatnonzero(guide.allowed()).tolist() == [ord("a")]
    assert not guide.is_whole
    guide.take(ord("a"))
    assert np.flatnonzero(guide.allowed()).tolist() == [7, ord("b")]
    assert guide.is_whole
    guide.take(ord("b"))
    assert not guide.allowed().any()
    assert guide.is_whole
    with pytest.raises(InputError, match=f"token {ord('a')} does not follow"):
        guide.take(ord("a"))


def test_without_end_tokens_nothing_is_allowed_when_the_text_is_whole(made: Made) -> None:
    """And before that, that it may end forbids nothing."""
    guide = made["bytes"][1].guide(Constraint("regex", "ab?"))
    guide.take(ord("a"))
    assert np.flatnonzero(guide.allowed()).tolist() == [ord("b")]
    assert guide.is_whole
    guide.take(ord("b"))
    assert not guide.allowed().any()
    assert guide.is_whole


def test_a_constraint_of_no_text_is_whole_at_once(made: Made) -> None:
    """An empty regex."""
    for kind in KINDS:
        tokenizer, guides = made[kind]
        guide = guides.guide(Constraint("regex", ""), end_of(tokenizer))
        assert (np.flatnonzero(guide.allowed()).tolist(), guide.is_whole) == ([*end_of(tokenizer)], True)
        assert not guides.guide(Constraint("regex", "")).allowed().any()


@pytest.mark.parametrize("token", [-1, 10**6, ord("b"), 299])
def test_a_token_that_is_not_allowed_is_refused(token: int, made: Made) -> None:
    """And the guide stays where it was."""
    guide = made["bytes"][1].guide(Constraint("regex", "ac"))
    with pytest.raises(
        InputError, match=rf"token {token} does not follow the constraint here, expected one of the 1 ids that may"
    ):
        guide.take(token)
    guide.take(ord("a"))
    guide.take(ord("c"))
    assert guide.is_whole


@pytest.mark.parametrize("kind", KINDS)
def test_ids_without_a_token_and_named_tokens_are_never_allowed(kind: str, made: Made) -> None:
    """Not by what allows every text."""
    tokenizer, guides = made[kind]
    spelling = tokenizer.spelling()
    text = {id for id, data in enumerate(spelling.written) if data and b"\xff" not in data}
    guide = guides.guide(Constraint("regex", "(?s:.*)"))
    allowed = guide.allowed()
    assert (allowed.shape, allowed.dtype, allowed.flags.writeable) == ((VOCABULARIES[kind],), bool, False)
    assert set(np.flatnonzero(allowed)) <= text
    assert not set(np.flatnonzero(allowed)) & set(spelling.named)


def test_a_grammar_can_name_tokens_that_are_no_text(made: Made) -> None:
    """Special ones, and those added in angle brackets; by their text they can't be reached."""
    tokenizer, guides = made["llama"]
    tool = tokenizer.token_id("<tool>")
    guide = guides.guide(Constraint("grammar", 'start: "a" <tool> /[a-c]/'))
    assert tool not in drawn_ids(guides.guide(Constraint("regex", "<tool>")), np.random.default_rng(0))
    a = tokenizer.token_id("a")
    assert a is not None
    guide.take(a)
    assert np.flatnonzero(guide.allowed()).tolist() == [tool]
    assert tool in drawn_ids(guide, np.random.default_rng(0))
    with pytest.raises(InputError, match="can't be followed with this tokenizer: .*<nothing>"):
        guides.guide(Constraint("grammar", "start: <nothing>"))
    with pytest.raises(InputError, match="can't be followed with this tokenizer: .*<nothing>"):
        made["bytes"][1].guide(Constraint("grammar", "start: <nothing>"))


def test_a_leading_space_that_is_taken_off_counts_for_nothing(made: Made) -> None:
    """So a model may begin with the token it would, and the text is what the constraint says."""
    tokenizer, guides = made["llama"]
    yes, spaced = tokenizer.token_id("yes"), tokenizer.token_id("▁yes")
    assert yes is not None
    assert spaced is not None
    guide = guides.guide(Constraint("regex", "yes|no"))
    assert {yes, spaced} <= set(np.flatnonzero(guide.allowed()))
    guide.take(spaced)
    assert (guide.is_whole, guide.allowed().any(), tokenizer.decode([spaced])) == (True, False, "yes")
    guide = guides.guide(Constraint("regex", " yes"))
    assert spaced not in np.flatnonzero(guide.allowed())


@pytest.mark.parametrize("kind", KINDS)
def test_forks_go_on_by_themselves(kind: str, made: Made) -> None:
    """From where the first stands, with what it was computing, and whatever becomes of it."""
    tokenizer, guides = made[kind]
    guide = guides.guide(Constraint("regex", "(yes|no)(, (yes|no)){0,5}"))
    for id in tokenizer.spelling().encode("yes, "):
        guide.take(id)
    forks = [guide.fork() for _ in range(4)]
    assert all(np.array_equal(fork.allowed(), guide.allowed()) for fork in forks)
    guide.close()
    texts = {tokenizer.decode(drawn_ids(fork, np.random.default_rng(seed))) for seed, fork in enumerate(forks)}
    assert len(texts) > 1
    assert all(re.fullmatch("(yes|no)(, (yes|no)){0,4}", text) for text in texts)


def test_a_closed_guide_says_so(made: Made) -> None:
    """Closing it twice is nothing."""
    guide = made["bytes"][1].guide(Constraint("regex", "ab"))
    guide.close()
    guide.close()
    for ask in (guide.allowed, guide.fork, lambda: guide.is_whole, lambda: guide.take(97)):
        with pytest.raises(InputError, match="this guide is closed"):
            ask()


def test_what_masks_cost_is_counted(made: Made) -> None:
    """All seconds, and those that were waited for."""
    guide: Guide = made["shipped"][1].guide(Constraint("json_schema", {"type": "string", "maxLength": 40}))
    drawn_ids(guide, np.random.default_rng(0))
    seconds = guide.seconds
    assert 0 < seconds < 60
    assert 0 < guide.waited_seconds < 60
    assert guide.fork().waited_seconds == 0
    guide.close()
    assert guide.seconds == seconds


def test_end_tokens_are_ids_of_the_model(made: Made) -> None:
    """Others are refused."""
    with pytest.raises(InputError, match="the end tokens hold 300, expected 0 <= id < 300"):
        made["bytes"][1].guide(Constraint("regex", "a"), frozenset({300}))


def test_what_no_token_can_write_is_said(tmp_path: Path) -> None:
    """Where it is asked for, and not as the end of the text, which llguidance's mask would say."""
    tokenizer = few_words(tmp_path / "tokenizer.json", ["a", "b", "ab"])
    guides = Guides(tokenizer, 3)
    guide = guides.guide(Constraint("regex", "ab?c"))
    assert not guide.is_whole
    guide.take(0)
    with pytest.raises(InputError, match=r"no token of the tokenizer writes what .* next; allow other characters there"):
        guide.take(1)
        guide.allowed()
    with pytest.raises(InputError, match="no token of the tokenizer writes what"):
        guides.guide(Constraint("regex", "a[cd]"), frozenset()).take(0) or guides.guide(Constraint("regex", "[cd]")).allowed()


def test_what_only_an_end_token_could_write_is_said(made: Made) -> None:
    """It would end the text."""
    guide = made["bytes"][1].guide(Constraint("regex", "a\nb"), frozenset({10}))
    guide.take(97)
    with pytest.raises(InputError, match="asks for token 10 inside the text, which is one that ends it; name other end tokens"):
        guide.allowed()


def test_a_grammar_that_is_too_much_for_llguidance_says_so(made: Made) -> None:
    """Right recursion, here, in a hundred ways at once; each time it is asked."""
    rules = "\n".join(f'r{index}: "a" r{index}?' for index in range(100))
    ways = " | ".join(f"r{index}" for index in range(100))
    guide = made["bytes"][1].guide(Constraint("grammar", f"start: {ways}\n{rules}"))
    with pytest.raises(InputError, match="the constraint can't be followed on: .*[Mm]ax"):
        for _ in range(300):
            guide.take(97)
    with pytest.raises(InputError, match="the constraint can't be followed on"):
        guide.allowed()


def test_words_that_have_no_bytes_are_refused(tmp_path: Path) -> None:
    """With what in the tokenizer is the reason."""
    from tokenizers import Tokenizer, decoders, models

    made = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    made.decoder = decoders.WordPiece()
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="its decoder is WordPiece"):
        Guides(HuggingFaceTokenizer(tmp_path / "tokenizer.json"), 2)


@pytest.mark.parametrize(("regex", "texts"), [("^ab$", ["ab"]), ("a.", ["a\n"]), ("(?i)ab", ["AB", "ab", "aB"])])
def test_regexes_are_rust_s(regex: str, texts: list[str], made: Made) -> None:
    """Anchors at the ends are nothing, and a dot is no line end."""
    guides = made["bytes"][1]
    for text in texts:
        guide = guides.guide(Constraint("regex", regex))
        follows = all(guide.allowed()[byte] and guide.take(byte) is None for byte in text.encode())
        assert follows == (text != "a\n")
