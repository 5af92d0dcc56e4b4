"""Train models at equal compute: the same batches in the same order, in turns, so that they are equally far whenever it stops.

    python -m foveal.bench.trained_set train RUNS --text books/train --valid books/valid --minutes 60
    python -m foveal.bench.trained_set cool RUNS COOLED
    python -m foveal.bench.trained_set train COOLED --text books/train --valid books/valid
    python -m foveal.bench.trained_set show COOLED/vanilla COOLED/hourglass [--document docs/training.md]

`RUNS/set.json` says which models, and how to train (`TrainedSet`). The first command makes a run in `RUNS/NAME` for each, or
goes on where the last call was stopped, even by a kill: of one model at most `eval_every` steps are lost. While the learning
rate stays nothing depends on how many steps there will be. `cool` copies the runs, and sets the end of the copies so that their
cooldown begins at once: the third command gives models to show, and the runs themselves can go on with the first. `show` prints
what a run was and came to, as Markdown, or puts it into a document.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..errors import CheckpointError, ConfigError
from ..files import write_atomically
from ..json_files import decode
from ..models.checkpoint import read_config
from ..models.config import ModelConfig
from ..models.train import Trainer, TrainReport, TrainSettings, tokenizer_for, use_threads
from .document import insert
from .script import run_script


class TrainedSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a `set.json` holds: the models by name, and one way to train them all, with a cooldown."""

    models: dict[str, ModelConfig]
    settings: TrainSettings
    tokenizer: str = "bytes"


def main() -> None:
    """Train a set, or copy it for its cooldown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="begin or go on")
    train.add_argument("runs", type=Path, help="a directory with a set.json")
    train.add_argument("--text", type=Path, nargs="+", required=True, help="files, or directories of *.txt")
    train.add_argument("--valid", type=Path, nargs="+", required=True)
    train.add_argument("--minutes", type=float, help="stop behind the first round that ends later")
    train.add_argument("--threads", type=int)
    cool = commands.add_parser("cool", help="copy runs, their cooldown beginning where they are")
    cool.add_argument("runs", type=Path)
    cool.add_argument("cooled", type=Path, help="a directory that is not there yet")
    show = commands.add_parser("show", help="say what runs came to")
    show.add_argument("checkpoints", type=Path, nargs="+")
    show.add_argument("--document", type=Path, help="put it between its marks, <!-- figures: trained-set -->")
    given = parser.parse_args()
    if given.command == "cool":
        steps = copy_to_cool(given.runs, given.cooled)
        print(f"{given.cooled}: train it to step {steps:,}")
    elif given.command == "show":
        table = markdown(given.checkpoints)
        if given.document is None:
            print(table)
        else:
            write_atomically(given.document, insert(given.document.read_text(), {"trained-set": table}).encode())
    else:
        use_threads(given.threads)
        train_in_turns(trainers(given.runs, given.text, given.valid), given.minutes)


def read_set(runs: Path) -> TrainedSet:
    """The set of a directory.

    Raises:
        ConfigError: there is none, it is malformed, or its learning rate does not stay before a cooldown.
    """
    path = runs / "set.json"
    try:
        found = decode(path.read_bytes(), TrainedSet)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path} is not a set of models to train: {error}; docs/training.md has one") from error
    if not found.models:
        raise ConfigError(f"{path} has no models")
    if found.settings.cooldown is None:
        raise ConfigError(f"{path} has no cooldown, expected a share of the steps: along a cosine a run can't end anywhere")
    return found


def trainers(runs: Path, text: Sequence[Path], valid: Sequence[Path]) -> list[Trainer]:
    """One for each model of the set, where its run is."""
    models = read_set(runs)
    return [
        Trainer(
            config,
            models.settings,
            tokenizer_for(list(text), config.vocab_size, models.tokenizer),
            list(text),
            list(valid),
            runs / name,
        )
        for name, config in models.models.items()
    ]


def train_in_turns(runs: Sequence[Trainer], minutes: float | None = None) -> None:
    """Whoever has the fewest steps goes to the next evaluation, until all are at the end, or out of time and level."""
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    while (run := min(runs, key=lambda run: run.step)).step < run.settings.steps:
        every = run.settings.eval_every
        point = run.run(until_step=(run.step // every + 1) * every).curve[-1]
        print(
            f"{run.out.name}: step {point.step:,}, {point.seconds:,.0f} s, {point.train_loss_nats:.4f} nats per token, "
            f"validation {point.valid_bits_per_byte:.4f} bits per byte",
            flush=True,
        )
        if time.monotonic() >= until and all(other.step == run.step for other in runs):
            return


def copy_to_cool(runs: Path, cooled: Path) -> int:
    """Copy a set, which will end so that its cooldown begins where the runs are; gives that last step.

    Raises:
        CheckpointError: there is something already, the runs have not begun, or are not level, or are in their cooldown.
    """
    if cooled.exists():
        raise CheckpointError(f"{cooled} is there already; train it, or choose another directory")
    models = read_set(runs)
    cooldown = models.settings.cooldown or 0
    at = {name: _steps_of(runs / name) for name in models.models}
    step = min(at.values())
    if max(at.values()) != step:
        raise CheckpointError(f"the runs in {runs} are not level: {at}; train them on for a moment: --minutes 0.01")
    if not 0 < step <= (1 - cooldown) * models.settings.steps:
        raise CheckpointError(
            f"the runs in {runs} are at step {step:,} of {models.settings.steps:,}, expected one before their cooldown"
        )
    steps = round(step / (1 - cooldown))
    parts = cooled.with_name(cooled.name + ".part")
    shutil.rmtree(parts, ignore_errors=True)
    for name in models.models:
        shutil.copytree(runs / name, parts / name)
    ending = msgspec.structs.replace(models, settings=msgspec.structs.replace(models.settings, steps=steps))
    write_atomically(parts / "set.json", msgspec.json.format(msgspec.json.encode(ending), indent=1) + b"\n")
    os.rename(parts, cooled)
    return steps


def markdown(checkpoints: Sequence[Path]) -> str:
    """One column for each checkpoint with a `training.json`.

    Raises:
        CheckpointError: one has none, or one of a run that was never evaluated.
    """
    columns = [_column(checkpoint) for checkpoint in checkpoints]
    names, *rows = ([first[0], *(column[place][1] for column in columns)] for place, first in enumerate(columns[0]))
    lines = [names, ["---"] + ["---:"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _column(checkpoint: Path) -> list[tuple[str, str]]:
    config, path = read_config(checkpoint), checkpoint / "training.json"
    try:
        report = decode(path.read_bytes(), TrainReport)
    except (OSError, msgspec.MsgspecError) as error:
        raise CheckpointError(f"{path} is not the report of a run: {error}; name directories that training left") from error
    if not report.curve:
        raise CheckpointError(f"{path} has no evaluation; train it first")
    last = report.curve[-1]
    return [
        ("", checkpoint.resolve().name),
        ("hierarchy", f"`{config.hierarchy}`"),
        ("parameters", f"{report.parameters:,}"),
        ("arithmetic per token", f"{report.flops_per_token / 1e6:.2f} MFLOP"),
        ("steps; tokens", f"{last.step:,}; {last.tokens / 1e6:.2f} M"),
        ("arithmetic in all", f"{last.tokens * report.flops_per_token:.3g} FLOP"),
        ("seconds", f"{last.seconds:,.0f}"),
        ("training loss, nats per token", f"{last.train_loss_nats:.4f}"),
        ("validation, **bits per byte**", f"**{last.valid_bits_per_byte:.4f}**"),
    ]


def _steps_of(run: Path) -> int:
    """Of which there is a state."""
    import torch

    path = run / "resume.pt"
    if not path.exists():
        raise CheckpointError(f"{run} holds no run: {path.name} is not there; train it first")
    return int(torch.load(path, weights_only=True)["step"])


if __name__ == "__main__":
    run_script(main)
