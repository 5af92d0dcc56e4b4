"""Engines that fail and services that end: every text is told its end, and what can go on does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from programs import CAPACITY
from served import IDENTITY, Hold, ServedProgram, check_all_is_free, read, until, within

from foveal import CapacityError, FovealError, InputError, QueueFullError, Service, ServiceClosedError, SessionStore
from foveal.errors import DeviceError

Serve = Callable[..., Service]


@pytest.fixture(name="kept")
def _kept(served: ServedProgram) -> Iterator[SessionStore]:
    """In memory."""
    with SessionStore(served, 1 << 24) as store:
        yield store


class TestEnginesThatFail:
    """Once, a few times, or always."""

    @pytest.mark.parametrize("times", [1, 2])
    @pytest.mark.parametrize("error", [MemoryError, DeviceError])
    def test_a_step_that_works_when_it_is_made_again(
        self, served: ServedProgram, serve: Serve, times: int, error: type[Exception]
    ) -> None:
        """Nobody notices but the log."""
        service = serve()
        served.faults.next(None, *[error("no more")] * times)
        streams = [service.submit("ABC", seed=seed, max_new_tokens=8) for seed in range(3)]
        assert [read(one).texts for one in streams] == [
            [served.alone("ABC", seed=seed, max_new_tokens=8).text] for seed in range(3)
        ]
        assert len(served.batches) == 1

    def test_three_steps_in_a_row(self, served: ServedProgram, serve: Serve) -> None:
        """What the batch held ends with the error, what waits in the batch too; the next request is served."""
        service = serve(slots=2)
        served.gate.clear()
        served.faults.next(None, *[DeviceError("gone")] * 3)
        streams = [service.submit("ABC", seed=0, max_new_tokens=80) for _ in range(4)]
        served.gate.set()
        assert [type(read(one).error) for one in streams] == [DeviceError] * 4
        assert service.is_alive
        assert read(service.submit("A", max_new_tokens=2)).reasons == ["length"]

    def test_failures_with_successes_between_do_not_count_together(self, served: ServedProgram, serve: Serve) -> None:
        """Two, and two more."""
        service, gone = serve(slots=1), DeviceError("gone")
        served.faults.next(gone, gone, None, gone, gone, None, gone)
        assert read(service.submit("ABC", seed=0, max_new_tokens=8)).texts == [
            served.alone("ABC", seed=0, max_new_tokens=8).text
        ]

    def test_always(self, served: ServedProgram, serve: Serve) -> None:
        """Each request ends with the error; the service lives, for whoever asks when the engines work again."""
        service = serve(slots=2)
        served.faults.wanted = lambda _name: DeviceError("gone")
        for _ in range(3):
            assert isinstance(read(service.submit("ABC", n=2)).error, DeviceError)
        served.faults.next()
        assert service.is_alive
        assert read(service.submit("A", max_new_tokens=2)).reasons == ["length"]

    def test_an_error_that_foveal_does_not_know(self, served: ServedProgram, serve: Serve) -> None:
        """All that the batch held ends with what was raised, and a new batch begins; firings are counted on."""
        service = serve(slots=2)
        read(service.submit("AB", max_new_tokens=3))
        served.gate.clear()
        served.faults.next(None, ZeroDivisionError("a bug"))
        streams = [service.submit("ABC", seed=0, max_new_tokens=80) for _ in range(4)]
        served.gate.set()
        errors = [read(one).error for one in streams]
        assert [str(error) for error in errors] == ["the engines failed: ZeroDivisionError: a bug"] * 4
        assert all(isinstance(error, FovealError) for error in errors)
        until(lambda: len(served.batches) == 2)
        assert service.is_alive
        served.faults.next(ZeroDivisionError("another"))
        assert read(service.submit("A", max_new_tokens=2)).error is not None
        until(lambda: len(served.batches) == 3)
        fires = service.statistics.fires["1.pre"]
        assert fires >= 4 + 2 * 3 + 1  # of the first request, the prompts of two, and the prompt of another
        assert read(service.submit("A", max_new_tokens=2)).reasons == ["length"]
        assert service.statistics.fires["1.pre"] == fires + 2

    def test_a_request_that_comes_while_a_batch_breaks_is_served_by_the_next(self, served: ServedProgram, serve: Serve) -> None:
        """It has lost nothing."""
        service, waiting = serve(slots=2), []

        def come() -> None:
            waiting.append(service.submit("ABC", seed=4, max_new_tokens=5))

        hold = Hold(4)
        first = service.submit("AB", max_new_tokens=80, logits_hook=hold)
        hold.wait()
        served.faults.wanted = lambda _name: (come(), served.faults.next())[0] or ZeroDivisionError("a bug")
        hold.release()
        assert read(first).error is not None
        assert read(waiting[0]).texts == [served.alone("ABC", seed=4, max_new_tokens=5).text]

    def test_no_other_batch(self, served: ServedProgram, serve: Serve) -> None:
        """The service is dead, says so, and all that it had ends."""
        service = serve(slots=1)

        def refuse() -> None:
            late.append(service.submit("A"))
            raise CapacityError("the state of 1 sequences finds no room")

        late: list[Any] = []
        served.opens = refuse
        served.gate.clear()
        served.faults.next(None, ZeroDivisionError("a bug"))
        streams = [service.submit("AB", max_new_tokens=80) for _ in range(3)]
        served.gate.set()
        assert all(isinstance(read(one).error, FovealError) for one in streams)
        until(lambda: not service.is_alive)
        assert isinstance(read(late[0]).error, ServiceClosedError)
        assert not service.is_ready
        with pytest.raises(ServiceClosedError, match="the service's engines failed; see its log"):
            service.submit("A")
        assert service.statistics.fires["1.pre"] > 0
        check_all_is_free(service)
        within(5, lambda: service.close(drain_seconds=60))

    def test_a_text_that_was_whole_is_not_lost(self, served: ServedProgram, serve: Serve, kept: SessionStore) -> None:
        """Its last token was to be appended for its session, which is not kept then."""
        service = serve(slots=1, store=kept)
        served.faults.next(None, ZeroDivisionError("a bug"))
        stream = service.submit("ABC", seed=0, max_new_tokens=2, session="a")
        found = read(stream)
        assert (found.texts, found.error) == ([served.alone("ABC", seed=0, max_new_tokens=2).text], None)
        assert (stream.session_position, kept.position("session:a")) == (None, None)

    def test_no_memory_for_a_prompt(self, served: ServedProgram, serve: Serve) -> None:
        """It ends with the error; those that decode go on."""
        service, hold = serve(slots=2), Hold(3)
        first = service.submit("AB", seed=0, max_new_tokens=40, logits_hook=hold)
        hold.wait()
        served.faults.next(MemoryError("no more"), name="prefill")
        second = service.submit("ABCDEF")
        hold.release()
        assert isinstance(read(second).error, CapacityError)
        assert read(first).reasons == ["length"]

    def test_a_request_whose_settings_fail_costs_no_other(self, served: ServedProgram, serve: Serve) -> None:
        """As a hook that raises."""
        service = serve(slots=2)
        good = service.submit("AB", seed=0, max_new_tokens=20)
        bad = service.submit("AB", logits_hook=lambda _ids, _logits: 1 / 0)
        assert "the logits_hook raised ZeroDivisionError" in str(read(bad).error)
        assert read(good).texts == [served.alone("AB", seed=0, max_new_tokens=20).text]


class TestClosing:
    """Ends what is there, one way or another."""

    def test_draining_lets_all_finish(self, served: ServedProgram, serve: Serve) -> None:
        """Those that wait, too; and takes nothing more meanwhile."""
        service = serve(slots=1)
        served.gate.clear()
        streams = [service.submit("AB", seed=seed, max_new_tokens=9) for seed in range(4)]
        closing = threading.Thread(target=lambda: service.close(drain_seconds=20))
        closing.start()
        until(lambda: not service.is_ready)
        with pytest.raises(ServiceClosedError, match="shutting down"):
            service.submit("A")
        assert service.is_alive
        served.gate.set()
        closing.join(20)
        assert not service.is_alive
        assert [read(one).texts for one in streams] == [
            [served.alone("AB", seed=seed, max_new_tokens=9).text] for seed in range(4)
        ]

    def test_after_that_the_rest_ends_with_what_it_has(self, served: ServedProgram, serve: Serve, kept: SessionStore) -> None:
        """Sessions are kept as they stand, and those that have not begun are as they were."""
        service, hold = serve(slots=1, store=kept), Hold(7)
        first = service.submit("AB", seed=0, max_new_tokens=90, session="a", logits_hook=hold)
        streams = [service.submit("AB", session=str(n), n=2) for n in range(2)]
        hold.wait()
        hold.release(after_seconds=0.2)
        within(20, lambda: service.close(drain_seconds=0.02))
        found = read(first)
        assert found.reasons == ["cancelled"]
        assert found.ids == [served.alone("AB", seed=0, max_new_tokens=6).ids]
        assert first.session_position == 2 + 6
        served.check_goes_on(kept.get("session:a"), [0, 1, *found.ids[0]])
        assert [read(one).reasons for one in streams] == [["cancelled"] * 2] * 2
        assert [kept.position(f"session:{n}") for n in range(2)] == [None, None]

    def test_twice_and_at_once(self, serve: Serve) -> None:
        """As often as one likes; a second one does not wait for what the first one drains."""
        service = serve(slots=1)
        stream = service.submit("AB", max_new_tokens=90)
        threads = [threading.Thread(target=service.close, args=(seconds,)) for seconds in (30, 0, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert len(read(stream).reasons) == 1
        service.close()

    def test_while_requests_come(self, served: ServedProgram) -> None:
        """Each is refused, or told its end; none hangs."""
        for _ in range(10):
            service = Service(served, slots=2, queue=200)
            begun, outcomes = threading.Barrier(5), []

            def ask(service: Service = service, begun: Any = begun, outcomes: list[Any] = outcomes) -> None:
                begun.wait()
                while True:
                    try:
                        found = read(service.submit("A", max_new_tokens=2))
                    except QueueFullError:
                        continue
                    except ServiceClosedError:
                        return
                    outcomes.append(found)

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            begun.wait()
            time.sleep(0.002)
            within(20, service.close)
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive()
            for found in outcomes:
                assert found.reasons in (["length"], ["cancelled"]) or isinstance(found.error, ServiceClosedError)
            check_all_is_free(service)

    def test_after_a_request_was_looked_at(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """It was open then, and is closed when the request is to be taken."""
        service = serve(slots=1)
        monkeypatch.setattr(service, "_check_open", lambda: None)
        service.close()
        with pytest.raises(ServiceClosedError, match="has ended and takes no requests"):
            service.submit("A")
        check_all_is_free(service)

    def test_at_the_end_of_a_block(self, served: ServedProgram) -> None:
        """At once."""
        hold = Hold(3)
        with Service(served, slots=1) as service:
            stream = service.submit("A", max_new_tokens=90, logits_hook=hold)
            hold.wait()
            hold.release(after_seconds=0.1)
        assert not service.is_alive
        assert read(stream).reasons == ["cancelled"]
        with pytest.raises(InputError, match="the batch is closed"):
            served.batches[0].step({})

    def test_a_process_that_forgets_to(self) -> None:
        """Ends all the same, and keeps what was to be kept: its end is the service's."""
        code = """
            import atexit, sys; sys.path.insert(0, "tests")
            from served import Hold, ServedProgram
            from foveal import Service, SessionStore
            served = ServedProgram()
            store = SessionStore(served, 1 << 24)
            atexit.register(lambda: print(store.position("session:0"), store.position("session:1")))
            service = Service(served, slots=2, store=store)
            holds = [Hold(8), Hold(9)]
            served.gate.clear()
            streams = [service.submit("AB", session=str(n), max_new_tokens=90, logits_hook=holds[n]) for n in range(2)]
            served.gate.set()
            holds[0].wait()
            for hold in holds: hold.release(after_seconds=0.3)
            print("ends")
        """
        lines = "\n".join(line.strip() for line in code.splitlines())
        done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        said, positions = done.stdout.splitlines()
        assert said == "ends"
        assert [3 <= int(position) <= 92 for position in positions.split()] == [True, True]


def test_a_step_that_works_on_a_closed_loop_and_an_open_one(served: ServedProgram, serve: Serve) -> None:
    """The events of the open one come."""
    service = serve(slots=2)

    async def ask(prompt: str) -> Any:
        return service.submit_to(asyncio.get_running_loop(), prompt, seed=0, max_new_tokens=30)

    async def read_one() -> str:
        stream = await ask("B")
        return "".join([event.text async for event in stream])

    asyncio.run(ask("A"))
    assert asyncio.run(read_one()) == served.alone("B", seed=0, max_new_tokens=30).text


class TestObservers:
    """Are told what happens."""

    def test_of_tokens_steps_and_ends(self, served: ServedProgram, serve: Serve) -> None:
        """First tokens apart from later ones; an end token is none."""
        told: list[tuple[Any, ...]] = []

        class Noting:
            def __getattr__(self, name: str) -> Any:
                return lambda *given: told.append((name, *given))

        service = serve(slots=2, observer=Noting())
        read(service.submit("ABC", n=2, seed=0, max_new_tokens=4))
        end = served.alone("AB", seed=5, max_new_tokens=3).ids[2]
        read(service.submit("AB", seed=5, end=[end]))
        names = [one[0] for one in told]
        assert [names.count(name) for name in ("first_token", "token", "finished")] == [3, 7, 3]
        assert names.count("stepped") == service.statistics.steps
        assert sum(texts for name, _, texts in (one for one in told if one[0] == "stepped")) == 10
        assert [(one[1], *one[3:]) for one in told if one[0] == "finished"] == [
            ("length", 3, 4),
            ("length", 3, 4),
            ("end", 2, 2),
        ]
        assert {one[1] for one in told if one[0] == "token"} >= {("1.pre", "1.post")}
        assert all(one[2] >= 0 for one in told if one[0] == "token")

    def test_that_raise(self, served: ServedProgram, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
        """Disturb nothing, and are logged once."""

        class Broken:
            def __getattr__(self, name: str) -> Any:
                return lambda *_given: 1 / 0

        service = serve(slots=2, observer=Broken())
        assert read(service.submit("ABC", seed=0, max_new_tokens=4)).texts == [
            served.alone("ABC", seed=0, max_new_tokens=4).text
        ]
        assert [record.getMessage() for record in caplog.records] == [
            "an observer of the service failed; what else it raises is not logged"
        ]


def test_identity_and_capacity(served: ServedProgram, serve: Serve) -> None:
    """A service's capacity is the batch's."""
    assert served.identity == IDENTITY
    assert serve(capacity=50).capacity == 50
    assert serve().capacity == CAPACITY
