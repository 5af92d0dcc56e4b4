"""What mkdocs runs beside its own work (mkdocs.yml): pages that are written from the code, and links out of docs/."""

from __future__ import annotations

from pathlib import Path

import command_reference
import python_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from sources import Sources

ROOT = Path(__file__).parent.parent
NAV_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Pages of the repository that the navigation has, whoever links to them."""

_sources = Sources(ROOT)


def on_startup(command: str, dirty: bool) -> None:
    """Let mkdocstrings find the package by its name, whatever the checkout's folder is called.

    Before `on_config`, where mkdocstrings looks which of its paths exist: a fresh checkout has no build/ yet.
    """
    python_reference.lay_out(ROOT, ROOT / "build" / "site-package")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the references, and a page for every file outside docs/ that some page links to."""
    pages = {"reference/command.md": command_reference.page(), "reference/python.md": python_reference.page(ROOT)}
    pages |= _sources.pages(NAV_PAGES)
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that lead out of docs/, or back into it, lead to the site's pages."""
    linked: str = _sources.site_links(markdown, page.file.src_uri)
    return linked
