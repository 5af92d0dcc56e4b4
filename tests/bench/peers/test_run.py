"""Everyone in turn, each in a process of its own, and nobody with another model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from peers_fakes import fake

from foveal import ConfigError, EquivalenceError
from foveal.bench.peers.hold import held
from foveal.bench.peers.peers import Peer, systems_of
from foveal.bench.peers.result import Work
from foveal.bench.peers.run import Ready, agree, get_ready, in_turn, measure, results_of
from foveal.errors import BuildError
from foveal.progress import silent

WORK = Work(sequences=1, prompt_tokens=24, new_tokens=3, threads=1, rounds=2)


def ready(peers: list[Peer], workplace: Path) -> list[Ready]:
    """All of them, and none is skipped."""
    found, skipped = get_ready(systems_of(peers), workplace, silent)
    assert skipped == {}
    return found


def noted(workplace: Path, prompt: int) -> list[tuple[str, str]]:
    """Who read a prompt of so many tokens, and in which process, in the order of time."""
    lines = [line.split() for line in (workplace / "models" / "rounds").read_text().splitlines()]
    return [(name, process) for name, length, process in lines if int(length) == prompt]


def test_all_take_turns_in_processes_that_stay(workplace: Path) -> None:
    """Each round begins with another system; the first of all warms up and counts for nothing."""
    systems = ready([fake(exact="fp32", near="8-bit"), fake("another", exact="fp32")], workplace)
    samples = measure(systems, WORK, workplace, None, silent)
    order = [name for name, _ in noted(workplace, WORK.prompt_tokens)]
    assert order == ["exact", "near", "exact", "near", "exact", "exact", "exact", "exact", "near"]
    processes = [process for _, process in noted(workplace, WORK.prompt_tokens)]
    assert processes[:3] == [processes[5], processes[3], processes[4]] == [processes[7], processes[8], processes[6]]
    assert len(set(processes)) == 3
    for found in samples:
        assert [len(timed.step_s) for timed in found.rounds] == [3, 3]
        assert all(timed.prefill_s > 0 for timed in found.rounds)


def test_an_interrupt_keeps_the_rounds_that_are_whole(workplace: Path) -> None:
    """And is one where there are none yet."""
    systems = ready([fake()], workplace)

    def stop_at(last: int) -> list[int]:
        def interrupt(_doing: str, done: int, _steps: int) -> None:
            if done == last:
                raise KeyboardInterrupt

        return [len(found.rounds) for found in measure(systems, WORK, workplace, None, interrupt)]

    assert stop_at(2) == [1]
    with pytest.raises(KeyboardInterrupt):
        stop_at(1)


def test_cold_starts_are_of_new_processes(workplace: Path) -> None:
    """One for each system and round, behind a short prompt."""
    samples = measure(ready([fake()], workplace), WORK, workplace, None, silent)
    processes = [process for _, process in noted(workplace, 16)]
    assert len(set(processes)) == 3  # the one that warms up, too
    assert not set(processes) & {process for _, process in noted(workplace, WORK.prompt_tokens)}
    assert len(samples[0].first_token_s) == WORK.rounds


def test_many_sequences_have_no_cold_start(workplace: Path) -> None:
    """Which is a matter of one."""
    many = Work(sequences=4, prompt_tokens=24, new_tokens=3, threads=1, rounds=1)
    (found,) = measure(ready([fake()], workplace), many, workplace, None, silent)
    assert (len(found.rounds), found.first_token_s) == (1, [])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_everybody_begins_once(count: int) -> None:
    """In as many rounds as there are systems."""
    assert [in_turn(count, number)[0] for number in range(count)] == list(range(count))
    assert all(sorted(in_turn(count, number)) == list(range(count)) for number in range(2 * count))


def test_logits_are_compared(workplace: Path) -> None:
    """What rounding does is told, in standard deviations."""
    exact, near = agree(ready([fake(exact="fp32", near="8-bit")], workplace), workplace, 1)
    assert exact == 0
    assert 0.05 < near < 0.3


@pytest.mark.parametrize("kind", ["fp32", "8-bit", "4-bit"])
def test_another_model_is_an_error(workplace: Path, kind: str) -> None:
    """Whatever its precision may lose."""
    systems = ready([fake(exact="fp32", other=kind)], workplace)
    with pytest.raises(EquivalenceError, match=f"fake 12@1 other runs another model: .* expected at most [0-9.]+ in {kind}"):
        agree(systems, workplace, 1)


def test_a_peer_that_breaks_says_why(workplace: Path) -> None:
    """Its last words, and where all of them are."""
    systems = ready([fake(breaks="fp32")], workplace)
    with pytest.raises(BuildError, match="the process of fake 12@1 breaks ended: out of fakes; all it said: .*breaks.log"):
        measure(systems, WORK, workplace, None, silent)


def test_a_conversion_that_fails_says_why(workplace: Path) -> None:
    """With the command that shows all."""
    with pytest.raises(BuildError, match="unknown could not be converted .*: ValueError: no such precision: unknown; to see"):
        get_ready(systems_of([fake(unknown="fp32")]), workplace, silent)


def test_conversions_are_kept(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the weights or a version is another."""
    conversions = workplace / "models" / "conversions"

    def count() -> int:
        ready([fake()], workplace)
        return len(conversions.read_text().splitlines())

    assert [count(), count()] == [1, 1]
    monkeypatch.setenv("FAKE_VERSION", "2.0")
    assert [count(), count()] == [2, 2]
    (workplace / "original" / "12@1" / "model.safetensors").write_bytes(b"others")
    assert count() == 3


def test_what_cannot_be_used_is_skipped_with_the_reason(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its systems."""
    monkeypatch.setenv("FAKE_MISSING", "ggml")
    found, skipped = get_ready(systems_of([fake(exact="fp32", near="8-bit")]), workplace, silent)
    assert (found, skipped) == ([], {"fake": "ImportError: No module named 'ggml'"})


def test_results_name_what_was_run(workplace: Path) -> None:
    """Versions as the program tells them."""
    systems = ready([fake()], workplace)
    (result,) = results_of(systems, [0.25], measure(systems, WORK, workplace, None, silent))
    assert (result.name, result.kind, result.versions) == ("fake 12@1 exact", "fp32", {"fake": "1.0"})
    assert result.logits_error == 0.25
    assert [len(steps) for steps in result.step_s] == [3, 3]


def test_the_machine_is_held_while_something_is_timed(workplace: Path, tmp_path: Path) -> None:
    """From a line of the command to the end of its input: to load, and in each round for prompts and for cold starts."""
    notes = tmp_path / "notes"
    code = f"import sys; f = open({str(notes)!r}, 'a'); f.write('a'); print(flush=True); sys.stdin.read(); f.write('b')"
    measure(ready([fake()], workplace), WORK, workplace, shlex.join([sys.executable, "-c", code]), silent)
    assert notes.read_text() == "ab" * (1 + 2 * (1 + WORK.rounds))


def test_a_holder_that_does_not_hold() -> None:
    """Is no holder."""
    with pytest.raises(ConfigError, match="--hold 'exit 3' ended with 3 and printed no line"), held("exit 3"):
        pass
