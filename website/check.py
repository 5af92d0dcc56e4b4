"""Checks a built site: every link leads somewhere, and no page fetches anything from another host.

    python website/check.py build/site

Links inside the site are followed, anchors included. Links to other hosts are checked by their form alone: https (or http on
this machine), a host, no blanks. Prints each fault on a line of its own; exit code 1 if there is any.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

LINKS = {"a": "href"}
LOADS = {"img": "src", "script": "src", "link": "href", "source": "srcset", "iframe": "src", "video": "src", "object": "data"}
"""What a browser fetches by itself; a `link` only where it is no mere statement (`rel="canonical"`)."""
STATEMENTS = {"canonical", "prev", "next", "alternate"}
FETCHED_BY_STYLES = re.compile(r"(?:url\(|@import\s+)\s*['\"]?((?:https?:)?//[^'\")\s]+)")


NOT_FOUND = "404.html"
"""Shown at any address, so its links begin at the host's root; they are those of the navigation, which all pages have."""


class Reference(NamedTuple):
    """Where a page leads; `loads` if a browser fetches it without being asked."""

    target: str
    loads: bool


class _Reader(HTMLParser):
    """A page's references and anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[Reference] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of one element."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if (target := given.get(LINKS.get(tag, ""))) is not None:
            self.references.append(Reference(target, loads=False))
        stated = tag == "link" and STATEMENTS & set(given.get("rel", "").split())
        if (target := given.get(LOADS.get(tag, ""))) is not None and not stated:
            self.references.append(Reference(target, loads=True))


def faults(site: Path) -> Iterator[str]:
    """One line for each, with the page."""
    pages = {path: _read(path) for path in sorted(site.rglob("*.html")) if path != site / NOT_FOUND}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for reference in dict.fromkeys(page.references):
            if fault := _fault(reference, path, site, pages):
                yield f"{name}: {reference.target}: {fault}"
    for path in sorted(site.rglob("*.css")):
        for target in FETCHED_BY_STYLES.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site).as_posix()}: {target}: is fetched from another host"


def _read(path: Path) -> _Reader:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def _fault(reference: Reference, page: Path, site: Path, pages: dict[Path, _Reader]) -> str | None:
    parts = urlsplit(reference.target)
    if parts.scheme == "mailto" or reference.target == "javascript:void(0)":
        return None
    if parts.scheme or parts.netloc:
        return "is fetched from another host" if reference.loads else _form(reference.target)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site.resolve()) or not target.is_file():
        return "no such file in the site"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors | {"__search", "__toc"}:
        return "no such heading"
    return None


def _form(target: str) -> str | None:
    """What is wrong with a link to another host, as far as can be told without a network."""
    parts = urlsplit(target)
    local = parts.hostname in ("localhost", "127.0.0.1")
    if parts.scheme != "https" and not (local and parts.scheme == "http"):
        return "https is expected"
    if not local and "." not in (parts.hostname or ""):
        return "has no host"
    return "has a blank or a bracket" if re.search(r"[\s<>\"{}|\\^`]", target) else None


def main(arguments: Iterable[str]) -> int:
    """Print what is wrong with the site of the only argument."""
    (site,) = map(Path, arguments)
    found = list(faults(site.resolve()))
    for fault in found:
        print(fault, file=sys.stderr)
    count = sum(1 for _ in site.rglob("*.html"))
    print(f"{site}: {count} pages, {len(found)} faults" if count else f"{site}: no pages")
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
