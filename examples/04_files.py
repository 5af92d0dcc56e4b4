"""A batch job: many files, a prompt in each, continued together; one line of JSON for each, and it can be killed at any time.

    python examples/04_files.py prompts/*.txt --out continued.jsonl

The same command resumes the job: a file that has a line already is left out; a line that was cut short, and lines of errors,
are removed, and those files are tried again. What comes after a prompt depends on the prompt, the settings and the bundle, not
on which files are read beside it, so that a job that was interrupted gives the lines of one that was not, in another order.
`key` is the hash of these three: with another seed, or after a file was edited, there is one more line. A line:

    {"file": "prompts/a.txt", "key": "9f86d0...", "text": " and the sea", "tokens": 3, "finish_reason": "length"}

A file that can't be continued gets a line with "error" in it, and the job goes on. The numbers of lines are said on stderr;
exit code 1: there were errors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from common import model_at, parser_of, run

import foveal


class Job:
    """Files that are to be continued.

    Args:
        model: what continues them.
        files: with a prompt in each, UTF-8.
        settings: as of `Model.generate`.
        out: where lines are appended.
        done: keys of those that are there.

    Attributes:
        written, failed, left_out: lines with texts, lines with errors, and files that had a line.
    """

    def __init__(
        self, model: foveal.Model, files: Sequence[Path], settings: dict[str, Any], out: TextIO, done: set[str]
    ) -> None:
        self.model, self.files, self.settings, self.out, self.done = model, files, settings, out, done
        self.written = self.failed = self.left_out = 0
        self._taken: list[tuple[Path, str]] = []  # files and keys by the index of their prompt

    def go(self, slots: int) -> None:
        """Continue all that have no line."""
        many = self.model.generate_many(self._prompts(), slots=slots, **self.settings)
        for _ in many:
            self._write_ended(many)
        self._write_ended(many)

    def _prompts(self) -> Iterator[list[int]]:
        """Each file is read when there is a slot for it, so that there may be any number."""
        for file in self.files:
            try:
                data = file.read_bytes()
                key = self._key(file, data)
                if key in self.done:
                    self.left_out += 1
                    continue
                ids = self._ids(data)
            except (OSError, foveal.FovealError) as error:
                self._write(file, error=str(error))
                continue
            self._taken.append((file, key))
            yield ids

    def _key(self, file: Path, data: bytes) -> str:
        about = json.dumps([str(file), self.model.identity, self.settings], sort_keys=True)
        return hashlib.sha256(about.encode() + data).hexdigest()

    def _ids(self, data: bytes) -> list[int]:
        try:
            ids = self.model.prompt_ids(data.decode())
        except UnicodeDecodeError as error:
            raise foveal.InputError(f"the file is not UTF-8: {error}") from error
        context = self.model.manifest.model.context
        if not ids:
            raise foveal.InputError("the file is empty")
        if len(ids) > context:
            raise foveal.CapacityError(f"the file has {len(ids)} tokens, the model room for {context}")
        return ids

    def _write_ended(self, many: Any) -> None:
        """Lines of the texts that have ended since; their ids are complete, whatever pieces are still to come."""
        tokenizer = self.model.required_tokenizer()
        for index in list(islice(many.finish_reasons, self.written, None)):
            (file, key), ids = self._taken[index], many.ids[index]
            text = tokenizer.decode(ids)
            self._write(file, key=key, text=text, tokens=len(ids), finish_reason=many.finish_reasons[index])

    def _write(self, file: Path, **fields: object) -> None:
        """A line; it is on the disk when this returns."""
        self.out.write(json.dumps({"file": str(file), **fields}, ensure_ascii=False) + "\n")
        self.out.flush()
        os.fsync(self.out.fileno())
        if "error" in fields:
            self.failed += 1
        else:
            self.written += 1


def whole_lines(out: Path) -> dict[str, str]:
    """By key: lines of texts that an earlier run left, without what was cut short and without errors.

    Raises:
        InputError: a file of something else, which is not to be written over.
    """
    found: dict[str, str] = {}
    if not out.exists():
        return found
    for line in out.read_text(encoding="utf-8").split("\n")[:-1]:  # what follows the last line's end was cut short
        try:
            fields = json.loads(line)
            if "error" not in fields:
                found[fields["key"]] = line
        except (ValueError, TypeError, KeyError):
            raise foveal.InputError(f"{out} has a line that is not of this job: {line[:60]!r}; name another file") from None
    return found


def opened(out: Path, lines: dict[str, str]) -> TextIO:
    """A file of these lines, in the place of what was there, to append to."""
    fresh = out.with_name(f"{out.name}.part")
    with fresh.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines.values())
    fresh.replace(out)  # a kill leaves the one or the other, and both are whole
    return out.open("a", encoding="utf-8")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser: argparse.ArgumentParser = parser_of("04_files.py", __doc__ or "")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="with a prompt")
    parser.add_argument("--out", required=True, type=Path, help="lines of JSON, which are added to")
    parser.add_argument("--slots", type=int, default=8, help="files at once (8)")
    parser.add_argument("--tokens", type=int, default=64, help="of each text (64)")
    parser.add_argument("--temperature", type=float, default=0.6, help="0: always the likeliest token (0.6)")
    parser.add_argument("--seed", type=int, default=1, help="of each text (1)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Continue files."""
    wanted = arguments(given)
    settings = {"max_new_tokens": wanted.tokens, "temperature": wanted.temperature, "seed": wanted.seed}
    model: foveal.Model = model_at(wanted.bundle, wanted.threads)
    try:
        there = whole_lines(wanted.out)
        with opened(wanted.out, there) as out:
            job = Job(model, wanted.files, settings, out, set(there))
            job.go(wanted.slots)
    except OSError as error:
        raise foveal.StorageError(f"{wanted.out} can't be written: {error}") from error
    print(f"{job.written} written, {job.left_out} were there, {job.failed} errors", file=sys.stderr)
    if job.failed:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
