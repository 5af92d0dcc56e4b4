"""A generation's timeline, as Perfetto's own parser understands it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from deciding_model import deciding_bundle
from drafts import FreeCosts, KnowingDrafter
from jobs import bytes_bundle
from specimens import Zoo
from store import Store
from trace_processor import Query, trace_processor

from foveal import load
from foveal.bench.trace import Trace, rows_in_use
from foveal.bench.trace_file import as_json, save_trace
from foveal.contract import CacheSpec, StageSpec
from foveal.forecast.traffic import bytes_per_token
from foveal.runtime.generation.continuation import Continuation
from foveal.runtime.generation.generate import GeneratedIds, begin
from foveal.runtime.generation.observed import ObservedSession
from foveal.runtime.generation.request import Request
from foveal.runtime.model import Model
from foveal.runtime.sampling import SamplingParams
from foveal.runtime.speculation.drafting import Drafting

PROMPT = [3, 14, 15, 9, 26, 5, 35]
NEW = 26
THREAD = "join thread_track on slice.track_id = thread_track.id join thread using (utid) join process using (upid)"


@pytest.fixture(scope="module")
def model(zoo: Zoo) -> Model:
    """Three scales, of which the coarsest fires with every 8th token."""
    return load(zoo["nested"].bundle, threads=1)


@pytest.fixture(scope="module")
def trace(model: Model) -> Trace:
    """Of a prompt and some tokens."""
    found = Trace(model)
    list(model.generate_ids(PROMPT, SamplingParams(seed=1, max_new_tokens=NEW), observer=found))
    return found


@pytest.fixture(scope="module")
def query(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """Asks the parser."""
    yield from _queries(trace, tmp_path_factory)


def _queries(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    file = tmp_path_factory.mktemp("traces") / "trace.json"
    save_trace(file, trace)
    with trace_processor(file) as asked:
        yield asked


@pytest.fixture(scope="module")
def drafted(model: Model) -> Trace:
    """The same tokens, of which some are drafted, rightly or not."""
    params = SamplingParams(seed=1, max_new_tokens=NEW)
    ids = list(model.generate_ids(PROMPT, params))
    found = Trace(model)
    request = model.request(PROMPT, {"seed": 1, "max_new_tokens": NEW}, as_text=False)
    request = _with(request, [*PROMPT, *ids])
    assert list(GeneratedIds(*begin(ObservedSession.of(model, found), request, found))) == ids
    return found


def _with(request: Request, whole: list[int]) -> Request:
    return replace(request, drafting=Drafting(lambda sampler: KnowingDrafter(whole, Random(2), 4), FreeCosts()))


@pytest.fixture(scope="module")
def drafted_query(drafted: Trace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """Asks the parser of them."""
    yield from _queries(drafted, tmp_path_factory)


def all_fired(trace: Trace) -> dict[str, int]:
    """By the schedule, of all tokens in the session."""
    session = trace.sessions[0].session
    return {spec.name: spec.firings_within(session.position) for spec in session.specs}


def test_the_viewer_has_nothing_to_complain_of(query: Query, drafted_query: Query) -> None:
    """No event is dropped, overlaps another on its track, or leads nowhere."""
    for asked in (query, drafted_query):
        assert asked("select name, value from stats where severity != 'info' and value > 0") == []


def test_stages_are_tracks_in_the_order_of_the_dataflow(query: Query, model: Model) -> None:
    """Between the calls and what is drawn."""
    names = [row[0] for row in query("select name from thread where tid >= 100 order by tid")]
    assert names == ["calls", *(spec.name for spec in model.specs), "sampling", "drafts"]
    assert query("select name from process where pid = 1") == [(f"foveal {model.bundle.path.name}",)]


def test_slices_are_the_firings_that_the_schedule_foretells(query: Query, trace: Trace) -> None:
    """Rows of all slices of a stage's track; one slice of one row for each decode step in which it fires."""
    rows = f"select thread.name, sum(extract_arg(slice.arg_set_id, 'args.rows')) from slice {THREAD}"
    assert dict(query(f"{rows} where slice.category = 'stage' group by 1")) == all_fired(trace)
    session = trace.sessions[0].session
    for spec in session.specs:
        step, phase = "extract_arg(arg_set_id, 'args.step')", "extract_arg(arg_set_id, 'args.phase')"
        found = query(f"select {step}, {phase} from slice where category = 'stage' and name = '{spec.name}' order by ts")[1:]
        decoded = range(len(PROMPT), session.position)
        assert found == [(token, token % 8) for token in decoded if spec.firings(token, 1)]


def test_calls_and_draws_are_slices(query: Query) -> None:
    """One of the prompt, one for each token that was appended; drawn are all."""
    kinds = query(
        "select name, count(*), sum(extract_arg(arg_set_id, 'args.tokens')) from slice where category = 'calls' group by 1"
    )
    assert kinds == [("decode", NEW - 1, NEW - 1), ("prefill", 1, len(PROMPT))]
    places = query("select extract_arg(arg_set_id, 'args.position') from slice where name = 'sample' order by ts")
    assert places == [(len(PROMPT) + index,) for index in range(NEW)]


def test_every_stage_slice_is_within_a_call(query: Query) -> None:
    """In time."""
    outside = """
        select count(*) from slice stage where stage.category = 'stage' and not exists (
            select 1 from slice call
            where call.category = 'calls' and call.ts <= stage.ts and call.ts + call.dur >= stage.ts + stage.dur)
    """
    assert query(outside) == [(0,)]


def chain(query: Query, sample: int) -> list[str]:
    """Names of the slices that arrows lead to, one after the other, from the draw of the token at a position."""
    (start,) = query(f"select id from slice where name = 'sample' and extract_arg(arg_set_id, 'args.position') = {sample}")
    found, here = [], start[0]
    while True:
        following = query(f"select slice_in, slice.name from flow join slice on slice.id = slice_in where slice_out = {here}")
        if not following:
            return found
        ((here, name),) = following
        found.append(name)
        if name == "sample":
            return found


def test_a_token_leads_from_its_draw_through_the_stages_that_it_fires_to_the_next_draw(query: Query, trace: Trace) -> None:
    """And the prompt through all that it fires to the first."""
    specs = trace.sessions[0].session.specs
    for token in (len(PROMPT), 15, 16, 20, len(PROMPT) + NEW - 2):
        assert chain(query, token) == [*(spec.name for spec in specs if spec.firings(token, 1)), "sample"]
    assert chain(query, len(PROMPT) + NEW - 1) == []  # it was not appended
    first = "(select id from slice where name = 'sample' order by ts limit 1)"
    assert query(f"select count(*) from flow where slice_in = {first}") == [(1,)]


def counters(query: Query, name: str) -> list[float]:
    """Values of a counter, by time."""
    sql = "select value from counter join counter_track on counter.track_id = counter_track.id"
    return [row[0] for row in query(f"{sql} where counter_track.name = '{name}' order by ts")]


def test_counters_grow_with_the_text(query: Query, trace: Trace) -> None:
    """The position by one, rows of a cache when its stage fires."""
    assert counters(query, "position tokens") == [*range(len(PROMPT), len(PROMPT) + NEW)]
    for spec in trace.sessions[0].session.specs:
        seen = range(len(PROMPT), len(PROMPT) + NEW)
        assert counters(query, f"cache rows in use {spec.name}") == [spec.firings_within(tokens) for tokens in seen]


def test_bytes_read_are_those_of_the_roofline(query: Query, model: Model) -> None:
    """Of decode steps together."""
    read = bytes_per_token(model.bundle, "cpu", len(PROMPT), NEW - 1)
    assert sum(counters(query, "bytes read weights")[1:]) == pytest.approx(read.weights * (NEW - 1))
    assert sum(counters(query, "bytes read state")[1:]) == pytest.approx(read.caches * (NEW - 1))


def test_drafts_are_checked_and_taken_back(drafted: Trace, drafted_query: Query) -> None:
    """What came of each is told; what did not come is taken back, and the position with it."""
    came = drafted_query("""
        select sum(extract_arg(arg_set_id, 'args.drafted')), sum(extract_arg(arg_set_id, 'args.came'))
        from slice where name = 'draft'
    """)
    checks = drafted_query("select sum(extract_arg(arg_set_id, 'args.tokens') - 1), count(*) from slice where name = 'check'")
    assert checks[0][0] == came[0][0] > came[0][1] > 0
    rewinds = drafted_query("select count(*) from slice where name = 'rewind'")
    assert rewinds[0][0] == len(drafted.sessions[0].rewinds) > 0
    positions = counters(drafted_query, "position tokens")
    assert positions[-1] == drafted.sessions[0].session.position
    assert sum(after < before for before, after in pairwise(positions)) == rewinds[0][0]


def test_a_draft_that_came_leads_through_the_call_that_checked_it_to_its_draw(drafted: Trace, drafted_query: Query) -> None:
    """From the draft."""
    right = next(draft for draft in drafted.drafts if draft.tokens and draft.tokens[0] == _drawn(drafted, draft.position))
    sql = "select id from slice where name = 'draft' and extract_arg(arg_set_id, 'args.position') = {}"
    (start,) = drafted_query(sql.format(right.position))
    names = drafted_query(
        f"select distinct slice.name from directly_connected_flow({start[0]}) f join slice on slice.id = f.slice_in"
    )
    specs = drafted.sessions[0].session.specs
    assert names[0][0] == next(spec.name for spec in specs if spec.firings(right.position, 1))


def _drawn(trace: Trace, position: int) -> int | None:
    return next(choice.token for choice in trace.choices if choice.position == position)


def test_a_drafting_model_has_tracks_of_its_own(store: Store, tmp_path: Path) -> None:
    """It is another process; its session's calls are decode steps and what it had to catch up."""
    model = load(bytes_bundle(store), threads=1)
    trace = Trace(model)
    text = "".join(model.generate("abcabcabc", observer=trace, temperature=0, max_new_tokens=24, draft=model))
    assert text == "".join(model.generate("abcabcabc", temperature=0, max_new_tokens=24))
    assert [of.drafting for of in trace.sessions] == [None, "bytes"]
    events = as_json(trace)["traceEvents"]
    named = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert named == {1: "foveal bytes", 2: "drafts by bytes"}
    assert {event["name"] for event in events if event.get("cat") == "calls" and event["pid"] == 2} <= {
        "decode",
        "catch up",
        "rewind",
    }


def test_firings_that_the_data_decides_are_those_of_the_session(store: Store) -> None:
    """Each with the token that caused it."""
    bundle = deciding_bundle(store)
    model = load(bundle, threads=1)
    trace = Trace(model)
    list(model.generate("It was a dark night", observer=trace, seed=3, max_new_tokens=40))
    session = trace.sessions[0].session
    decided = next(spec for spec in session.specs if spec.clock is not None)
    ends = session.schedule[decided.clock].ends.tolist()
    decode = [call for call in trace.sessions[0].calls if call.kind == "decode"]
    fired = [one.tokens[0] for call in decode for one in call.firings if one.stage == decided.name and one.tokens is not None]
    assert fired == [end for end in ends if end >= decode[0].position]
    assert fired


def test_what_was_not_asked_for_costs_nothing(model: Model) -> None:
    """Without an observer sessions and continuations are what they are."""
    new = model.generate_ids(PROMPT, SamplingParams(max_new_tokens=2))
    assert type(new._continuation) is Continuation


def test_a_trace_says_what_ran_where(trace: Trace) -> None:
    """Beside the events."""
    said = json.loads(json.dumps(as_json(trace)))["otherData"]
    assert (said["bundle"], said["precision"], said["target"], said["threads"]) == ("nested", "fp32", "cpu", 1)
    assert said["environment"]["packages"]["onnxruntime"]


def test_a_call_that_was_cut_off_keeps_its_firings(model: Model) -> None:
    """They have ended; which call they were of is not known any more."""
    trace = Trace(model)
    new = model.generate_ids(PROMPT, SamplingParams(seed=1, max_new_tokens=5), observer=trace)
    session, last = trace.sessions[0].session, model.specs[-1].name
    told = session.observer

    def breaks(spec: StageSpec, firings: int, elapsed_ns: int) -> None:
        assert told is not None
        told(spec, firings, elapsed_ns)
        if spec.name == last:
            raise KeyboardInterrupt

    session.observer = breaks
    with pytest.raises(KeyboardInterrupt):
        list(new)
    events = as_json(trace)["traceEvents"]
    assert (
        sum(event.get("cat") == "stage" and "step" not in event["args"] for event in events) == len(trace.sessions[0].open) > 0
    )


@pytest.mark.parametrize(
    ("choices", "resets", "rows"),
    [({}, None, [0, 1, 2, 9]), ({"keeps": 4}, None, [0, 1, 2, 4]), ({}, 4, [0, 1, 2, 1]), ({"rows": 2}, None, [0, 2, 4, 18])],
)
def test_rows_in_use(choices: dict[str, int], resets: int | None, rows: list[int]) -> None:
    """Of caches that grow, that keep so many, that reset, of several rows a firing; after 0, 1, 2 and 9 firings."""
    cache = CacheSpec(name="0.key", heads=1, width=4, **choices)
    spec = StageSpec(
        name="1", stride=1, inputs=(), output="hidden", width=4, layers=1, caches=(cache,), parameters=0, resets=resets
    )
    assert [rows_in_use(spec, fired) for fired in (0, 1, 2, 9)] == rows
