"""Build what is missing, time all systems in turn, print the table, save the samples and put it into a document.

python -m foveal.bench.peers DIRECTORY [--document docs/performance.md]
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import msgspec

from ...errors import ConfigError
from ...files import require_place, write_atomically
from ..document import insert
from ..environment import read_environment
from ..script import run_script
from .markdown import figures, mark_of
from .original import PROMPT, SIZES
from .peers import OTHERS, foveal, others_of, systems_of
from .result import PeersResult, Work
from .run import agree, get_ready, measure, results_of


def main() -> None:
    """Measure, print, save and insert."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, help="for environments, wheels, converted models and logs, which are kept")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="systems whose names hold it; repeatable")
    parser.add_argument("--foveal", action="append", default=[], metavar="NAME=PYTHON", help="that of another checkout, too")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sequences", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=PROMPT)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hold", metavar="COMMAND", help="run around whatever is timed: prints a line, then waits (hold.py)")
    parser.add_argument("--save", type=Path, help="of the samples; default: in the directory, named after the table")
    parser.add_argument("--document", type=Path, help="a document with a place for the table")
    parser.add_argument("--prepare-only", action="store_true", help="install and convert, and time nothing")
    given = parser.parse_args()
    work = _work(given)
    save = given.save or given.directory / f"{mark_of(work)}.json"
    require_place(save)
    if given.document:
        insert(given.document.read_text(), {mark_of(work): ""})  # a missing place is said before the work
    others = [foveal(f"foveal {name}", python) for name, python in others_of(given.foveal).items()]
    systems = systems_of([foveal("foveal", Path(sys.executable)), *others, *OTHERS], given.only)
    ready, skipped = get_ready(systems, given.directory, _say)
    for name, reason in skipped.items():
        print(f"not run: {name}: {reason}", file=sys.stderr)
    if given.prepare_only:
        return
    if not ready:
        raise ConfigError("no system can be run; see above why, or give others with --only")
    errors = agree(ready, given.directory, work.threads, given.hold)
    samples = measure(ready, work, given.directory, given.hold, _say)
    result = PeersResult(
        command=_command(given),
        work=msgspec.structs.replace(work, rounds=len(samples[0].rounds)),
        systems=results_of(ready, errors, samples),
        skipped=skipped,
        environment=read_environment(),
    )
    write_atomically(save, msgspec.json.encode(result))
    text = figures(result)
    print(f"{text}\n\nsamples: {save}")
    if given.document:
        write_atomically(given.document, insert(given.document.read_text(), {mark_of(work): text}).encode())


def _work(given: argparse.Namespace) -> Work:
    for name in ("rounds", "sequences", "prompt_tokens", "new_tokens", "threads"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is at least 1, got {getattr(given, name)}")
    work = Work(
        sequences=given.sequences,
        prompt_tokens=given.prompt_tokens,
        new_tokens=given.new_tokens,
        threads=given.threads,
        rounds=given.rounds,
    )
    if work.capacity > SIZES.context:
        raise ConfigError(
            f"the model has a context of {SIZES.context} tokens, got {work.capacity}; lower --prompt-tokens or --new-tokens"
        )
    return work


def _command(given: argparse.Namespace) -> str:
    """What measures this again, without the paths of this machine."""
    options = [f"--only {shlex.quote(text)}" for text in given.only]
    options += [f"--foveal {text.partition('=')[0]}=PYTHON" for text in given.foveal]
    numbers = ("sequences", "prompt_tokens", "new_tokens", "rounds", "threads")
    options += [f"--{name.replace('_', '-')} {getattr(given, name)}" for name in numbers]
    return " ".join(["python -m foveal.bench.peers build/peers", *options])


def _say(doing: str, done: int, steps: int) -> None:
    print(f"[{done + 1}/{steps}] {doing}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(main)
