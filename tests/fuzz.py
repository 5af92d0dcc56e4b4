"""Damaged checkpoints, bundles, plans, reports and training runs: nothing but named errors comes of them, and nothing hangs.

Run as `python fuzz.py DIRECTORY FIRST COUNT`; prints a line of JSON for each mutant that did something else, and one at the
end. A mutant is known by its number alone. They run in a worker, since what a native library makes of one may end the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from mutants import mutate
from specimens import random_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import foveal
from foveal import FovealError, build, calibrate, load, open_bundle
from foveal.export import convert_model
from foveal.models.checkpoint import save_checkpoint
from foveal.models.readers.loading import load_model
from foveal.models.train import Trainer, TrainSettings
from foveal.precision import Plan, read_plan, write_plan
from foveal.runtime.preflight import check_all

TESTS = Path(__file__).parent
CPU_SECONDS, WALL_SECONDS = 5, 60
"""Of one mutant; this machine may do other things."""
MEMORY = 6 << 30


def use_bundle(path: Path) -> None:
    """Read it, ask whether it fits, load it, run a token and text."""
    open_bundle(path)
    check_all(path)
    model = load(path, threads=1, overlap=False)
    model.session().advance(torch.zeros((1, 1), dtype=torch.int64).numpy())
    list(model.generate("a", max_new_tokens=2, seed=1))


def build_from(path: Path) -> None:
    """Its stage graphs are read and written."""
    build(path, path.with_name("built"), "w8")


def calibrate_again(path: Path) -> None:
    """With what a report says."""
    calibrate(path, [path.parent.parent / "materials" / "text"], threads=1)


def use_plan(path: Path) -> None:
    """Read it."""
    read_plan(path / "plan.json").needs_calibration()


def resume(path: Path) -> None:
    """Go on with a training run."""
    trainer_in(path, path.parent.parent / "materials" / "text").run()


def trainer_in(path: Path, text: Path) -> Trainer:
    """A run of one step."""
    settings = TrainSettings(steps=1, batch=1, context=8, warmup_steps=1)
    config = random_model("1@1", vocab_size=256).config
    return Trainer(config, settings, Tokenizer.from_file(str(text.with_name("tokenizer.json"))), [text], [text], path)


Use = Callable[[Path], object]


def make_materials(root: Path) -> None:
    """What is damaged."""
    (root / "text").write_text("the sea and the sun and the wind " * 40)
    characters = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(characters, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(root / "tokenizer.json"))
    model = random_model("1@1 1@2 1@1", vocab_size=256)
    calibrate(convert_model(model, root / "bundle", tokenizer=root / "tokenizer.json"), [root / "text"], threads=1)
    save_checkpoint(model, root / "own")
    for name in ("lucid", "pth"):
        (root / name).mkdir()
    torch.save(model.state_dict(), root / "pth" / "model.pth")
    shutil.copyfile(root / "own" / "config.json", root / "pth" / "config.json")
    (root / "plan").mkdir()
    write_plan(root / "plan" / "plan.json", Plan(default="w8", stages={"2": "fp32"}, products={"1/x": "w4"}))
    trainer_in(root / "run", root / "text").run()
    for golden in (*(TESTS / "golden").iterdir(), *(TESTS / "golden_families").iterdir()):
        if golden.is_dir():
            shutil.copytree(golden, root / golden.name, ignore=shutil.ignore_patterns("io.npz"))


def subjects(root: Path) -> list[tuple[Path, str, Use]]:
    """Directories, the file in them to damage, and what is done with them then; bundles have a third of it all."""
    found: list[tuple[Path, str, Use]] = []
    for name in ("manifest.json", "tokenizer.json", "stages/2.onnx", "stages/2.onnx.data", "engines/cpu/2.onnx"):
        found.append((root / "bundle", name, use_bundle))
    found.append((root / "bundle", "engines/cpu/1.pre.json", use_bundle))
    found.append((root / "bundle", "engines/cpu/2.onnx.data", use_bundle))
    found += [(root / "bundle", f"stages/{name}", build_from) for name in ("1.pre.onnx", "1.pre.onnx.data")]
    report = next((root / "bundle" / "reports").iterdir()).name
    found.append((root / "bundle", f"reports/{report}", calibrate_again))
    found.append((root / "plan", "plan.json", use_plan))
    found += [(root / "run", name, resume) for name in ("training.json", "resume.pt", "model.safetensors")]
    for directory in sorted(root.iterdir()):
        if directory.is_dir() and directory.name not in ("bundle", "plan", "run", "mutant"):
            found += [(directory, file.name, load_model) for file in sorted(directory.iterdir())]
    return found


def run(index: int, root: Path, work: Path) -> str | None:
    """Make the mutant of that number and use it; what went wrong."""
    rng = random.Random(index)
    chosen = subjects(root)
    few = [subject for subject in chosen if subject[2] is not load_model]
    directory, name, use = rng.choice(few if rng.random() < 0.6 else chosen)
    shutil.rmtree(work, ignore_errors=True)
    path = work / "mutant"
    shutil.copytree(directory, path)
    data = mutate((path / name).read_bytes(), name, rng)
    (path / name).write_bytes(data)
    if directory.name == "bundle" and name != "manifest.json" and rng.random() < 0.9:  # else its hash is looked at, and no more
        manifest = json.loads((path / "manifest.json").read_text())
        if name in manifest["files"]:
            manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            (path / "manifest.json").write_text(json.dumps(manifest))
    where = f"{index}: {use.__name__} of {directory.name}/{name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(path)
    except FovealError as error:
        return None if "\n" not in str(error) and "\x1b" not in str(error) else f"{where}: not in one line: {error}"
    except BaseException as error:
        import traceback

        last = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in last if "/tests/" not in frame.filename and "site-packages" not in frame.filename]
        at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
        return f"{where}: {type(error).__name__} at {at}: {str(error)[:200]!r}"
    return None


def work_on(first: int, end: int, root: Path, work: Path, pipe: int) -> None:
    """In the worker: tell the parent of each mutant that begins, and what went wrong."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for index in range(first, end):
        os.write(pipe, f"begin {index}\n".encode())
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its default action ends the process
        wrong = run(index, root, work)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if wrong:
            os.write(pipe, (json.dumps(wrong) + "\n").encode())


def main(directory: str, first: str, count: str) -> None:
    """Run mutants, with a new worker wherever one died."""
    root = Path(directory) / "materials"
    if not root.exists():
        root.mkdir(parents=True)
        maker = os.fork()  # the parent stays without threads
        if maker == 0:
            make_materials(root)
            os._exit(0)
        os.waitpid(maker, 0)
    index, end, wrong = int(first), int(first) + int(count), 0
    work = Path(directory) / f"work{index}"
    while index < end:
        read, write = os.pipe()
        worker = os.fork()
        if worker == 0:
            os.close(read)
            work_on(index, end, root, work, write)
            os._exit(0)
        os.close(write)
        at, rest, hangs = index, b"", False
        while True:
            hangs = not select.select([read], [], [], WALL_SECONDS)[0]
            piece = b"" if hangs else os.read(read, 1 << 16)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"begin "):
                    at = int(line.split()[1])
                else:
                    wrong += 1
                    print(line.decode(), flush=True)
        os.close(read)
        if hangs:
            os.kill(worker, signal.SIGKILL)
        _, status = os.waitpid(worker, 0)
        index = end
        if os.WIFSIGNALED(status):
            wrong, index = wrong + 1, at + 1
            print(json.dumps(f"{at}: ended by {signal.Signals(os.WTERMSIG(status)).name}"), flush=True)
    print(json.dumps({"mutants": int(count), "wrong": wrong, "foveal": foveal.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
