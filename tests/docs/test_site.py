"""The site: every page is in its navigation, what is generated is complete, and no figure of the front pages is typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import foveal
from foveal import cli

ROOT = Path(__file__).parent.parent.parent
WEBSITE = ROOT / "website"


@pytest.fixture
def website(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules can be imported."""
    monkeypatch.syspath_prepend(str(WEBSITE))


class _Loader(yaml.SafeLoader):
    """mkdocs.yml without what its own tags would do."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)  # type: ignore[no-untyped-call]
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)  # type: ignore[no-untyped-call]
SETTINGS = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)


def leaves(nav: Any) -> list[str]:
    """The pages of a navigation."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in leaves(part)]


def test_every_page_is_in_the_navigation_once() -> None:
    """Of docs/, its decisions included; whoever adds a page enters it in mkdocs.yml."""
    pages = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    named = sorted(page for page in leaves(SETTINGS["nav"]) if not page.startswith(("reference/", "source/")))
    assert named == pages


def test_every_page_says_what_it_is_about() -> None:
    """A title, and a sentence before anything else."""
    for page in (ROOT / "docs").glob("*.md"):
        lines = page.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# "), page
        assert lines[2].strip(), page
        assert not lines[2].startswith(("#", "```", "| ", "- ")), page


def test_nothing_is_fetched_from_elsewhere() -> None:
    """No fonts, and no repository whose stars a page would ask for."""
    assert SETTINGS["theme"]["font"] is False
    assert "repo_url" not in SETTINGS
    assert SETTINGS["strict"] is True


@pytest.mark.usefixtures("website")
def test_figures_of_the_front_pages_are_those_of_the_measurements() -> None:
    """README and the home page hold what `python website/figures.py` writes from docs/performance.md."""
    import figures

    from foveal.bench.document import insert

    text = figures.table(figures.SOURCE.read_text(encoding="utf-8"))
    for page in figures.PAGES:
        document = page.read_text(encoding="utf-8")
        assert insert(document, {figures.MARK: text}) == document


def test_the_readme_is_one_screen() -> None:
    """60 lines; its prose, without tables, commands and the list of links, is read aloud in a minute (170 words)."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 60
    prose = re.sub(r"<!--.*?-->|```.*?```|!\[.*?\)|\]\([^)]*\)", "", text, flags=re.DOTALL)
    spoken = re.sub(r"^\|.*$", "", prose[: prose.index("## Where to go")], flags=re.MULTILINE)
    assert len(spoken.split()) <= 170


@pytest.mark.usefixtures("website")
def test_the_reference_has_every_command_and_option() -> None:
    """Of typer's own commands, subcommands included."""
    import command_reference

    page = command_reference.page()
    command: Any = typer.main.get_command(cli.app)
    for name, verb in command.commands.items():
        assert f"\n## foveal {name}\n" in page or getattr(verb, "commands", None)
        for parameter in getattr(verb, "params", ()):
            assert parameter.opts[0].startswith("-") is False or f"`{parameter.opts[0]}`" in page
    for called in ("foveal bench", "foveal bench claims", "foveal plan batch"):
        assert f"\n## {called}\n" in page


def test_the_home_page_names_every_command() -> None:
    """With what it is for."""
    command: Any = typer.main.get_command(cli.app)
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [name for name in command.commands if f"| `foveal {name}" not in page] == []


@pytest.mark.usefixtures("website")
def test_the_reference_has_every_public_name() -> None:
    """All that `import foveal` gives, by the module that defines it."""
    import python_reference

    page = python_reference.page(ROOT)
    for name in foveal.__all__:
        assert name == "__version__" or f".{name}\n" in page


@pytest.mark.usefixtures("website")
def test_links_out_of_the_pages_become_pages(tmp_path: Path) -> None:
    """Relative to where the page is in the site; links to other hosts and code stay as they are."""
    from sources import Sources

    (tmp_path / "docs").mkdir()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "a.py").write_text("print()\n")
    (tmp_path / "tools" / "README.md").write_text("# Tools\n\n[a](a.py) [back](../docs/b.md#c)\n")
    page = "[tools](../tools) [x](https://a.b/c) [here](#c)\n\n```sh\n[y](../tools)\n```\n"
    (tmp_path / "docs" / "b.md").write_text(page)
    sources = Sources(tmp_path)
    pages = sources.pages([])
    assert set(pages) == {"source/tools/README.md", "source/tools/a.py.md"}
    assert pages["source/tools/a.py.md"] == "# tools/a.py\n\n````python\nprint()\n````\n"
    assert sources.site_links(page, "b.md") == page.replace("(../tools)", "(source/tools/README.md)", 1)
    shown = sources.site_links(pages["source/tools/README.md"], "source/tools/README.md")
    assert shown == "# Tools\n\n[a](a.py.md) [back](../../b.md#c)\n"


def test_faults_of_a_site_are_found(tmp_path: Path) -> None:
    """Each kind in a line; a site without any passes."""
    page = tmp_path / "index.html"
    good = '<h1 id="a">A</h1><a href="#a">a</a><a href="https://foveal.test/x">x</a><link rel="canonical" href="https://a.b/">'
    page.write_text(good)
    assert _checked(tmp_path) == (0, [])
    page.write_text(
        good + '<a href="#b">b</a><a href="none.html">n</a><a href="http://a.b/">h</a><script src="https://a.b/x.js"></script>'
    )
    code, lines = _checked(tmp_path)
    assert code == 1
    assert lines == [
        "index.html: #b: no such heading",
        "index.html: none.html: no such file in the site",
        "index.html: http://a.b/: https is expected",
        "index.html: https://a.b/x.js: is fetched from another host",
    ]


def _checked(site: Path) -> tuple[int, list[str]]:
    """Exit code, and a line for each fault."""
    found = subprocess.run([sys.executable, WEBSITE / "check.py", site], capture_output=True, text=True, check=False)
    return found.returncode, found.stderr.splitlines()


def test_the_workflow_is_one(tmp_path: Path) -> None:
    """By GitHub's schema, as check-jsonschema brings it."""
    workflow = ROOT / ".github" / "workflows" / "docs.yml"
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", workflow]
    assert subprocess.run(line, capture_output=True, check=False).returncode == 0
    assert "make docs" in workflow.read_text(encoding="utf-8")


@pytest.mark.deep
def test_the_site_builds(tmp_path: Path) -> None:
    """`make docs` does the same: warnings are errors, and every link leads somewhere."""
    pytest.importorskip("mkdocs", reason="the site takes Python 3.11")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path / "site"]
    found = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert _checked(tmp_path / "site") == (0, [])
