"""Reading JSON that anybody may have written."""

from __future__ import annotations

from typing import TypeVar

import msgspec

Value = TypeVar("Value")


def decode(data: bytes | str, type: type[Value]) -> Value:
    """As `msgspec.json.decode`, and what is no UTF-8 or is nested too deeply is a DecodeError as well.

    Raises:
        msgspec.MsgspecError: it is not JSON, or not of that type.
    """
    try:
        return msgspec.json.decode(data, type=type)
    except (UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise msgspec.DecodeError(str(error)) from error
