"""A job over files of prompts, begun or gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..bundle import Bundle, check_target
from ..errors import ConfigError, InputError
from ..progress import Progress, silent
from ..runtime.capacity import whole
from ..runtime.generation.settings import check_count, params_of
from .folder import JobFolder
from .inputs import InputFile, Part, files_of, scan
from .manifest import VERSION, JobManifest
from .runner import Done
from .tasks import Task
from .totals import Totals, count

PART_LINES = 256
"""Lines of a part: what is done once more, at most, for each that was being worked on when a job was killed."""
Execute = Callable[[Sequence[Part], Callable[[], None]], Iterator[Done]]
"""Does parts, in any order, each once or, if it must, several times; calls back whenever a line is done, if it can tell."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        bundle: what does it.
        files: inputs, or folders of them.
        out: the folder of the outputs.
        task: what to do with each line.
        target: whose engines run.
        capacity: the most tokens of a sequence; None: as many as the engines hold of the model's context.
        part_lines: lines of a part.
    """

    bundle: Bundle
    files: Sequence[Path]
    out: Path
    task: Task
    target: str = "cpu"
    capacity: int | None = None
    part_lines: int = PART_LINES

    def __post_init__(self) -> None:
        check_target(self.target)
        if whole("part_lines", self.part_lines, ConfigError) < 1:
            raise ConfigError(f"part_lines is {self.part_lines}, expected at least 1: lines that are written together")
        check_count(whole("n", self.task.n, InputError))
        if self.task.kind == "generate":
            params_of(self.task.settings)

    def run(self, execute: Execute, on_progress: Progress = silent) -> Totals:
        """Do what is not done yet; gives what the whole job came to.

        Args:
            execute: does parts: in this process (`here`), or on Ray's actors (`on_ray`).
            on_progress: is told how many lines are done.

        Raises:
            ConfigError, InputError: settings, files or a folder that can't be, or that are of another job.
            StorageError: a disk refuses; what is done is kept.
            What `execute` raises; what is done is kept.
        """
        scanned = [scan(number, path, self.part_lines) for number, path in enumerate(files_of(self.files))]
        manifest = self._manifest([file for file, _ in scanned])
        with JobFolder(self.out, manifest, [parts for _, parts in scanned]) as folder:
            missing = list(folder.missing())
            total = sum(file.lines for file in manifest.inputs)
            lines = _Lines(on_progress, total - sum(part.lines for part in missing), total)
            for number in range(len(scanned)):
                folder.join(number)
            for done in execute(missing, lines.add) if missing else ():
                folder.write(done.part, done.output)
                folder.join(done.part.file)
                lines.written(done.part)
            totals = count(self.task.kind, folder.outputs)
            folder.write_summary(msgspec.json.format(msgspec.json.encode(totals), indent=2) + b"\n")
            return totals

    def _manifest(self, inputs: list[InputFile]) -> JobManifest:
        return JobManifest(
            VERSION,
            self.task.kind,
            msgspec.json.decode(msgspec.json.encode(self.task.settings_of_results)),  # as it will be read
            self.task.n,
            self.task.as_ids,
            self.bundle.identity(self.target),
            self.target,
            self.capacity,
            self.part_lines,
            inputs,
        )


class _Lines:
    """Says how many lines are done: one by one where that is known, else part by part."""

    def __init__(self, on_progress: Progress, before: int, total: int) -> None:
        self._report, self._before, self._total = on_progress, before, total
        self._seen, self._written = 0, 0
        self._say()

    def add(self) -> None:
        """One more."""
        self._seen += 1
        self._say()

    def written(self, part: Part) -> None:
        """All of a part."""
        self._written += part.lines
        self._say()

    def _say(self) -> None:
        self._report("lines", self._before + max(self._seen, self._written), self._total)
