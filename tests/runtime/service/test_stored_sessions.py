"""Sessions go on exactly where they stood, or say that they do not; prompts that begin alike are read once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from programs import CAPACITY
from served import Hold, ServedProgram, check_all_is_free, read, until

from foveal import (
    CapacityError,
    InputError,
    QueueFullError,
    Service,
    SessionBusyError,
    SessionLostError,
    SessionStore,
)
from foveal.runtime.service.stored_sessions import LEAST_PREFIX, StoredSessions
from foveal.runtime.store import blocks, store_folder
from foveal.storage import named

Serve = Callable[..., Service]
GREEDY: dict[str, Any] = {"temperature": 0}


@pytest.fixture(autouse=True, scope="module")
def _short_blocks() -> Iterator[None]:
    """So that sequences of a few tokens have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_TOKENS", 4)
        patch.setattr(store_folder, "BLOCK_TOKENS", 4)
        yield


@pytest.fixture
def kept(served: ServedProgram) -> Iterator[SessionStore]:
    """In memory."""
    with SessionStore(served, 1 << 24) as store:
        yield store


@pytest.fixture
def service(serve: Serve, kept: SessionStore) -> Service:
    """With sessions."""
    return serve(store=kept)


class TestGoesOn:
    """As if there had been one request."""

    def test_exactly(self, served: ServedProgram, service: Service, kept: SessionStore) -> None:
        """The texts of many short requests are that of one long one; the state is that of the full forward."""
        ids = [1, 2, 3, *served.alone([1, 2, 3], max_new_tokens=30, **GREEDY).ids]
        found, position = [1, 2, 3], 0
        for tokens in (1, 2, 7, 1, 9, 10):
            stream = service.submit([] if position else found, session="a", position=position, max_new_tokens=tokens, **GREEDY)
            found += read(stream).ids[0]
            assert stream.restored_tokens == position
            position = len(found)
            assert stream.session_position == service.sessions.position("a") == position
            served.check_goes_on(kept.get("session:a"), found)
        assert found == ids

    def test_with_more_of_a_prompt(self, served: ServedProgram, service: Service, kept: SessionStore) -> None:
        """As in a chat: each turn comes after all that was said."""
        said: list[int] = []
        for turn in ([4, 5], [6], [7] * 11, [8, 9]):
            stream = service.submit(turn, session="a", position=len(said), seed=3, max_new_tokens=5)
            said += turn
            expected = served.alone(said, seed=3, max_new_tokens=5)
            assert read(stream).texts == [expected.text]
            said += expected.ids
        served.check_goes_on(kept.get("session:a"), said)
        assert (service.statistics.prompt_tokens, service.statistics.restored_tokens) == (16, 7 + 13 + 29)

    def test_with_the_first_of_several_texts(self, served: ServedProgram, service: Service, kept: SessionStore) -> None:
        """When all of them have ended."""
        stream = service.submit([1, 2], session="a", n=4, seed=5, max_new_tokens=6)
        found = read(stream)
        assert found.ids == [served.alone([1, 2], seed=5 + k, max_new_tokens=6).ids for k in range(4)]
        served.check_goes_on(kept.get("session:a"), [1, 2, *found.ids[0]])
        assert stream.session_position == 8

    @pytest.mark.parametrize("kind", ["stop", "end", "deadline"])
    def test_by_whatever_it_ended(self, served: ServedProgram, service: Service, kept: SessionStore, kind: str) -> None:
        """With all ids that were given out."""
        ids = served.alone([1], seed=7, max_new_tokens=9).ids
        ends: dict[str, Any] = {"stop": {"stop": served.tokenizer.decode(ids[2:4])}, "end": {"end": [ids[4]]}}
        hold = Hold(3 if kind == "deadline" else 99)
        late = {"max_seconds": 1, "logits_hook": hold}
        stream = service.submit([1], session="a", seed=7, max_new_tokens=80, **ends.get(kind, late))
        if kind == "deadline":
            hold.wait()
        hold.release(after_seconds=1.1)
        found = read(stream)
        assert found.reasons == [kind]
        assert len(found.ids[0]) == {"stop": 4, "end": 4, "deadline": 3}[kind]
        served.check_goes_on(kept.get("session:a"), [1, *found.ids[0]])

    def test_when_it_is_full(self, served: ServedProgram, service: Service, kept: SessionStore) -> None:
        """It holds as much as there is room for, and says so of more."""
        stream = service.submit([1] * 90, session="a", max_new_tokens=50, **GREEDY)
        found = read(stream)
        assert (len(found.ids[0]), found.reasons, stream.session_position) == (7, ["capacity"], CAPACITY)
        served.check_goes_on(kept.get("session:a"), [1] * 90 + found.ids[0][:6])
        with pytest.raises(CapacityError, match="the prompt has 1 tokens after 96 of its session"):
            service.submit([1], session="a")
        again = read(service.submit([], session="a", max_new_tokens=50, **GREEDY))
        assert (again.ids, again.reasons) == ([found.ids[0][6:]], ["capacity"])
        check_all_is_free(service)

    def test_of_many_at_once(self, served: ServedProgram, serve: Serve, kept: SessionStore) -> None:
        """Each in its own place."""
        service, said = serve(slots=3, queue=30, store=kept), {name: [n + 1] for n, name in enumerate("abcdefgh")}

        def talk(name: str) -> None:
            for turn in range(4):
                prompt = said[name] if not turn else [turn]
                said[name] = said[name] if not turn else [*said[name], turn]
                stream = service.submit(prompt, session=name, position=len(said[name]) - len(prompt), max_new_tokens=3, seed=2)
                said[name] += read(stream).ids[0]

        threads = [threading.Thread(target=talk, args=(name,)) for name in said]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for name, ids in said.items():
            served.check_goes_on(kept.get(f"session:{name}"), ids)
            assert len(ids) == 16


class TestStaysAsItWas:
    """When the request did not end well."""

    @pytest.fixture(autouse=True)
    def _begun(self, service: Service) -> list[int]:
        return [1, 2, *read(service.submit([1, 2], session="a", max_new_tokens=3, **GREEDY)).ids[0]]

    @pytest.fixture
    def ids(self, _begun: list[int]) -> list[int]:
        """That the session holds."""
        return _begun

    def test_cancelled(self, served: ServedProgram, service: Service, kept: SessionStore, ids: list[int]) -> None:
        """While it decodes."""
        hold = Hold(8)
        stream = service.submit([3], session="a", max_new_tokens=80, logits_hook=hold)
        hold.wait()
        stream.cancel()
        hold.release()
        assert read(stream).reasons == ["cancelled"]
        assert stream.session_position is None
        served.check_goes_on(kept.get("session:a"), ids)
        assert read(service.submit([], session="a", position=5, max_new_tokens=1)).reasons == ["length"]

    def test_cancelled_when_its_first_text_has_ended(
        self, served: ServedProgram, service: Service, kept: SessionStore, ids: list[int]
    ) -> None:
        """Others of its texts had not."""
        end, hold = served.alone([*ids, 3], seed=1, max_new_tokens=1).ids, Hold(9)
        stream = service.submit([3], session="a", n=2, seed=1, end=end, max_new_tokens=80, logits_hook=hold)
        hold.wait()
        stream.cancel()
        hold.release()
        read(stream)
        assert stream.finish_reasons == {0: "end", 1: "cancelled"}
        check_all_is_free(service)
        served.check_goes_on(kept.get("session:a"), ids)

    def test_failed(self, served: ServedProgram, service: Service, kept: SessionStore, ids: list[int]) -> None:
        """As memory was short for its second text."""
        served.faults.next(MemoryError("no more"), name="fork")
        stream = service.submit([3], session="a", n=2, max_new_tokens=4)
        assert isinstance(read(stream).error, CapacityError)
        check_all_is_free(service)
        served.check_goes_on(kept.get("session:a"), ids)
        assert read(service.submit([], session="a", position=5, max_new_tokens=1)).reasons == ["length"]

    def test_late(self, served: ServedProgram, service: Service, kept: SessionStore, ids: list[int]) -> None:
        """Before it had a token."""
        served.gate.clear()
        stream = service.submit([3], session="a", max_seconds=1e-9)
        served.gate.set()
        assert read(stream).reasons == ["deadline"]
        served.check_goes_on(kept.get("session:a"), ids)

    @pytest.mark.parametrize(
        ("given", "error"),
        [
            ({"prompt": [1] * 95}, CapacityError),
            ({"temperature": -1}, InputError),
            ({"prompt": [99]}, InputError),
            ({"n": 1000}, InputError),
            ({"position": 4}, SessionLostError),
        ],
    )
    def test_refused(
        self,
        served: ServedProgram,
        service: Service,
        kept: SessionStore,
        ids: list[int],
        given: dict[str, Any],
        error: type[Exception],
    ) -> None:
        """At the call; it is free for the next."""
        with pytest.raises(error):
            service.submit(given.pop("prompt", []), session="a", **given)
        check_all_is_free(service)
        served.check_goes_on(kept.get("session:a"), ids)

    def test_full(self, served: ServedProgram, serve: Serve, kept: SessionStore, ids: list[int]) -> None:
        """The queue is: the session is not busy for that."""
        service = serve(slots=1, queue=0, store=kept)
        served.gate.clear()
        other = service.submit([1], max_new_tokens=1)
        with pytest.raises(QueueFullError):
            service.submit([], session="a")
        served.gate.set()
        read(other)
        assert read(service.submit([], session="a", max_new_tokens=1)).reasons == ["length"]


class TestPositions:
    """Are where the client saw a session last."""

    def test_another_than_it_holds(self, service: Service) -> None:
        """Says where it stands, or that it is not there."""
        read(service.submit([1, 2], session="a", max_new_tokens=3))
        for position, words in ((0, "stands at 5 tokens, expected position 0"), (6, "go on from position 5")):
            with pytest.raises(SessionLostError, match=words) as caught:
                service.submit([1], session="a", position=position)
            assert caught.value.position == 5
        with pytest.raises(SessionLostError, match='"b" is not there, or no longer, expected position 5') as caught:
            service.submit([1], session="b", position=5)
        assert caught.value.position is None
        check_all_is_free(service)

    @pytest.mark.parametrize("position", [-1, 1.5, "5", True])
    def test_that_are_none(self, service: Service, position: Any) -> None:
        """Are refused."""
        with pytest.raises(InputError, match="position"):
            service.submit([1], session="a", position=position)

    def test_of_a_new_session(self, service: Service) -> None:
        """Is 0, and its prompt may not be empty."""
        with pytest.raises(InputError, match="the prompt is empty"):
            service.submit([], session="a")
        assert read(service.submit([1], session="a", position=0, max_new_tokens=1)).reasons == ["length"]

    @pytest.mark.parametrize("name", ["", "x" * 257, 5, "\ud800"])
    def test_names_that_cannot_be(self, service: Service, name: Any) -> None:
        """Are refused, and block nothing."""
        for call in (lambda: service.submit([1], session=name), lambda: service.sessions.forget(name)):
            with pytest.raises(InputError):
                call()
        check_all_is_free(service)


def test_one_request_at_a_time(served: ServedProgram, service: Service) -> None:
    """In a session, from its submit until its end has been told; it can't be forgotten meanwhile."""
    hold = Hold(3)
    stream = service.submit([1], session="a", max_new_tokens=40, logits_hook=hold)
    hold.wait()
    for call in (lambda: service.submit([1], session="a"), lambda: service.sessions.forget("a")):
        with pytest.raises(SessionBusyError, match='session "a" is busy'):
            call()
    hold.release()
    assert read(service.submit([1], session="b", max_new_tokens=2)).reasons == ["length"]
    stream.cancel()
    read(stream)
    assert read(service.submit([1], session="a", max_new_tokens=2)).reasons == ["length"]
    assert service.sessions.forget("a")
    assert not service.sessions.forget("a")
    assert service.sessions.position("a") is None


def test_the_next_request_may_come_with_the_last_event(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session is stored by then, and free, however long storing takes."""
    keep = StoredSessions.keep

    def keep_slowly(*given: Any) -> Any:
        threading.Event().wait(0.02)
        return keep(*given)

    monkeypatch.setattr(StoredSessions, "keep", keep_slowly)
    position = 0
    for _ in range(5):
        stream = service.submit([1], session="a", position=position, max_new_tokens=2)
        for event in stream:
            if event.is_last:
                assert stream.session_position == position + 3
        position += 3


class TestStoresThatFail:
    """The text comes all the same; what was kept is said."""

    def test_too_small(self, served: ServedProgram, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
        """The session has no position then."""
        with SessionStore(served, 10) as store:
            service = serve(store=store)
            stream = service.submit([1], session="a", max_new_tokens=5, **GREEDY)
            assert read(stream).ids == [served.alone([1], max_new_tokens=5, **GREEDY).ids]
            assert (stream.session_position, service.sessions.position("a")) == (None, None)
            assert "could not be kept" in caplog.text
            check_all_is_free(service)
            with pytest.raises(SessionLostError):
                service.submit([1], session="a", position=6)

    def test_closed(self, served: ServedProgram, serve: Serve) -> None:
        """While a request is at it, and before the next."""
        store = SessionStore(served, 1 << 24)
        service = serve(store=store)
        hold = Hold(3)
        stream = service.submit([1], session="a", max_new_tokens=40, logits_hook=hold)
        hold.wait()
        store.close()
        hold.release()
        assert read(stream).reasons == ["length"]
        assert stream.session_position is None
        with pytest.raises(InputError, match="the store is closed"):
            service.submit([1], session="a")
        assert read(service.submit([1], max_new_tokens=2)).reasons == ["length"]
        check_all_is_free(service)

    def test_a_full_disk(self, served: ServedProgram, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What it holds of the session stays."""
        with SessionStore(served, 0, tmp_path) as store:
            service = serve(store=store)
            ids = [1, *read(service.submit([1], session="a", max_new_tokens=5)).ids[0]]
            with monkeypatch.context() as patch:
                patch.setattr(store_folder, "write_atomically", _full)
                stream = service.submit([2], session="a", max_new_tokens=5)
                assert read(stream).reasons == ["length"]
                assert stream.session_position is None
            assert service.sessions.position("a") == 6
            served.check_goes_on(store.get("session:a"), ids)

    def test_files_that_were_damaged(self, served: ServedProgram, serve: Serve, tmp_path: Path) -> None:
        """The session is lost, which is said once; then its name is free."""
        with SessionStore(served, 0, tmp_path) as store:
            service = serve(store=store)
            read(service.submit([1], session="a", max_new_tokens=5))
            for path in tmp_path.rglob("*"):
                if path.is_file() and path.name != "lock":
                    data = path.read_bytes()
                    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            with pytest.raises(SessionLostError, match="can't be read"):
                service.submit([], session="a")
            check_all_is_free(service)
            with pytest.raises(SessionLostError):
                service.submit([], session="a", position=6)
            assert read(service.submit([1], session="a", max_new_tokens=2)).reasons == ["length"]

    def test_survives_the_process(self, served: ServedProgram, serve: Serve, tmp_path: Path) -> None:
        """By files, which another service finds."""
        ids = [1]
        for position in (0, 6, 11):
            with SessionStore(served, 1 << 24, tmp_path) as store:
                service = serve(store=store)
                ids += read(
                    service.submit([] if position else ids, session="a", position=position, max_new_tokens=5, **GREEDY)
                ).ids[0]
                service.close()
        assert ids == [1, *served.alone([1], max_new_tokens=15, **GREEDY).ids]


class TestPrefixes:
    """What any request left."""

    COMMON: ClassVar = [n % 7 for n in range(LEAST_PREFIX + 8)]

    @pytest.fixture
    def keeping(self, serve: Serve, kept: SessionStore) -> Service:
        """A service that keeps them."""
        return serve(store=kept, keeps_prefixes=True)

    def test_are_not_read_again(self, served: ServedProgram, keeping: Service) -> None:
        """Texts are those without; what was found is counted."""
        for n, restored in ((0, 0), (1, len(self.COMMON)), (2, len(self.COMMON))):
            prompt = [*self.COMMON, 20 + n, 3]
            stream = keeping.submit(prompt, seed=n, max_new_tokens=4)
            assert read(stream).texts == [served.alone(prompt, seed=n, max_new_tokens=4).text]
            assert (stream.restored_tokens, stream.prompt_tokens) == (restored, len(prompt))
        assert keeping.statistics.restored_tokens == 2 * len(self.COMMON)
        assert keeping.statistics.fires["1.pre"] == len(self.COMMON) + 3 * 2 + 3 * 4  # the last token is appended, too

    def test_the_same_prompt_again(self, served: ServedProgram, keeping: Service) -> None:
        """All but its last token."""
        for restored in (0, len(self.COMMON) - 1):
            stream = keeping.submit(self.COMMON, n=2, seed=1, max_new_tokens=3)
            assert read(stream).texts == [served.alone(self.COMMON, seed=1 + k, max_new_tokens=3).text for k in range(2)]
            assert stream.restored_tokens == restored

    def test_what_was_generated_is_one_too(self, served: ServedProgram, keeping: Service) -> None:
        """As in a chat whose whole text is sent each time."""
        said = [*self.COMMON, *read(keeping.submit(self.COMMON, max_new_tokens=6)).ids[0]]
        stream = keeping.submit([*said, 5], seed=1, max_new_tokens=3)
        assert read(stream).texts == [served.alone([*said, 5], seed=1, max_new_tokens=3).text]
        assert stream.restored_tokens == len(said)

    def test_short_ones_are_read_again(self, keeping: Service) -> None:
        """A copy of their state takes as long."""
        for _ in range(2):
            stream = keeping.submit(self.COMMON[: LEAST_PREFIX - 1], max_new_tokens=3)
            read(stream)
            assert stream.restored_tokens == 0

    def test_a_session_that_begins(self, served: ServedProgram, keeping: Service, kept: SessionStore) -> None:
        """Begins with one, too."""
        read(keeping.submit(self.COMMON, max_new_tokens=1))
        stream = keeping.submit([*self.COMMON, 9], session="a", position=0, max_new_tokens=3)
        ids = read(stream).ids[0]
        assert (stream.restored_tokens, stream.session_position) == (len(self.COMMON), len(self.COMMON) + 4)
        served.check_goes_on(kept.get("session:a"), [*self.COMMON, 9, *ids])

    def test_not_where_all_tokens_are_scored(self, keeping: Service) -> None:
        """They have to be read then."""
        for _ in range(2):
            stream = keeping.submit(self.COMMON, prompt_logprobs=0, max_new_tokens=1)
            read(stream)
            assert stream.restored_tokens == 0
            assert len(stream.prompt_logprobs) == len(self.COMMON) - 1

    def test_a_store_that_cannot_be_read(self, keeping: Service, kept: SessionStore) -> None:
        """Has nothing in common: requests are served."""
        read(keeping.submit(self.COMMON, max_new_tokens=1))
        kept.close()
        stream = keeping.submit(self.COMMON, max_new_tokens=1)
        assert (read(stream).reasons, stream.restored_tokens) == (["length"], 0)

    def test_not_unless_asked_for(self, service: Service, kept: SessionStore) -> None:
        """A service with a store keeps sessions alone."""
        read(service.submit(self.COMMON, max_new_tokens=1))
        until(lambda: service._worker.texts == 0)
        assert kept.keys() == []


def _full(path: Path, _data: bytes) -> None:
    raise named(OSError(28, "No space left on device"), path)
