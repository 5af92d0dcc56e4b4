"""Who may ask: those who bear a token."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

from starlette.datastructures import Headers

from ..errors import ConfigError, FovealWarning
from ..storage import storage_errors
from .failures import Failure

VARIABLE = "FOVEAL_TOKENS"


class Bearers:
    """Compares tokens in a time that tells nothing of them.

    Args:
        tokens: of which a request has to bear one; none: anyone may ask.
    """

    def __init__(self, tokens: Collection[str]) -> None:
        self._known = [_digest(token) for token in tokens]

    @property
    def are_asked(self) -> bool:
        """Whether it takes a token at all."""
        return bool(self._known)

    def owner(self, headers: Headers) -> str:
        """By which the sessions of a client are told from those of others.

        Raises:
            Failure: 401 without a token that is known.
        """
        if not self._known:
            return "open"
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = _digest(token.strip())
        matches = [hmac.compare_digest(given, known) for known in self._known]  # all of them: no early end
        if kind.lower() != "bearer" or not any(matches):
            raise Failure(
                401,
                "no token, or one that is not known; send the header Authorization: Bearer TOKEN",
                "authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": 'Bearer realm="foveal"'},
            )
        return hashlib.sha256(b"sessions of " + given).hexdigest()[:24]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def read_tokens(file: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Tokens of a file, one a line, and of the variable `FOVEAL_TOKENS`, between spaces; lines that begin with # are notes.

    Raises:
        ConfigError: a file or a variable with no token, or one that is no plain word.
        StorageError: the file can't be read.
    Warns:
        FovealWarning: others may read the file.
    """
    found = environment.get(VARIABLE, "").split()
    if VARIABLE in environment and not found:
        raise ConfigError(f"{VARIABLE} is set and holds no token; put some there, between spaces, or unset it")
    if file is not None:
        found += _tokens_of(file)
    for token in found:
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigError("a token has a character that no header can hold; use letters and digits")
    return tuple(dict.fromkeys(found))


def _tokens_of(file: Path) -> list[str]:
    with storage_errors(file):
        text, mode = file.read_bytes().decode("utf-8", "replace"), file.stat().st_mode
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"{file} holds no token; write one a line")
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        warnings.warn(f"others on this machine may read the tokens in {file}: chmod 600 {file}", FovealWarning, stacklevel=3)
    return found
