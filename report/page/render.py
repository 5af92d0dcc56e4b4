"""Sections to a page."""

from __future__ import annotations

from importlib.resources import files

from ...errors import BackendUnavailable, install
from ..document import Report
from ..glance import figures_at_a_glance
from ..numbers import label
from ..pictures.style import DARK, LIGHT
from ..pictures.svg import variables
from ..sections.all import sections_of


def to_html(report: Report) -> str:
    """The whole page, with its style and pictures in it.

    Raises:
        BackendUnavailable: jinja2 or matplotlib is not installed.
    """
    require_jinja()
    from jinja2 import Environment, StrictUndefined

    here = files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((here / "page.html").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        title=label(report.subject),
        tiles=figures_at_a_glance(report),
        sections=sections_of(report),
        style=(here / "page.css").read_text(encoding="utf-8"),
        light=variables(LIGHT),
        dark=variables(DARK),
    )


def require_jinja() -> None:
    """Raise BackendUnavailable where jinja2 is not installed."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(f"a report's page needs jinja2: {install('report')}") from error
