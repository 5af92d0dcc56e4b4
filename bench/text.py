"""A text to decode in a measurement: what fires by the data fires as in the text."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        ConfigError: it can't be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"the text {path} can't be read: {reason}; expected a file of UTF-8 text") from error
