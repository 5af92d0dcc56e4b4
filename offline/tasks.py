"""What is done with each line: continue it, or say how likely it is; and what is written of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import FovealError, InputError
from ..runtime.batches.choice import Choice
from ..runtime.generation.request import Request
from ..runtime.guides.constraint import KINDS
from ..runtime.logprobs import TokenLogprobs
from ..runtime.model import Model
from ..runtime.scoring import bits_per_byte
from .line import OF_DRAFTS, Line

Kind = Literal["generate", "score"]
Record = dict[str, Any]
"""What is written of a line, as JSON."""


@dataclass(frozen=True)
class Task:
    """Of a job; can be sent to other processes.

    Attributes:
        kind: `generate`: continue each prompt; `score`: say how likely each text is.
        settings: as of `Model.generate`, for all lines; none for `score`.
        n: texts after each prompt.
        as_ids: write ids in place of text.
    """

    kind: Kind
    settings: Mapping[str, Any]
    n: int = 1
    as_ids: bool = False

    @property
    def settings_of_results(self) -> dict[str, Any]:
        """Those that what is written depends on: drafts change only how long it takes, so that a job may go on with others."""
        return {name: value for name, value in self.settings.items() if name not in OF_DRAFTS}

    def check(self, model: Model) -> None:
        """Raise what the settings of all lines would be refused for, by every line."""
        if self.kind == "generate":
            model.request([0], self.settings, as_text=not self.as_ids)

    def request(self, model: Model, line: Line) -> tuple[Request, int]:
        """What a line asks of a model, checked, and how many texts.

        Raises: as `Model.request`; InputError for a line that could not be read.
        """
        if line.error is not None:
            raise line.error
        if self.kind == "score":
            return _to_be_scored(model, line), 1
        settings = {**self.settings, **_over(self.settings, line.settings)}
        return model.request(line.prompt, settings, as_text=not self.as_ids), line.n or self.n

    def record(self, line: Line, request: Request, choices: Sequence[Choice], texts: Sequence[str]) -> Record:
        """What came of a line, once all its texts are done.

        Args:
            line: it.
            request: what it asked for.
            choices: its texts.
            texts: what they say.
        """
        if self.kind == "score":
            return scored(line, len(request.ids), choices[0].scorer.found if choices[0].scorer is not None else [])
        found: Record = {"id": line.id, "line": line.number, "prompt_tokens": len(request.ids)}
        if choices[0].scorer is not None:
            found["prompt_logprobs"] = [_said(one) for one in choices[0].scorer.found]
        each = [self._text(choice, text) for choice, text in zip(choices, texts, strict=True)]
        return {**found, **each[0]} if len(each) == 1 and line.n is None and self.n == 1 else {**found, "choices": each}

    def _text(self, choice: Choice, text: str) -> Record:
        going = choice.continuation
        found: Record = {"ids": going.ids} if self.as_ids else {"text": text}
        found |= {"finish_reason": going.finish_reason, "tokens": len(going.ids)}
        if going.request.params.logprobs is not None:
            found["logprobs"] = [_said(one) for one in going.logprobs]
        return found


def failed(line: Line, error: FovealError) -> Record:
    """What is written of a line that nothing came of."""
    return {"id": line.id, "line": line.number, "error": str(error), "error_type": type(error).__name__}


def scored(line: Line, tokens: int, found: Sequence[TokenLogprobs]) -> Record:
    """What is written of a text that was scored."""
    nats, size = -math.fsum(one.logprob for one in found), len(line.prompt.encode()) if isinstance(line.prompt, str) else None
    return {
        "id": line.id,
        "line": line.number,
        "tokens": tokens,
        "scored": len(found),
        "nats": nats,
        "bytes": size,
        "bits_per_byte": bits_per_byte(nats / len(found), tokens, size) if found else None,
    }


def _to_be_scored(model: Model, line: Line) -> Request:
    for name in (*line.settings, *(() if line.n is None else ("n",))):
        raise InputError(f'"{name}" does nothing where text is scored; leave it out, or continue the prompt (without --eval)')
    return model.request(line.prompt, {"prompt_logprobs": 0, "max_new_tokens": 1, "temperature": 0}, as_text=False)


def _over(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A line's own settings; its constraint takes the place of the job's, of whichever kind that is."""
    none = dict.fromkeys(KINDS) if any(own.get(name) is not None for name in KINDS) else {}
    return {**{name: value for name, value in none.items() if name in settings}, **own}


def _said(one: TokenLogprobs) -> Record:
    top = [{"token": token, "logprob": logprob} for token, logprob in one.top]
    return {"token": one.token, "logprob": one.logprob, "rank": one.rank, "top": top}
