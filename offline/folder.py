"""The folder that a job writes into: parts as they become done, then a file for each input."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from ..errors import ConfigError
from ..files import require_place, write_atomically
from ..json_files import decode
from ..locks import Held, hold
from ..storage import storage_errors
from .inputs import Part
from .manifest import JobManifest, difference

_OWN = ".foveal-job"
SUMMARY = "summary.json"


class JobFolder:
    """One job's at a time, and one process's: others are refused as long as it is open.

    A part is written whole, under a name that says which lines it is of, or not at all: whoever does it once more writes the
    same file again. An input's output is its parts in order, put together once all are there. So whatever is killed and when,
    each line of the input has one line in the output.

    Args:
        path: of the folder; made if it is not there.
        manifest: of the job.
        parts: of each input file.

    Raises:
        ConfigError: the folder holds another job, or another process works on it; or two inputs would have one output.
        StorageError: it can't be read or written.
    """

    def __init__(self, path: Path, manifest: JobManifest, parts: Sequence[Sequence[Part]]) -> None:
        self.path, self._own, self._parts = path, path / _OWN, parts
        self.outputs = _outputs(path, [Path(one.path) for one in manifest.inputs])
        with storage_errors(path):
            require_place(path / SUMMARY)
            self._own.mkdir(parents=True, exist_ok=True)
            self._held = _hold(self._own / "lock", path)
        try:
            self._begin(manifest)
        except BaseException:
            self.close()
            raise

    def _begin(self, manifest: JobManifest) -> None:
        file = self._own / "job.json"
        with storage_errors(file):
            if not file.exists():
                self._refuse_others()
                for old in self._own.glob("[0-9]*"):
                    shutil.rmtree(old)
                write_atomically(file, msgspec.json.encode(manifest))
                return
            data = file.read_bytes()
        try:
            found = decode(data, JobManifest)
        except msgspec.MsgspecError as error:
            raise ConfigError(
                f"{file} is not of a job that this version can go on with: {error}; name another folder"
            ) from None
        if (said := difference(found, manifest)) is not None:
            raise ConfigError(
                f"{self.path} holds another job: {said}; name another folder, or remove this one and what it holds"
            )

    def _refuse_others(self) -> None:
        for output in self.outputs:
            if output.exists():
                raise ConfigError(f"{output} is there already and is not of this job; name another folder, or move it away")

    def missing(self) -> Iterator[Part]:
        """Parts that are still to be done, in order."""
        for number, parts in enumerate(self._parts):
            if not self.is_joined(number):
                yield from (part for part in parts if not self._file(part).exists())

    def is_joined(self, number: int) -> bool:
        """Whether the output of an input file is there."""
        return self.outputs[number].exists()

    def write(self, part: Part, output: bytes) -> None:
        """Keep what came of a part.

        Raises:
            StorageError: the disk refuses; the part is still to be done.
        """
        write_atomically(self._file(part), output)

    def join(self, number: int) -> bool:
        """Put the output of an input file together, if all its parts are there; whether it is there.

        Raises:
            StorageError: the disk refuses; the parts are there as they were.
        """
        files = [self._file(part) for part in self._parts[number]]
        if not self.is_joined(number):
            if not all(file.exists() for file in files):
                return False
            self._put_together(files, self.outputs[number])
        with storage_errors(self._own):
            shutil.rmtree(self._own / str(number), ignore_errors=True)
        return True

    def _put_together(self, files: Sequence[Path], output: Path) -> None:
        whole = self._own / "joined"
        with storage_errors(output):
            with whole.open("wb") as target:
                for file in files:
                    with file.open("rb") as source:
                        shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
            os.replace(whole, output)

    def write_summary(self, data: bytes) -> None:
        """Keep what the job came to."""
        write_atomically(self.path / SUMMARY, data)

    def close(self) -> None:
        """Let others work on it."""
        os.close(self._held.descriptor)

    def __enter__(self) -> JobFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _file(self, part: Part) -> Path:
        return self._own / str(part.file) / f"{part.index:08}.jsonl"


def _hold(file: Path, path: Path) -> Held:
    def refuse() -> None:
        raise ConfigError(f"another process works on {path}; wait until it is done, or name another folder")

    held = hold(file, on_wait=refuse)
    assert held is not None  # it was to be made
    return held


def _outputs(path: Path, inputs: Sequence[Path]) -> list[Path]:
    """Where the output of each input goes: `a.txt` to `a.txt.jsonl`, `a.jsonl` to `a.jsonl`.

    Raises:
        ConfigError: two inputs of one name, or a folder in which an output would take the place of an input.
    """
    given = {os.path.realpath(one) for one in inputs}
    found = dict[Path, Path]()
    for one in inputs:
        output = path / (one.name if one.suffix == ".jsonl" else f"{one.name}.jsonl")
        if output in found:
            raise ConfigError(f"{found[output]} and {one} would both be written to {output}; rename one, or do one at a time")
        if os.path.realpath(output) in given:
            raise ConfigError(f"the output {output} would take the place of an input; name another folder for the output")
        found[output] = one
    return list(found)
