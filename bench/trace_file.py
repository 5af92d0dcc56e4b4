"""A trace as JSON that Perfetto and chrome://tracing open: the Trace Event Format.

Tracks are threads: the calls, every stage, what draws, what drafts; a drafting model is a process of its own. The format:
docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..contract import BEGINNING, StageSpec, period_of
from ..files import write_atomically
from ..forecast.traffic import bytes_by_stage
from ..runtime.model import Model
from ..runtime.schedules import Schedule
from .environment import read_environment
from .trace import Call, Choice, Firing, SessionTrace, Span, Trace

CALLS, SAMPLING, DRAFTS = "calls", "sampling", "drafts"
"""Tracks that are no stage's."""
_TEXT = 1
"""The process of the text's session."""
Event = dict[str, Any]


class Place(NamedTuple):
    """A track: process and thread, as numbers."""

    pid: int
    tid: int


class _Point(NamedTuple):
    """Where a token's flow meets a slice."""

    place: Place
    span: Span


def save_trace(path: Path, trace: Trace) -> None:
    """Write what was traced so far, whole or not at all.

    Raises:
        StorageError: the place can't be written to.
    """
    write_atomically(path, msgspec.json.encode(as_json(trace)) + b"\n")


def as_json(trace: Trace) -> dict[str, Any]:
    """The file: `traceEvents`, and in `otherData` what was run, on what."""
    environment = read_environment()
    return {
        "traceEvents": list(_events(trace)),
        "displayTimeUnit": "ns",
        "otherData": {
            "bundle": trace.model.bundle.name,
            "precision": trace.model.manifest.precision,
            "target": trace.model.target,
            "threads": trace.model.threads,
            "command": shlex.join(["foveal", *sys.argv[1:]]),
            "environment": msgspec.to_builtins(environment),
        },
    }


def _events(trace: Trace) -> Iterator[Event]:
    """All, with times from the first on."""
    origin = min((span.began_ns for span in _spans(trace)), default=0)
    for event in _absolute(trace):
        if "ts" in event:
            event["ts"] = (event["ts"] - origin) / 1e3
        if "dur" in event:
            event["dur"] /= 1e3
        yield event


def _spans(trace: Trace) -> Iterator[Span]:
    for of in trace.sessions:
        yield from of.calls
        yield from (span for _, _, span in of.open)
    yield from trace.choices
    yield from trace.drafts


def _absolute(trace: Trace) -> Iterator[Event]:
    for index, of in enumerate(trace.sessions):
        pid = index + 1
        name = f"foveal {trace.model.bundle.name}" if of.drafting is None else f"drafts by {of.drafting}"
        yield from _tracks(pid, name, _tids(of, pid))
        yield from _of_session(trace, of, pid)
    if trace.sessions:
        yield from _of_sampling(trace)
        yield from _flows(trace)


def _tids(of: SessionTrace, pid: int = _TEXT) -> dict[str, int]:
    """Threads by name, in the order in which they are shown: what draws and drafts stands beside the text's session only.

    No number is the process's own: the viewer calls such a thread the main one.
    """
    stages = [spec.name for spec in of.session.specs]
    names = [CALLS, *stages] + ([SAMPLING, DRAFTS] if of.drafting is None else [])
    return {name: tid for tid, name in enumerate(names, 100 * pid)}


def _tracks(pid: int, process: str, tids: Mapping[str, int]) -> Iterator[Event]:
    yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": process}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}}
    for name, tid in tids.items():
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}


def _of_session(trace: Trace, of: SessionTrace, pid: int) -> Iterator[Event]:
    tids, specs = _tids(of, pid), {spec.name: spec for spec in of.session.specs}
    period = period_of(of.session.specs)
    for call in of.calls:
        args: Event = {"position": call.position, "tokens": call.tokens, "phase": call.position % period}
        fires = [firing.stage for firing in call.firings]
        yield _slice(call.kind, CALLS, Place(pid, tids[CALLS]), call, {**args, "fires": list(dict.fromkeys(fires))})
        for firing in call.firings:
            spec = specs[firing.stage]
            yield _slice(spec.name, "stage", Place(pid, tids[spec.name]), firing, _of_firing(spec, firing, period))
    for stage, count, span in of.open:  # of a call that was cut off
        yield _slice(stage.name, "stage", Place(pid, tids[stage.name]), span, {"rows": count})
    for rewind in of.rewinds:
        place = Place(pid, tids[CALLS])
        yield {"ph": "i", "s": "t", "name": "rewind", "cat": CALLS, **place._asdict(), "ts": rewind.at_ns} | {
            "args": {"position": rewind.position}
        }
    yield from _counters(trace.model, of, pid)


def _of_firing(spec: StageSpec, firing: Firing, period: int) -> Event:
    """What is told of a stage's slice: `step` is the token that caused its first firing, `position` that firing's index."""
    args: Event = {"rows": firing.count}
    if firing.first is not None and firing.tokens is not None:
        step = firing.tokens[0]
        args |= {"step": step, "last_step": firing.tokens[1], "position": firing.first}
        if step != BEGINNING:
            args["phase"] = step % period
    if firing.natively is not None:
        args["runs_on"] = "native steps" if firing.natively else "onnxruntime"
    if spec.clock is None:
        args["stride"] = spec.stride
    return args


def _counters(model: Model, of: SessionTrace, pid: int) -> Iterator[Event]:
    """The position and the rows of caches after each call and rewind, and, of the text's model, the bytes that a call reads."""
    schedule = of.session.schedule if of.drafting is None else {}
    for call in of.calls:
        yield _counter("position", pid, call.ended_ns, {"tokens": call.position + call.tokens})
        yield _counter("cache rows in use", pid, call.ended_ns, call.rows)
        if of.drafting is None:
            yield _counter("bytes read", pid, call.began_ns, _bytes_read(model, call, schedule))
    for rewind in of.rewinds:
        yield _counter("position", pid, rewind.at_ns, {"tokens": rewind.position})


def _bytes_read(model: Model, call: Call, schedule: Schedule) -> dict[str, int]:
    """Weights once for each engine call, tables left out; of the state what the last firing of each engine call looks back
    at."""
    entries = {entry.spec.name: entry for entry in model.manifest.stages}
    weights = sum(entries[one.stage].weight_bytes - entries[one.stage].table_bytes for one in call.firings)
    state, by_token = 0.0, dict[int, Mapping[str, Any]]()
    for firing in call.firings:
        if firing.tokens is None or firing.tokens[1] == BEGINNING:
            continue
        token = firing.tokens[1]
        if token not in by_token:
            by_token[token] = bytes_by_stage(model.bundle, model.target, token, 1, schedule)
        state += by_token[token][firing.stage].caches
    return {"weights": weights, "state": round(state)}


def _of_sampling(trace: Trace) -> Iterator[Event]:
    """What was drawn and drafted, on tracks beside the text's session."""
    tids, tokenizer = _tids(trace.sessions[0]), trace.model.tokenizer
    for choice in trace.choices:
        args: Event = {"position": choice.position, "token": choice.token}
        if tokenizer is not None and choice.token is not None:
            args["text"] = tokenizer.decode([choice.token])
        yield _slice("sample", SAMPLING, Place(_TEXT, tids[SAMPLING]), choice, args)
    for draft in trace.drafts:
        came = _came(trace.choices, draft.position, draft.tokens)
        args = {"position": draft.position, "tokens": list(draft.tokens), "drafted": len(draft.tokens), "came": came}
        yield _slice("draft", DRAFTS, Place(_TEXT, tids[DRAFTS]), draft, args)


def _came(choices: Sequence[Choice], position: int, tokens: Sequence[int]) -> int:
    """Of a draft's tokens, the first ones that were drawn, too."""
    first = choices[0].position if choices else 0
    drawn = [choice.token for choice in choices[position - first : position - first + len(tokens)]]
    return next((index for index, (one, other) in enumerate(zip(tokens, drawn, strict=False)) if one != other), len(drawn))


def _flows(trace: Trace) -> Iterator[Event]:
    """Of every token: from where it was drawn through the stages that it fires to where the next one is drawn.

    A draft that came begins at the draft, and is drawn behind the call that checked it.
    """
    of, tids = trace.sessions[0], _tids(trace.sessions[0])
    chosen = {choice.position: choice for choice in trace.choices}
    sampling, drafting = Place(_TEXT, tids[SAMPLING]), Place(_TEXT, tids[DRAFTS])
    begins = min(chosen, default=0)
    calls = {position: call for call in of.calls for position in call.covers}  # the last one: others were taken back

    def through(call: Call, tokens: range) -> list[_Point]:
        return [_Point(Place(_TEXT, tids[one.stage]), one) for one in call.firings if one.is_caused_by(tokens)]

    prompt = [point for call in of.calls if call.kind == "prefill" for point in through(call, call.covers)]
    yield from _flow(0, "prompt", [*prompt, *(_Point(sampling, chosen[p]) for p in [begins] if p in chosen)])
    drafts = {
        position: draft
        for draft in trace.drafts
        for position in range(draft.position, draft.position + _came(trace.choices, draft.position, draft.tokens))
    }
    for position, choice in chosen.items():
        points = [_Point(sampling, choice)]
        if position in drafts:
            points.append(_Point(drafting, drafts[position]))
        if position in calls and calls[position].kind != "prefill":
            points += through(calls[position], range(position, position + 1))
            if position + 1 in chosen:
                points.append(_Point(sampling, chosen[position + 1]))
        yield from _flow(position, f"token {position}", points)


def _flow(position: int, name: str, points: Sequence[_Point]) -> Iterator[Event]:
    """Arrows from slice to slice, by time; none where there is but one. Numbered by the token's position, the prompt's by 0."""
    ordered = sorted(points, key=lambda point: point.span.began_ns)
    for index, (place, span) in enumerate(ordered if len(ordered) > 1 else ()):
        phase = "s" if index == 0 else "f" if index == len(ordered) - 1 else "t"
        middle = (span.began_ns + span.ended_ns) // 2  # inside the slice it belongs to
        event = {"ph": phase, "name": name, "cat": "token", "id": position, **place._asdict(), "ts": middle}
        yield event | ({"bp": "e"} if phase == "f" else {})


def _slice(name: str, category: str, place: Place, span: Span, args: Mapping[str, Any]) -> Event:
    times = {"ts": span.began_ns, "dur": span.ended_ns - span.began_ns}
    return {"ph": "X", "name": name, "cat": category, **place._asdict(), **times, "args": dict(args)}


def _counter(name: str, pid: int, at_ns: int, values: Mapping[str, float]) -> Event:
    return {"ph": "C", "name": name, "pid": pid, "ts": at_ns, "args": dict(values)}
