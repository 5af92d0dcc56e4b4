"""Sessions of a service between their requests: where they stand, who is at them, and what prompts have in common."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...errors import DamagedStateError, FovealError, InputError, SessionBusyError, SessionLostError
from ..snapshots import Snapshot
from ..store.session_store import SessionStore

_log = logging.getLogger("foveal.service")
LEAST_PREFIX = 32
"""Fewer common tokens are read again: a copy of their state takes as long."""
LONGEST_NAME = 256
_PREFIX_KEY = "prefix:"
_SESSION_KEY = "session:"


class StoredSessions:
    """What a service keeps in a store.

    Args:
        store: None: nothing is kept, and sessions are refused.
        keeps_prefixes: whether sequences without a session are kept, too, for prompts that begin as they do.
    """

    def __init__(self, store: SessionStore | None, keeps_prefixes: bool) -> None:
        self.store, self.keeps_prefixes = store, keeps_prefixes and store is not None
        self._busy: set[str] = set()
        self._turn, self._count = threading.Lock(), itertools.count()

    def begin(self, session: str, position: int | None) -> Snapshot | None:
        """The state that a session stands at, which belongs to one request until `end`; None: it begins.

        Args:
            session: its name.
            position: tokens that it is expected to hold, 0 for one that is not there; None: whatever it holds.

        Raises:
            InputError: nothing is kept, or a name that can't be.
            SessionBusyError: another request is at it.
            SessionLostError: it is not there, or holds another number of tokens; or it was expected to be there, and its files
                were cut short or altered, so that it is dropped.
            CapacityError, StorageError: as `SessionStore.get`.
        """
        store, key = self._required(), _key_of(session)
        self._claim(session)
        try:
            snapshot = _state_of(store, key, session, position)
            _check_position(session, position, None if snapshot is None else snapshot.position)
        except BaseException:
            self.end(session)
            raise
        return snapshot

    def end(self, session: str) -> None:
        """Let others use a session."""
        with self._turn:
            self._busy.discard(session)

    def keep(self, session: str | None, snapshot: Snapshot) -> int | None:
        """Store the state that a request ended with; returns the tokens that its session holds then, None without one.

        Raises: as `SessionStore.put`.
        """
        key = f"{_PREFIX_KEY}{next(self._count)}" if session is None else _key_of(session)
        self._required().put(key, snapshot)
        return None if session is None else snapshot.position

    def forget(self, session: str) -> bool:
        """Keep a session no longer; whether there was one.

        Raises:
            SessionBusyError: a request is at it.
            InputError, StorageError: as `SessionStore.discard`.
        """
        store, key = self._required(), _key_of(session)
        with self._at(session):
            return store.discard(key)

    def position(self, session: str) -> int | None:
        """Tokens that a session holds; None: there is none, or no longer."""
        return self._required().position(_key_of(session))

    def prefix(self, ids: Sequence[int]) -> Snapshot | None:
        """State of what a prompt has in common with a sequence that is kept, if it is worth a copy.

        A store that can't be read is one that has nothing in common: the prompt is read again.
        """
        if not self.keeps_prefixes or self.store is None or len(ids) <= LEAST_PREFIX:
            return None
        try:
            found = self.store.longest_prefix(ids[:-1])
        except FovealError as error:
            _log.warning("what a prompt begins with could not be looked for: %s", error)
            return None
        return None if found is None or found.snapshot.position < LEAST_PREFIX else found.snapshot

    @contextmanager
    def _at(self, session: str) -> Iterator[None]:
        self._claim(session)
        try:
            yield
        finally:
            self.end(session)

    def _claim(self, session: str) -> None:
        with self._turn:
            if session in self._busy:
                raise SessionBusyError(f'session "{session}" is busy: another request is at it; wait until that is over')
            self._busy.add(session)

    def _required(self) -> SessionStore:
        if self.store is None:
            raise InputError("this service keeps no sessions; open it with a store (foveal serve --store-memory)")
        return self.store


def _key_of(session: str) -> str:
    if not isinstance(session, str):
        raise InputError(f"a session's name must be text, got {type(session).__name__}")
    if not 0 < len(session) <= LONGEST_NAME:
        raise InputError(f"a session's name has {len(session)} characters, expected 1 to {LONGEST_NAME}")
    return _SESSION_KEY + session


def _state_of(store: SessionStore, key: str, session: str, expected: int | None) -> Snapshot | None:
    """Of a session that is expected at a position."""
    try:
        return store.get(key)
    except DamagedStateError as error:
        _log.warning("a session is lost: %s", error)
        if expected == 0:
            return None
        raise SessionLostError(
            f'what was kept of session "{session}" can\'t be read, and is dropped; send its whole text, under position 0', None
        ) from None


def _check_position(session: str, expected: int | None, found: int | None) -> None:
    """What is expected is where the client saw it last: anything else means that something was lost, or came between."""
    if expected is None or expected == (found or 0):
        return
    stands = "is not there, or no longer" if found is None else f"stands at {found} tokens"
    what = "send its whole text, under position 0 or another name" if found is None else f"go on from position {found}"
    raise SessionLostError(f'session "{session}" {stands}, expected position {expected}; {what}', found)
