"""Figures to SVG: colours that follow the theme, no name twice in a page, and a text alternative."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from .style import DARK, LIGHT, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_FONT = re.compile(r"'DejaVu Sans'(?:, [^;]+)?")
_COLOURS = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
SANS = '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def to_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """An `<svg>` element to put into a page, the same text for the same figure.

    Args:
        figure: drawn in the light colours of `style.py`.
        name: of the picture, unique in its page: all ids begin with it.
        title: what the picture is.
        description: what it shows, for those who can't see it.
    """
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ET.fromstring(buffer.getvalue())
    for element in list(root):
        if element.tag == f"{{{_SVG}}}metadata":
            root.remove(element)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        _rewrite(element, name)
        element.tail = None
        if element.tag not in ("text", "tspan", "style"):
            element.text = None
    root.attrib = {
        "xmlns": _SVG,
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "class": "picture",
    }
    for index, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(index, element)
    return ET.tostring(root, encoding="unicode")


def alone(svg: str) -> str:
    """The same as a file of its own, which sets the colours itself, by the reader's theme."""
    opening, _, rest = svg.partition(">")
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)[0]
    light, dark = f":root{{{variables(LIGHT)}background:var(--panel)}}", f":root{{{variables(DARK)}}}"
    style = f"<style>{light}@media (prefers-color-scheme: dark){{{dark}}}</style>"
    return f'{opening} width="{width}pt" height="{height}pt">{style}{rest}\n'


def variables(colours: dict[str, str]) -> str:
    """CSS declarations of a palette."""
    return "".join(f"--{name}:{colour};" for name, colour in colours.items()) + f"--sans:{SANS};"


def _rewrite(element: ET.Element, name: str) -> None:
    for key, value in list(element.attrib.items()):
        if key == "id":
            value = f"{name}-{value}"
        elif key == f"{{{_XLINK}}}href":
            del element.attrib[key]
            key, value = "href", f"#{name}-{value.removeprefix('#')}"
        else:
            value = _REFERENCE.sub(rf"url(#{name}-\1)", value)
        if key == "style":
            value = _FONT.sub("var(--sans)", value)
            for colour, variable in _COLOURS.items():
                value = value.replace(colour, variable)
        element.attrib[key] = value
