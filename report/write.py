"""Write a report into files, by their names' endings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..errors import ConfigError
from ..files import require_place, write_atomically
from .document import Report

FORMATS = (".html", ".md", ".json")


def require_outs(outs: Sequence[Path]) -> None:
    """See before long work that all of it can be written.

    Raises:
        ConfigError: no file, or a name that ends in none of `FORMATS`.
        StorageError: a place that can't be written to.
        BackendUnavailable: what draws or what makes pages is not installed.
    """
    if not outs:
        raise ConfigError("nowhere to write the report: give --out F, which ends in .html, .md or .json")
    for out in outs:
        if out.suffix.lower() not in FORMATS:
            raise ConfigError(f'the report is to be "{out}", expected a name that ends in {", ".join(FORMATS)}')
        require_place(out)
        if out.suffix.lower() == ".md":
            require_place(folder_of(out) / "hierarchy.svg")
        _require_packages(out)


def _require_packages(out: Path) -> None:
    from .page.render import require_jinja
    from .pictures.style import require_matplotlib

    if out.suffix.lower() != ".json":
        require_matplotlib()
    if out.suffix.lower() == ".html":
        require_jinja()


def folder_of(out: Path) -> Path:
    """Where the pictures of a Markdown file are."""
    return out.with_name(f"{out.stem}-pictures")


def write_report(report: Report, out: Path) -> list[Path]:
    """Write one file, and the pictures of Markdown first; returns what was written. Each is written whole or not at all.

    Raises:
        StorageError: the disk refuses.
    """
    suffix = out.suffix.lower()
    if suffix == ".json":
        return _written({out: msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"})
    if suffix == ".html":
        from .page.render import to_html

        return _written({out: to_html(report)})
    from .markdown import to_markdown

    folder = folder_of(out)
    text, pictures = to_markdown(report, folder.name)
    return _written({**{folder / name: svg for name, svg in pictures.items()}, out: text})


def _written(texts: dict[Path, str]) -> list[Path]:
    for path, text in texts.items():
        write_atomically(path, text.encode())
    return list(texts)
