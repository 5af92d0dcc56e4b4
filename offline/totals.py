"""What a job came to, counted in what it wrote: so it is the same however often the job was begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..runtime.scoring import bits_per_byte
from ..storage import storage_errors
from .tasks import Kind, Record

Totals = dict[str, Any]
"""As JSON."""


def count(kind: Kind, outputs: Sequence[Path]) -> Totals:
    """Of each output file by name, and of all.

    Raises:
        StorageError: a file can't be read.
    """
    each = {output.name: _Counted(kind) for output in outputs}
    total = _Counted(kind)
    for output in outputs:
        with storage_errors(output), output.open("rb") as file:
            for line in file:
                record = msgspec.json.decode(line)
                each[output.name].add(record)
                total.add(record)
    return {"total": total.said, "files": {name: counted.said for name, counted in each.items()}}


class _Counted:
    def __init__(self, kind: Kind) -> None:
        self._kind, self._counts, self._reasons, self._nats = kind, Counter[str](), Counter[str](), 0.0
        self._knows_bytes = True

    def add(self, record: Record) -> None:
        self._counts["lines"] += 1
        if "error" in record:
            self._counts["errors"] += 1
        elif self._kind == "score":
            self._add_score(record)
        else:
            self._counts["prompt_tokens"] += record["prompt_tokens"]
            for text in record.get("choices", [record]):
                self._counts["texts"] += 1
                self._counts["tokens"] += text["tokens"]
                self._reasons[text["finish_reason"]] += 1

    def _add_score(self, record: Record) -> None:
        if not record["scored"]:
            self._counts["unscored"] += 1
            return
        self._nats += record["nats"]
        self._knows_bytes = self._knows_bytes and record["bytes"] is not None
        for name in ("tokens", "scored", "bytes"):
            self._counts[name] += record[name] or 0

    @property
    def said(self) -> Totals:
        """In figures."""
        counts = self._counts
        found: Totals = {"lines": counts["lines"], "errors": counts["errors"]}
        if self._kind == "generate":
            names = ("prompt_tokens", "texts", "tokens")
            return found | {name: counts[name] for name in names} | {"finish_reasons": dict(sorted(self._reasons.items()))}
        size = counts["bytes"] if self._knows_bytes else None
        found |= {name: counts[name] for name in ("unscored", "tokens", "scored")} | {"nats": self._nats, "bytes": size}
        nats = self._nats / counts["scored"] if counts["scored"] else None
        bits = None if nats is None else bits_per_byte(nats, counts["tokens"], size)
        return found | {"nats_per_token": nats, "bits_per_byte": bits}
