"""Files outside docs/ that pages link to: each becomes a page of the site, so that no link leaves it.

A Markdown file is shown as it is, any other as a block of code: `examples/01_minimal.py` is `source/examples/01_minimal.py.md`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path

LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".sh": "sh", ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


class Sources:
    """Of one repository; paths are relative to its root, with `/`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def pages(self, always: Iterable[str]) -> dict[str, str]:
        """Markdown of each page to add, by its place in the site.

        Raises:
            FileNotFoundError: a link leads to a file that is not there.
        """
        found: dict[str, str] = {}
        docs = [path.relative_to(self._root).as_posix() for path in sorted((self._root / "docs").rglob("*.md"))]
        waiting = [*always, *(target for page in docs for target in self._targets(page))]
        while waiting:
            path = waiting.pop()
            if path.startswith("docs/") or _uri(path) in found:
                continue
            found[_uri(path)] = self._page(path)
            waiting += self._targets(path) if path.endswith(".md") else []
        return found

    def site_links(self, markdown: str, uri: str) -> str:
        """A page's text with each link as the site has it."""
        path = _path(uri)
        if path is None:
            return markdown

        def changed(match: re.Match[str]) -> str:
            target, _, anchor = match[2].partition("#")
            if "://" in target or not target:
                return match[0]
            place = self._file(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))
            link = posixpath.relpath(_uri(place), posixpath.dirname(uri) or ".")
            return f"{match[1]}{link}{'#' + anchor if anchor else ''}{match[3]}"

        return _outside_fences(markdown, lambda prose: LINK.sub(changed, prose))

    def _targets(self, path: str) -> list[str]:
        """Files that a page links to."""
        prose = FENCE.sub("", (self._root / path).read_text(encoding="utf-8"))
        targets = [match[2].partition("#")[0] for match in LINK.finditer(prose) if "://" not in match[2]]
        return [self._file(posixpath.normpath(posixpath.join(posixpath.dirname(path), target))) for target in targets if target]

    def _file(self, path: str) -> str:
        """Of a folder, its README."""
        return f"{path}/README.md" if (self._root / path).is_dir() else path

    def _page(self, path: str) -> str:
        text = (self._root / path).read_text(encoding="utf-8")
        if path.endswith(".md"):
            return text
        language = LANGUAGES.get(Path(path).suffix, "text")
        return f"# {path}\n\n````{language}\n{text}````\n"


def _uri(path: str) -> str:
    """Where the site has a file of the repository: pages of docs/ at the top, others in source/."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}" if path.endswith(".md") else f"source/{path}.md"


def _path(uri: str) -> str | None:
    """Which file of the repository a page of the site was; None for pages that are written from the code."""
    if uri.startswith("reference/"):
        return None
    return uri.removeprefix("source/") if uri.startswith("source/") else f"docs/{uri}"


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """Change prose, and leave blocks of code as they are."""
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])
