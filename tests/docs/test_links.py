"""Pages lead where they say: links to files and headings, and the source files they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("models/checkpoints/*/*.md")]
)
SOURCES = r"`((?:bench|calibration|cli|contract|examples|export|models|runtime|tests)/[\w/]+\.(?:py|sh|safetensors))`"


def name(page: Path) -> str:
    """For people: the page's path in the repository."""
    return str(page.relative_to(ROOT))


def links(page: Path) -> list[str]:
    """Targets of the links and pictures of a page that are not on the network; code blocks have none."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """What headings can be linked as, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the repository and, where a heading is named, to one that is there."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_named_sources_are_there(page: Path) -> None:
    """The changelog may name what is gone."""
    for source in re.findall(SOURCES, page.read_text(encoding="utf-8")):
        assert (ROOT / source).exists(), source
