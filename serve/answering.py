"""From events to an answer: whole, or piece by piece."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from ..runtime.generation.continuation import FinishReason
from ..runtime.logprobs import TokenLogprobs
from ..runtime.service.event import Event
from .answers import Answer, Choice, DraftReport, Finish, Report, SessionReport, TokenReport, Usage, usage_of
from .forms import Form, Scored
from .records import Record
from .served import Served
from .source import Batch, Source
from .wanted import Wanted

_FINISHES: dict[FinishReason, Finish] = {
    "stop": "stop",
    "end": "stop",
    "complete": "stop",
    "length": "length",
    "capacity": "length",
    "deadline": "length",
    "cancelled": "length",
}
_encode = msgspec.json.Encoder().encode


class Answering:
    """Makes an answer of what comes from a source.

    Args:
        served: whose it is.
        wanted: what was asked for.
        form: how it is written.
        source: of its events.
        record: where it is noted.
    """

    def __init__(self, served: Served, wanted: Wanted, form: Form, source: Source, record: Record) -> None:
        self.wanted, self.form, self.source, self.record = wanted, form, source, record
        self._served, self._new, self._opened = served, 0, set[int]()
        self._id, self._created = f"{form.prefix}{uuid.uuid4().hex}", int(time.time())
        self._no_usage: Usage | UnsetType | None = None if wanted.counts else UNSET
        record.model, record.prompt_tokens = served.name, source.prompt_tokens

    def chunks(self, batch: Batch) -> bytes:
        """What came together, as events of a stream."""
        self._note(batch)
        by_text: dict[int, list[Event]] = defaultdict(list)
        for index, event in batch:
            by_text[index].append(event)
        return b"".join([self._chunk(index, events) for index, events in by_text.items()])

    def end(self) -> bytes:
        """What ends a stream."""
        self._finish()
        data = b""
        if self.wanted.counts:
            data = self._event(Answer(*self._head(self.form.chunk_object), [], self._usage()))
        return data + b"data: [DONE]\n\n"

    async def whole(self, first: Batch) -> bytes:
        """All of it, at once.

        Raises: the error that a text ended with.
        """
        events: dict[int, list[Event]] = {index: [] for index in range(self.wanted.texts)}
        batch = first
        while batch:
            self._note(batch)
            for index, event in batch:
                events[index].append(event)
            batch = await self.source.next()
        self._finish()
        choices = [self._whole(index, found) for index, found in events.items()]
        return _encode(Answer(*self._head(self.form.whole_object), choices, self._usage()))

    def _whole(self, index: int, events: Sequence[Event]) -> Choice:
        text = self._text(events)
        scored = self._scored(index, events)
        if self.wanted.echo:
            text, scored = self._echo(index) + text, self._with_prompt(index, scored)
        last = events[-1]
        report = self._report(index, events, last) if self._says_end else UNSET
        return self.form.whole(index, text, scored, _finish_of(last), report)

    def _chunk(self, index: int, events: Sequence[Event]) -> bytes:
        text, scored, last, data = self._text(events), self._scored(index, events), events[-1], b""
        finish = _finish_of(last)
        if index not in self._opened:
            self._opened.add(index)
            if (opening := self.form.opening(index)) is not None:
                data = self._event(self._answer(opening, UNSET))
            if self.wanted.echo:
                text, scored = self._echo(index) + text, self._with_prompt(index, scored)
        report = self._report(index, events, last) if self.wanted.reports or (finish and self._says_end) else UNSET
        if not (text or finish or scored or report):
            return data
        return data + self._event(self._answer(self.form.chunk(index, text, scored, finish), report))

    def _answer(self, choice: Choice, report: Report | UnsetType) -> Answer:
        return Answer(*self._head(self.form.chunk_object), [choice], self._no_usage, report)

    def _head(self, kind: str) -> tuple[str, str, int, str, str]:
        return self._id, kind, self._created, self._served.name, self._served.fingerprint

    @staticmethod
    def _event(answer: Answer) -> bytes:
        return b"data: " + _encode(answer) + b"\n\n"

    def _text(self, events: Sequence[Event]) -> str:
        if self.wanted.scores_only:
            return ""
        if not self._served.is_text:
            return "".join(f"{event.token} " for event in events if event.token is not None)
        return events[0].text if len(events) == 1 else "".join([event.text for event in events])

    def _scored(self, index: int, events: Sequence[Event]) -> Scored | None:
        if self.wanted.logprobs is None:
            return None
        if self.wanted.scores_only:
            return []
        return [event.logprobs for event in events if event.logprobs is not None]

    def _echo(self, index: int) -> str:
        ids = self._prompt_of(index)
        prompt = self.wanted.prompts[index // self.wanted.n]
        if isinstance(prompt, str):
            return prompt
        return self._served.model.required_tokenizer().decode(ids) if self._served.is_text else "".join(f"{i} " for i in ids)

    def _with_prompt(self, index: int, scored: Scored | None) -> Scored | None:
        if scored is None:
            return None
        found: list[TokenLogprobs | int] = [*self._prompt_of(index)[:1], *self.source.stream_of(index).prompt_logprobs]
        return [*found, *scored]

    def _prompt_of(self, index: int) -> list[int]:
        return self.source.ids[index // self.wanted.n]

    @property
    def _says_end(self) -> bool:
        """A session's client needs to know where it stands."""
        return self.wanted.reports or self.wanted.session is not None

    def _report(self, index: int, events: Sequence[Event], last: Event) -> Report:
        report = Report()
        if self.wanted.reports and not self.wanted.scores_only:
            report.tokens = [
                TokenReport(event.position, event.token, self._text([event]), event.fired, round(event.seconds, 6))
                for event in events
                if event.token is not None
            ]
        if last.finish_reason is not None:
            stream = self.source.streams[0]
            report.finish_reason, report.restored_tokens = last.finish_reason, self.source.restored_tokens
            name = self.wanted.session
            report.session = None if name is None else SessionReport(name, stream.session_position)
            found = self.source.stream_of(index).speculation.get(index % self.wanted.n)
            if found is not None and self.wanted.reports:
                report.drafts = DraftReport(found.calls, found.drafted, found.accepted)
        return report

    def _note(self, batch: Batch) -> None:
        if self.record.first_token_seconds is None:
            self.record.note_first_token()
        if not self.wanted.scores_only:
            self._new += sum(event.token is not None for _, event in batch)

    def _finish(self) -> None:
        reasons = {reason for stream in self.source.streams for reason in stream.finish_reasons.values()}
        self.record.new_tokens, self.record.finish_reason = self._new, ",".join(sorted(reasons))

    def _usage(self) -> Usage:
        return usage_of(self.source.prompt_tokens, self.source.restored_tokens, self._new)


def _finish_of(event: Event) -> Finish | None:
    return None if event.finish_reason is None else _FINISHES[event.finish_reason]
