"""Logs as lines of JSON."""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone
from typing import IO, Any

import msgspec

from ..errors import plain

LEVELS = ("debug", "info", "warning", "error")


class JsonLines(logging.Formatter):
    """A record as one line of JSON; what `extra={"fields": ...}` holds is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        found |= fields if isinstance(fields, dict) else {"message": plain(record.getMessage())}
        if record.exc_info:
            found["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(found).decode()


def log_to(stream: IO[str] | None = None, level: str = "info") -> None:
    """Have the process write its logs as lines of JSON.

    Args:
        stream: None: standard error.
        level: of `LEVELS`.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("foveal", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper() if name == "foveal" else max(logging.WARNING, getattr(logging, level.upper())))
